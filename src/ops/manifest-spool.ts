import type { Digest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { Spool } from '../io/spool.ts';
import { collect, digestOf } from '../io/verify.ts';

/**
 * Manifests that were read for a plan, until they are written: each is asked for once, because registries count, and there
 * may be too many for the memory. They lie in a file without a name.
 */
export class ManifestSpool {
  readonly #context: Context;
  readonly #digests = new DigestTable();
  /** Of each digest: where its bytes begin; and at last where the next begin. */
  readonly #begins: number[] = [0];
  #spool: Promise<Spool> | undefined;
  /** The spool takes one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(context: Context) {
    this.#context = context;
  }

  has(digest: Digest): boolean {
    return this.#digests.indexOf(digest) >= 0;
  }

  /** @throws DISK_FULL, FILE_UNREADABLE of the folder for temporary files, ABORTED */
  put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const done = this.#turn.then(async () => {
      if (this.has(digest)) return;
      this.#spool ??= Spool.open('manifests', { signal: this.#context.signal });
      const spool = await this.#spool;
      await spool.write(bytes);
      this.#digests.add(digest);
      this.#begins.push(spool.size);
    });
    this.#turn = done.catch(() => {});
    return done;
  }

  /** The bytes of a manifest; undefined where it was never put, or where the disk gives back something else. */
  async read(digest: Digest): Promise<Buffer | undefined> {
    const number = this.#digests.indexOf(digest);
    const spool = await this.#spool;
    if (number < 0 || spool === undefined) return undefined;
    const [position = 0, end = 0] = this.#begins.slice(number, number + 2);
    const source = spool.read({ position, length: end - position });
    const bytes = await collect(source, { limit: LIMITS.manifest, what: digest });
    return digestOf(bytes) === digest ? bytes : undefined;
  }

  /** Never throws. */
  async close(): Promise<void> {
    await this.#turn;
    const spool = await this.#spool?.catch(() => undefined);
    await spool?.close().catch(() => {});
  }
}
