import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { backoffMs } from '../io/http.ts';
import { sleep } from '../io/pool.ts';

/**
 * Waits until a server takes writes, a bounded number of times (registry.md 2.2): a backup that runs there ends by itself.
 * @param ask whether it does now
 * @throws TARGET_READ_ONLY when it does not by then; what `ask` throws
 */
export async function untilWritable(
  ask: () => Promise<boolean>,
  about: { readonly name: string; readonly context: Context },
): Promise<void> {
  const { name, context } = about;
  for (let asked = 1; !(await ask()); asked += 1) {
    if (asked >= LIMITS.writableAsks) {
      throw new SealiftError('TARGET_READ_ONLY', `${name}: its server takes no writes now`, {
        hint: 'end the read-only mode (Nexus: Administration, System, Nodes), or wait until a backup has ended; then run the same command again',
        side: 'destination',
      });
    }
    const waitMs = backoffMs(asked, context.random);
    context.emit({ type: 'retry', what: name, reason: 'read-only', waitMs: Math.round(waitMs) });
    await sleep(waitMs, context.signal);
  }
}
