import { realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { errorOf, type Fault, fault } from '../core/errors.ts';
import { diskError, errnoOf } from '../io/files.ts';
import { hold, holderText, type Release } from '../io/hold.ts';
import type { Target } from '../target/target.ts';

/** A folder by its one true path, also while it or folders above it are not there yet. */
async function realFolder(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' || dirname(path) === path) throw diskError(error, path);
    return join(await realFolder(dirname(path)), basename(path));
  }
}

/**
 * Keeps other loads of this machine away from these targets while one runs: two that plan on the same target would
 * each write what the other has planned. The same of the receipt, which says which versions were there. Loads into other
 * targets are not kept away, and a kill leaves nothing.
 * @returns what gives all of them free
 * @throws TARGET_BUSY for each one that another load holds, with who that is; then none is held
 */
export async function holdTargets(
  targets: readonly Pick<Target, 'name' | 'kind' | 'folder'>[],
  { receiptPath }: { readonly receiptPath?: string },
): Promise<Release> {
  const receipt = receiptPath === undefined ? undefined : resolve(receiptPath);
  const receipts = receipt === undefined ? [] : [{ name: receipt, kind: 'receipt', folder: receipt }];

  const releases: Release[] = [];
  const faults: Fault[] = [];
  const releaseAll: Release = async () => {
    for (const release of releases) await release();
  };
  try {
    for (const { name, kind, folder } of [...targets, ...receipts]) {
      const place = folder === undefined ? name : `${kind} ${await realFolder(folder)}`;
      const held = await hold(`load ${place}`, { command: 'sealift load' });
      if ('release' in held) releases.push(held.release);
      else {
        const { holder } = held;
        const message = `${name}: another load is writing there: ${holderText(holder)}`;
        const hint = 'wait for it to end, then run the same command again';
        const details = holder === 'unknown' ? {} : { details: { ...holder } };
        faults.push(fault('TARGET_BUSY', message, { hint, ...details }));
      }
    }
    if (faults.length > 0) throw errorOf(faults, `${faults.length} targets are held by other loads`);
  } catch (error) {
    await releaseAll();
    throw error;
  }
  return releaseAll;
}
