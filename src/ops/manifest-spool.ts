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
  readonly #spool: Spool;
  readonly #digests = new DigestTable();
  /** Of each digest: where its bytes begin; and at last where the next begin. */
  readonly #begins: number[] = [0];
  /** The spool takes one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(spool: Spool) {
    this.#spool = spool;
  }

  /** @throws DISK_FULL, FILE_UNREADABLE of the folder for temporary files */
  static async open({ signal }: Context): Promise<ManifestSpool> {
    const purpose = 'for the manifests of this pack, until they are written';
    return new ManifestSpool(await Spool.open({ what: 'manifests', purpose, small: true }, { signal }));
  }

  has(digest: Digest): boolean {
    return this.#digests.indexOf(digest) >= 0;
  }

  /** @throws as `open`; ABORTED */
  put(digest: Digest, bytes: Uint8Array): Promise<void> {
    const done = this.#turn.then(async () => {
      if (this.has(digest)) return;
      await this.#spool.write(bytes);
      this.#digests.add(digest);
      this.#begins.push(this.#spool.size);
    });
    this.#turn = done.catch(() => {});
    return done;
  }

  /** The bytes of a manifest; undefined where it was never put, or where the disk gives back something else. */
  async read(digest: Digest): Promise<Buffer | undefined> {
    const number = this.#digests.indexOf(digest);
    if (number < 0) return undefined;
    const [position = 0, end = 0] = this.#begins.slice(number, number + 2);
    const source = this.#spool.read({ position, length: end - position });
    const bytes = await collect(source, { limit: LIMITS.manifest, what: digest });
    return digestOf(bytes) === digest ? bytes : undefined;
  }

  /** Never throws. */
  async close(): Promise<void> {
    await this.#turn;
    await this.#spool.close().catch(() => {});
  }
}
