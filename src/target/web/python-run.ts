import type { Digest } from '../../core/digest.ts';
import { SealiftError } from '../../core/errors.ts';
import { isNetworkError } from '../../io/network-errors.ts';
import { eachBounded, sleep } from '../../io/pool.ts';
import type { BlobIntake, ContentReader } from '../../oci/content.ts';
import { checkPackage } from '../../python/package-file.ts';
import {
  emptyTally,
  failEntry,
  type Item,
  type OnConflict,
  type PackageItem,
  type Tally,
  type TargetOptions,
  type TargetRun,
} from '../target.ts';
import type { ListedFile, PythonIndex } from './python-index.ts';
import { packageForm, packageMetadata } from './python-package.ts';
import {
  ASK_PARALLEL,
  byProject,
  compareWithIndex,
  conflictOf,
  digestThere,
  type PythonEntry,
  pythonEntries,
} from './python-plan.ts';
import type { WebServer } from './server.ts';

export interface PythonOptions extends TargetOptions {
  readonly server: WebServer;
  readonly index: PythonIndex;
  readonly onConflict: OnConflict;
  /** Uploads at a time. */
  readonly parallel: number;
}

/** Files that are read at a time for what they say of themselves. */
const READ_PARALLEL = 4;
/** How often a page is asked for a file that was taken; the wait between doubles. */
const LOOKS = 7;
const FIRST_WAIT_MS = 250;

/** Failures of the whole server, for which no other file need be sent. */
const WHOLE = new Set([
  'AUTH_REQUIRED',
  'AUTH_DENIED',
  'TARGET_READ_ONLY',
  'TARGET_FULL',
  'TARGET_UNREACHABLE',
]);

const REFUSED_HINT =
  'the index does not let a file be replaced (Nexus: deployment policy, devpi: volatile): remove it there, or release a new version';

function isOpen({ state }: PythonEntry): boolean {
  return state === 'write';
}

/** Asks an index what is there, and every file that is to be written what it is. Writes nothing. */
export async function planPython(items: readonly Item[], options: PythonOptions): Promise<TargetRun> {
  const { index, context, onConflict, source, isAbsent } = options;
  const { signal } = context;
  const packages = items.filter((item): item is PackageItem => item.kind === 'package');
  const entries = pythonEntries(packages, index);
  const run = new PythonRun(entries, options);
  if (entries.length === 0) return run;
  for (const entry of entries) await failed(entry, async () => checkPackage(entry.fileName, entry.item));
  for (const message of await index.check()) {
    context.emit({ type: 'note', message: `${index.name}: ${message}` });
  }
  await compareWithIndex(entries.filter(isOpen), { index, onConflict, signal });
  if (options.passing === true) return run;
  const readable = entries.filter((e) => isOpen(e) && isAbsent?.(e.item.content.digest) !== true);
  await eachBounded(readable, { limit: READ_PARALLEL, signal }, (entry) =>
    failed(entry, () => packageMetadata(entry, { source, signal })),
  );
  return run;
}

/** Records the failure of one file. @throws what is the failure of all */
async function failed(entry: PythonEntry, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof SealiftError && WHOLE.has(error.code)) throw error;
    failEntry(entry, error);
  }
}

class PythonRun implements TargetRun {
  readonly entries: readonly PythonEntry[];
  readonly tally: Tally = emptyTally();
  readonly #options: PythonOptions;
  #prepared: Promise<void> | undefined;
  #isPassing = false;

  constructor(entries: readonly PythonEntry[], options: PythonOptions) {
    this.entries = entries;
    this.#options = options;
  }

  async needs(isAbsent: (digest: Digest) => boolean): Promise<Digest[]> {
    const open = this.entries.filter(isOpen);
    return open.map(({ item }) => item.content.digest).filter(isAbsent);
  }

  /** An upload is seen at once: what can be read at any time is sent last of all, by `commit`. */
  async writeBlobs(): Promise<void> {}

  async writeManifests(): Promise<void> {}

