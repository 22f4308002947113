import type { Digest } from '../../core/digest.ts';
import { fault, isAbort, SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { isNetworkError } from '../../io/network-errors.ts';
import { eachBounded } from '../../io/pool.ts';
import { collect, verified } from '../../io/verify.ts';
import type { BlobIntake, ContentReader, PassingContent } from '../../oci/content.ts';
import { emptyTally, failEntry, type Tally, type TargetOptions, type TargetRun } from '../target.ts';
import { type AssetEntry, type AssetPlace, conflictFault } from './asset.ts';
import { AssetLook, type Seen } from './asset-look.ts';
import { AssetUpload } from './asset-upload.ts';
import { storedBytes } from './hash-there.ts';
import { NexusAdmin } from './nexus-admin.ts';

/** Writers at once where nothing else is asked for. */
const WRITERS = 16;
/** Up to so many files are asked for by name. */
const FEW = 10;
/** Nexus 3.71 refuses an upload over something with `If-None-Match: *`; 3.30 does not look at it. */
const GUARDED_SINCE = 71;
/** Refusals that are about no single file (400), one after the other, that end a target. */
const IN_A_ROW = 20;
/** What no other file of the same server would fare better with. */
const OF_THE_SERVER: ReadonlySet<string> = new Set([
  'TARGET_UNREACHABLE',
  'TARGET_READ_ONLY',
  'TARGET_FULL',
  'AUTH_REQUIRED',
]);

export interface AssetOptions extends AssetPlace {
  /** Uploads at once; default 16, at most 20. */
  readonly parallel?: number;
  /** What makes files visible beside themselves, after all have been checked. */
  readonly finish?: (run: {
    readonly entries: readonly AssetEntry[];
    readonly fail: (entry: AssetEntry, error: unknown) => Promise<void>;
  }) => Promise<void>;
}

type Options = AssetOptions & TargetOptions;

/**
 * Asks what of the files is there.
 * @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED, TARGET_FAILED where there is no such repository
 */
export async function planAssets(entries: readonly AssetEntry[], options: Options): Promise<AssetRun> {
  const run = new AssetRun(entries, options);
  if (entries.length === 0) return run;
  const names = await refuseNoRepository(options);
  const isNew = names !== undefined && entries.length > FEW && (await isGuarded(options));
  await run.judge(isNew ? ({ name }) => !names.has(name) : () => false);
  return run;
}

/**
 * A missing file and a missing repository look the same; the list of its files tells them apart.
 * @returns the names of all files where few are there; undefined where that is not known
 * @throws TARGET_FAILED for no such repository; as `WebServer.json`
 */
async function refuseNoRepository({ server, repository }: AssetPlace): Promise<Set<string> | undefined> {
  try {
    const page = await new NexusAdmin(server).firstAssets(repository);
    if (page !== undefined) {
      return page.isAll ? new Set(page.items.map(({ path }) => path.replace(/^\//, ''))) : undefined;
    }
  } catch (error) {
    // Who may write need not be allowed to list.
    if (error instanceof SealiftError && error.details?.status === 403) return undefined;
    throw error;
  }
  throw new SealiftError('TARGET_FAILED', `${server.base.href}: there is no repository ${repository}`, {
    hint: 'correct its name, make it, or set `create: true` for this server',
  });
}

/**
 * Whether an upload may say that nothing must be there (`If-None-Match`), by the name of the server's version. Older ones
 * write over it: there each name is asked for, because a list shows only what its reader may see.
 */
async function isGuarded(place: AssetPlace): Promise<boolean> {
  const { version } = await new NexusAdmin(place.server).status();
  const [, major, minor] = /^(\d+)\.(\d+)\./.exec(version ?? '') ?? [];
  return Number(major) > 3 || (Number(major) === 3 && Number(minor) >= GUARDED_SINCE);
}

/** A planned load of files into one repository. Each file is visible as soon as it is sent: so that is done last. */
export class AssetRun implements TargetRun {
  readonly entries: readonly AssetEntry[];
  readonly tally: Tally = emptyTally();
  readonly #options: Options;
  readonly #look: AssetLook;
  readonly #upload: AssetUpload;
  readonly #lanes: number;
  /** Sent, and not yet compared. */
  readonly #sent = new Set<AssetEntry>();
  /** Came by itself, and goes only behind another file. */
  readonly #held = new Map<AssetEntry, Buffer>();
  #refused = 0;

  constructor(entries: readonly AssetEntry[], options: Options) {
    this.entries = entries;
    this.#options = options;
    this.#lanes = Math.max(1, Math.min(options.parallel ?? WRITERS, LIMITS.writers));
    this.#look = new AssetLook(options, { ...options, lanes: this.#lanes });
    const look = async (entry: AssetEntry): Promise<Seen> => {
      const [seen] = await this.#look.all([entry], async () => true);
      if (seen === undefined || seen instanceof SealiftError) throw seen;
      return seen;
    };
    this.#upload = new AssetUpload(options, { ...options, tally: this.tally, look });
  }

  /** Compares with what is there. @param isNew what is known to be not there */
  async judge(isNew: (entry: AssetEntry) => boolean): Promise<void> {
    const open = this.#open().filter((entry) => !isNew(entry));
    for (const entry of this.#open()) entry.writeBytes = entry.blob.size;
    const seen = await this.#look.all(open, (error) => this.#isFatal(error));
    for (const [at, entry] of open.entries()) {
      const answer = seen[at];
      if (answer instanceof SealiftError) failEntry(entry, answer);
      else if (answer !== undefined) this.#place(entry, answer);
    }
    for (const entry of this.#open()) this.#followLeader(entry);
  }

  #place(entry: AssetEntry, seen: Seen): void {
    const { size } = entry.blob;
    if (seen.state === 'same') {
      entry.state = 'present';
      entry.presentBytes = size;
      entry.writeBytes = 0;
      this.tally.blobsPresent += 1;
      return;
    }
    if (seen.state === 'other') {
      entry.added = { names: [], manifests: [] };
      if (seen.found !== undefined) entry.found = seen.found;
      const { onConflict } = this.#options;
      const found = entry.found ?? 'something of another size';
      if (onConflict === 'keep') {
        entry.state = 'kept';
        entry.notes.push(`${found} is there and stays; the bundle has ${entry.blob.digest}`);
      } else if (onConflict === 'fail') {
        entry.state = 'failed';
        entry.fault = conflictFault(entry);
      } else entry.notes.push(`${found} was there and is replaced`);
    }
    if (entry.state !== 'write') entry.writeBytes = 0;
  }

  /** What belongs to a file that is not there does not go either. */
  #followLeader(entry: AssetEntry): void {
    const { after } = entry;
    if (after === undefined || entry.state !== 'write') return;
    if (after.state === 'kept') {
      entry.state = 'kept';
      entry.writeBytes = 0;
      entry.notes.push(`not written, because ${after.name} there is another one`);
    } else if (after.state === 'failed') {
      entry.state = 'failed';
      const code = after.fault?.code ?? 'TARGET_FAILED';
      entry.fault = fault(code, `${entry.as}: not written, because ${after.name} is not`);
    }
  }

  #open(): AssetEntry[] {
    return this.entries.filter(({ state }) => state === 'write');
  }

  async needs(isAbsent: (digest: Digest) => boolean): Promise<Digest[]> {
    return this.#open()
      .map(({ blob }) => blob.digest)
      .filter(isAbsent);
  }

  /** Nothing can be brought there without being seen. */
  async writeBlobs(): Promise<void> {}

  async intake(): Promise<BlobIntake> {
    const byDigest = new Map<Digest, AssetEntry[]>();
    for (const entry of this.#open()) {
      const { digest } = entry.blob;
      byDigest.set(digest, [...(byDigest.get(digest) ?? []), entry]);
    }
    return {
      takersOf: (digest) => {
        const entries = byDigest.get(digest);
        return entries === undefined ? [] : [(blob) => this.#take(entries, blob)];
      },
    };
  }

  /** One after the other: further files with the same bytes read what is still held, or the first one back. */
  async #take(entries: readonly AssetEntry[], blob: PassingContent): Promise<void> {
    let first: AssetEntry | undefined;
    for (const entry of entries) {
      const source = blob.has(0) || first === undefined ? blob : this.#stored(first);
      if (entry.after !== undefined) await this.#hold(entry, source);
      else if (await this.#send(entry, source)) first ??= entry;
    }
  }

  async #hold(entry: AssetEntry, source: ContentReader): Promise<void> {
    const { blob, name } = entry;
    try {
      const bytes = source.open(blob, { signal: this.#options.context.signal });
      this.#held.set(entry, await collect(bytes, { limit: LIMITS.provenance, what: name }));
    } catch (error) {
      await this.#fail(entry, error);
    }
  }

  /** What is on the server already, as content. */
  #stored(entry: AssetEntry): ContentReader {
    const { digest, size } = entry.blob;
    return {
      open: (_, { offset = 0 }) => {
        const bytes = storedBytes(this.#options.server, entry.path, offset);
        return offset === 0 ? verified(bytes, { digest, size, what: entry.as }) : bytes;
      },
    };
  }

  /** @returns whether it is there now */
  async #send(entry: AssetEntry, source: ContentReader): Promise<boolean> {
    try {
      if (!(await this.#upload.send(entry, source))) return false;
      this.#refused = 0;
      this.#sent.add(entry);
      return true;
    } catch (error) {
      await this.#fail(entry, error);
      return false;
    }
  }

  async writeManifests(): Promise<void> {}

  async commit(): Promise<void> {
    for (const isFollower of [false, true]) {
      const open = this.#open().filter(({ after }) => (after !== undefined) === isFollower);
      for (const entry of open) this.#followLeader(entry);
      const limits = { limit: this.#lanes, signal: this.#options.context.signal };
      await eachBounded(open, limits, async (entry) => {
        if (entry.state !== 'write' || this.#sent.has(entry)) return;
        const held = this.#held.get(entry);
        await this.#send(entry, held === undefined ? this.#options.source : heldReader(held));
      });
      await this.#check();
    }
    await this.#options.finish?.({
      entries: this.entries,
      fail: (entry, error) => this.#fail(entry, error),
    });
  }

  /** Compares what was sent with what is there. */
  async #check(): Promise<void> {
    const sent = [...this.#sent];
    const seen = await this.#look.all(sent, (error) => this.#isFatal(error));
    for (const [at, entry] of sent.entries()) {
      const answer = seen[at];
      this.#sent.delete(entry);
      if (answer instanceof SealiftError) failEntry(entry, answer);
      else if (answer?.state === 'same') entry.state = 'written';
      else {
        const found = answer?.state === 'other' ? (answer.found ?? 'another size') : 'nothing';
        const expected = entry.blob.digest;
        const message = `${entry.as}: is not what was sent: expected ${expected}, found ${found}`;
        const hint =
          'somebody else may write there too; run the same command again, and ask who owns the server';
        failEntry(entry, new SealiftError('TARGET_FAILED', message, { hint, details: { expected, found } }));
      }
    }
  }

  /** Records a failure. @throws it where the whole server is concerned */
  async #fail(entry: AssetEntry, error: unknown): Promise<void> {
    if (await this.#isFatal(error)) throw error;
    failEntry(entry, error);
  }

  /** Whether no other file would fare better. A server that is gone is asked for its status, once for each failure. */
  async #isFatal(error: unknown): Promise<boolean> {
    if (isAbort(error) || !(error instanceof SealiftError)) return true;
    if (OF_THE_SERVER.has(error.code) || error.details?.status === 401) return true;
    const { status } = error.details ?? {};
    if (typeof status === 'number' && status !== 400) this.#refused += 1;
    if (this.#refused >= IN_A_ROW) return true;
    if (!isNetworkError(error)) return false;
    try {
      const { server } = this.#options;
      await (await server.send({ method: 'GET', path: 'service/rest/v1/status', tries: 1 })).body.dump();
      return false;
    } catch (cause) {
      if (isAbort(cause)) throw cause;
      return true;
    }
  }

  /** What an early end left uncompared is there all the same; from a bad bundle nothing stays, as far as it can be taken back. */
  async close(end: { readonly isBad: boolean } = { isBad: false }): Promise<void> {
    if (end.isBad) await this.#takeBack();
    for (const entry of this.#sent) {
      if (entry.state !== 'write') continue;
      entry.state = 'written';
      entry.notes.push('was sent, but not compared afterwards');
    }
  }

  async #takeBack(): Promise<void> {
    const { server, context } = this.#options;
    const left: string[] = [];
    for (const entry of this.#sent) {
      const isGone =
        entry.added?.names.length !== 0 &&
        (await server
          .send({ method: 'DELETE', path: entry.path, tries: 1 })
          .then(async ({ status, body }) => {
            await body.dump();
            return status === 200 || status === 204;
          })
          .catch(() => false));
      if (!isGone) left.push(entry.as);
    }
    if (left.length === 0) return;
    const message = `the bundle is bad, and what came from it is still there: ${left.slice(0, 5).join(', ')}${left.length > 5 ? ` and ${left.length - 5} more` : ''}`;
    const warning = fault('TARGET_FAILED', message, { hint: 'delete it there' });
    context.emit({ type: 'warning', fault: warning });
  }
}

function heldReader(bytes: Buffer): ContentReader {
  return {
    async *open(_, { offset = 0 }) {
      yield bytes.subarray(offset);
    },
  };
}
