import { createHash } from 'node:crypto';
import { SealiftError } from '../../core/errors.ts';
import { KIB, LIMITS } from '../../core/limits.ts';
import type { HttpResponse } from '../../io/http.ts';
import { collect } from '../../io/verify.ts';
import type { ContentReader } from '../../oci/content.ts';
import type { Tally, TargetOptions } from '../target.ts';
import { type AssetEntry, type AssetPlace, conflictFault } from './asset.ts';
import type { Seen } from './asset-look.ts';

/** The end of a body that is held back until all of it has proved right: so wrong bytes never make a whole file. */
const HELD = 64 * KIB;

const REDEPLOY_HINT =
  'the write policy of the repository forbids to replace: set it to "Allow redeploy" for this load, or delete the file there';
const CONTENT_TYPE_HINT =
  'the repository compares names with content and takes no file whose type it cannot tell: switch off "Strict Content Type Validation" in its settings';
const READ_ONLY_HINT = 'its write policy is "Read-only": choose "Allow redeploy" or "Disable redeploy"';

/** Passes chunks of a body of known size on; its last bytes only after `source` has ended well. */
async function* provenBytes(source: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array> {
  const held: Buffer[] = [];
  let left = size - HELD;
  for await (const chunk of source) {
    const ahead = Math.max(0, Math.min(chunk.length, left));
    left -= ahead;
    if (ahead > 0) yield chunk.subarray(0, ahead);
    if (ahead < chunk.length) held.push(Buffer.from(chunk.subarray(ahead)));
  }
  yield* held;
}

/** Sends files to a repository. */
export class AssetUpload {
  readonly #place: AssetPlace;
  readonly #options: TargetOptions;
  readonly #tally: Tally;
  /** What is there now, asked after a refusal. */
  readonly #look: (entry: AssetEntry) => Promise<Seen>;

  constructor(
    place: AssetPlace,
    options: TargetOptions & {
      readonly tally: Tally;
      readonly look: (entry: AssetEntry) => Promise<Seen>;
    },
  ) {
    this.#place = place;
    this.#options = options;
    this.#tally = options.tally;
    this.#look = options.look;
  }

  /**
   * Sends one file. What is there in the meantime is judged as the plan would have.
   * @returns whether it was sent; else the entry says what is there instead
   * @throws what reading it throws; as `WebServer.fail`; NETWORK_FAILED …
   */
  async send(entry: AssetEntry, source: ContentReader): Promise<boolean> {
    const { context } = this.#options;
    const { as: id, name: label, blob } = entry;
    context.emit({ type: 'start', id, label, size: blob.size });
    let outcome: 'done' | 'present' | 'failed' = 'failed';
    try {
      const isSent = await this.#put(entry, source);
      outcome = isSent ? 'done' : 'present';
      return isSent;
    } finally {
      context.emit({ type: 'end', id, outcome });
    }
  }

  async #put(entry: AssetEntry, source: ContentReader): Promise<boolean> {
    const { server, onConflict } = this.#place;
    const body = await this.#bodyOf(entry, source);
    // Since 3.60 or so nobody's file is written over unseen; older servers do not look at it.
    const isNew = entry.added?.names.length !== 0;
    const guard = isNew ? { 'if-none-match': '*' } : {};
    // From here on it may be there, whatever becomes of the answer.
    if (isNew) entry.added = { names: [entry.as], manifests: [] };
    const request = { method: 'PUT', path: entry.path, contentLength: entry.blob.size, body } as const;
    const response = await server.send({ ...request, headers: guard });
    if (await this.#isTaken(entry, response)) return true;
    if (response.status !== 400 && response.status !== 412 && response.status !== 409) {
      throw await server.fail(response, `PUT ${entry.as}`);
    }
    const refusal = await server.fail(response, `PUT ${entry.as}`);
    const seen = await this.#look(entry);
    if (seen.state === 'absent') throw refusalOf(response, refusal);
    if (seen.state !== 'other') {
      // An earlier try of this run arrived, and its answer was lost; or somebody else brought the same.
      if (response.tries > 1) return this.#count(entry);
      entry.state = 'present';
      return false;
    }
    const wasKnown = !isNew;
    entry.added = { names: [], manifests: [] };
    if (seen.found !== undefined) entry.found = seen.found;
    if (onConflict === 'keep') {
      entry.state = 'kept';
      return false;
    }
    if (onConflict === 'replace' && response.status === 412 && !wasKnown) {
      const again = await server.send(request);
      if (await this.#isTaken(entry, again)) return true;
      throw refusalOf(again, await server.fail(again, `PUT ${entry.as}`));
    }
    entry.state = 'failed';
    entry.fault = conflictFault(entry, onConflict === 'replace' ? REDEPLOY_HINT : undefined);
    return false;
  }

  async #isTaken(entry: AssetEntry, response: HttpResponse): Promise<boolean> {
    if (![200, 201, 204].includes(response.status)) return false;
    await response.body.dump();
    return this.#count(entry);
  }

  #count({ blob }: AssetEntry): true {
    this.#tally.blobsWritten += 1;
    this.#tally.bytesWritten += blob.size;
    return true;
  }

  /** A small file is read whole, so that a refusal need not read it again; a large one streams. */
  async #bodyOf(
    entry: AssetEntry,
    source: ContentReader,
  ): Promise<Uint8Array | (() => AsyncIterable<Uint8Array>)> {
    const { context } = this.#options;
    const { blob, as: id } = entry;
    const open = (): AsyncIterable<Uint8Array> => source.open(blob, { signal: context.signal });
    if (blob.size <= LIMITS.assetInMemory) {
      const bytes = await collect(open(), { limit: blob.size, what: entry.name });
      entry.sha1 = createHash('sha1').update(bytes).digest('hex');
      context.emit({ type: 'progress', id, bytes: bytes.length });
      return bytes;
    }
    let shown = 0;
    return async function* () {
      context.emit({ type: 'progress', id, bytes: -shown });
      shown = 0;
      const sha1 = createHash('sha1');
      for await (const chunk of provenBytes(open(), blob.size)) {
        sha1.update(chunk);
        shown += chunk.length;
        context.emit({ type: 'progress', id, bytes: chunk.length });
        yield chunk;
      }
      entry.sha1 = sha1.digest('hex');
    };
  }
}

/** A refusal of a file that is not there, with what helps where the server says which of its settings it is. */
function refusalOf(response: HttpResponse, refusal: SealiftError): SealiftError {
  if (response.status !== 400) return refusal;
  // Only the hint hangs on these words.
  const said = response.reason ?? '';
  const hint = /content type/i.test(said)
    ? CONTENT_TYPE_HINT
    : /read.?only/i.test(said)
      ? READ_ONLY_HINT
      : refusal.hint;
  const { code, message, details = {} } = refusal;
  return new SealiftError(code, message, {
    ...(hint === undefined ? {} : { hint }),
    details,
    side: 'destination',
  });
}