  async intake(): Promise<BlobIntake> {
    const { index, context } = this.#options;
    this.#isPassing = true;
    if (this.entries.some(isOpen)) {
      const message = `${index.name}: a file that comes through a pipe is seen there as soon as it is whole; it is taken back if the bundle turns out to be bad`;
      context.emit({ type: 'note', message });
    }
    return {
      takersOf: (digest) =>
        this.entries
          .filter((entry) => isOpen(entry) && entry.item.content.digest === digest)
          .map((entry) => (blob) => this.#tryUpload(entry, blob)),
    };
  }

  async commit(): Promise<void> {
    const { context, parallel, source } = this.#options;
    for (const { state } of this.entries) if (state === 'present') this.tally.blobsPresent += 1;
    if (!this.#isPassing) {
      const limits = { limit: parallel, signal: context.signal };
      await eachBounded(this.entries.filter(isOpen), limits, (entry) => this.#tryUpload(entry, source));
    }
    await this.#confirm(this.entries.filter((entry) => isOpen(entry) && entry.sent !== undefined));
    for (const entry of this.entries.filter(isOpen)) {
      if (entry.sent !== undefined) entry.state = 'written';
      else failEntry(entry, new SealiftError('INTERNAL', `${entry.as}: was not sent`));
    }
  }

  async #tryUpload(entry: PythonEntry, source: ContentReader): Promise<void> {
    // Without an index there is nowhere to go for any of them.
    this.#prepared ??= this.#options.index.prepare();
    await this.#prepared;
    await failed(entry, async () => {
      try {
        await this.#upload(entry, source);
      } catch (error) {
        if (isNetworkError(error)) await this.#throwIfGone(error);
        throw tooLarge(error, entry, this.#options.index);
      }
    });
  }

  /** A server that does not answer any more fails as a whole. @throws TARGET_UNREACHABLE */
  async #throwIfGone(cause: unknown): Promise<void> {
    const { server, index } = this.#options;
    try {
      const response = await server.send({ method: 'GET', path: '', tries: 1 });
      await response.body.dump();
    } catch (error) {
      if (!isNetworkError(error)) throw error;
      const why = cause instanceof Error ? cause.message : '';
      throw new SealiftError('TARGET_UNREACHABLE', `${index.name}: does not answer any more: ${why}`, {
        hint: 'see to the server and the way there, then run the same command again: what has arrived is not sent again',
        cause,
      });
    }
  }

  async #upload(entry: PythonEntry, source: ContentReader): Promise<void> {
    const { server, index, context } = this.#options;
    const { item, fileName } = entry;
    const { size } = item.content;
    const form = await packageForm(entry, { source, isPassing: this.#isPassing, context });
    context.emit({ type: 'start', id: entry.as, label: fileName, size });
    const response = await server.send({
      method: 'POST',
      path: index.uploadPath,
      headers: { 'content-type': form.contentType },
      body: form.body,
      contentLength: form.contentLength,
    });
    if (response.status < 300) {
      await response.body.dump();
      this.tally.blobsWritten += 1;
      this.tally.bytesWritten += size;
      entry.sent = { md5: form.md5() };
    } else {
      const refusal = await server.fail(response, `upload of ${fileName}`);
      await this.#judgeRefusal(entry, refusal, { isAgain: response.tries > 1 });
      if (isOpen(entry)) entry.sent = { md5: form.md5() };
    }
    context.emit({ type: 'end', id: entry.as, outcome: entry.sent === undefined ? 'present' : 'done' });
  }

  /**
   * A try that broke may have arrived all the same, and somebody else may have been faster: then what is there decides,
   * whatever the server says (its words for that differ between versions, registry.md 2.7).
   * @param of.isAgain whether this run has sent it before
   * @throws the refusal, where the file is not there
   */
  async #judgeRefusal(
    entry: PythonEntry,
    refusal: SealiftError,
    of: { readonly isAgain: boolean },
  ): Promise<void> {
    const { index } = this.#options;
    const { item, fileName } = entry;
    const status = refusal.details?.status;
    if (status !== 400 && status !== 409) throw refusal;
    const file = (await index.files(item.project)).get(fileName);
    if (file === undefined) throw refusal;
    const found = await digestThere(file, { index, item });
    if (found === item.content.digest) {
      this.tally.blobsPresent += 1;
      if (of.isAgain) return;
      // Somebody else's: it is not this load's to take back.
      entry.state = 'present';
      entry.notes.push(`${entry.as}: somebody else has just brought it`);
      return;
    }
    entry.found = found;
    entry.state = 'failed';
    entry.fault = conflictOf(entry, found, REFUSED_HINT);
  }

  /** Asks for the pages of what was sent: what an index does not list nobody can install. */
  async #confirm(sent: readonly PythonEntry[]): Promise<void> {
    const { index, context } = this.#options;
    const { signal } = context;
    const groups = [...byProject(sent)];
    await eachBounded(groups, { limit: ASK_PARALLEL, signal }, async ([project, entries]) => {
      let open = entries;
      for (let look = 0; look < LOOKS && open.length > 0; look += 1) {
        if (look > 0) await sleep(FIRST_WAIT_MS * 2 ** (look - 1), signal);
        const files = await index.files(project);
        open = open.filter((entry) => !isConfirmed(entry, files.get(entry.fileName)));
      }
      for (const entry of open) entry.notes.push(`${entry.as}: taken, but the index does not list it yet`);
    });
  }

  async close(end?: { readonly isBad: boolean }): Promise<void> {
    const { index } = this.#options;
    if (end?.isBad !== true || !this.#isPassing) return;
    const sent = this.entries.filter((entry) => entry.sent !== undefined && entry.found === undefined);
    try {
      for (const [project, entries] of byProject(sent)) {
        const files = await index.files(project);
        await index.remove(entries.flatMap(({ fileName }) => files.get(fileName) ?? []));
      }
    } catch {
      // Each file is whole; what is told is the fault of the bundle.
    }
  }
}

/** A server that takes no more ends the connection, and its 413 does not always arrive. */
function tooLarge(error: unknown, { item }: PythonEntry, { most }: PythonIndex): unknown {
  if (most === undefined || item.content.size < most.bytes || !(error instanceof SealiftError)) return error;
  if (!isNetworkError(error) && error.details?.status !== 413) return error;
  const { code, message, details = {} } = error;
  return new SealiftError(code, message, { hint: most.hint, details, cause: error });
}

/** Whether an index lists what was sent; other bytes there are the failure of the entry. */
function isConfirmed(entry: PythonEntry, file: ListedFile | undefined): boolean {
  if (file === undefined) return false;
  const { digest } = entry.item.content;
  const { sent } = entry;
  const pairs = [
    [digest, file.sha256],
    [sent?.md5 === undefined ? undefined : `md5:${sent.md5}`, file.md5 && `md5:${file.md5}`],
  ] as const;
  for (const [wanted, found] of pairs) {
    if (wanted === undefined || found === undefined) continue;
    if (found === wanted) return true;
    // The page may still be that of what was replaced.
    if (entry.found !== undefined) return false;
    const message = `${entry.as}: other bytes arrived than were sent: expected ${wanted}, found ${found}`;
    const hint = 'look for a proxy that changes uploads, remove the file there, and load again';
    failEntry(entry, new SealiftError('TARGET_FAILED', message, { hint }));
    return true;
  }
  return true;
}
