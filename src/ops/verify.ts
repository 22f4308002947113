import { resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { sweepAhead } from '../bundle/ahead.ts';
import type { BaseBundle } from '../bundle/contents.ts';
import { placesOf } from '../bundle/volumes.ts';
import { type Fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { Counts } from '../lock/counts.ts';
import type { Trust } from '../trust/policy.ts';
import { addressIn } from './address.ts';
import type { Format } from './archive-items.ts';
import { refuseInput } from './inputs.ts';
import type { TrustOptions } from './trust.ts';

export interface VerifyOptions extends TrustOptions {
  /** A file or a folder; or a volume, the folder of the volumes, or a pattern of these; or the address of a file on a server. */
  readonly bundle: string;
  /** Others that supply what it leaves out: the base of a delta, a repair. Also volumes from other folders. */
  readonly others?: readonly string[];
  /** A versions.lock that came another way: the bundle must be exactly its content. */
  readonly lockPath?: string;
  /** SHA-256 of every blob besides BLAKE3. Always done with `lockPath`. */
  readonly deep?: boolean;
  /** Where it is written what has to be brought once more, when something is damaged. */
  readonly requestPath?: string;
  /** Where a bundle comes from in order, instead of `bundle`, which then only names it. */
  readonly input?: Readable;
}

/** What the bytes were compared with, strongest first. */
export type Chain = 'signature' | 'signed-lock' | 'lock' | 'digests' | 'b3sums';

export interface VerifyResult extends Counts {
  readonly path: string;
  readonly format: Format;
  readonly name: string;
  /** Null, as the lock, of what another tool made. */
  readonly version: string | null;
  readonly lock: string | null;
  /**
   * `signature`: a signature of a trusted key → B3SUMS → BLAKE3 of every byte. `signed-lock`: the same of a lock given from
   * outside → SHA-256 of every blob. `lock`: a lock given from outside → SHA-256 of every blob. `digests`: SHA-256 against the digests inside. `b3sums`: BLAKE3 against the list inside, which finds damage, not forgery.
   */
  readonly chain: Chain;
  /** What was judged of the bundle's own signature; its faults are among `faults`. */
  readonly signature: Pick<Trust, 'state' | 'keyId' | 'at'>;
  readonly entries: number;
  /** Bytes of content that were read and hashed. */
  readonly bytes: number;
  /** What a delta or a repair leaves out, and how much of it the others that were given have, whole; null for any other bundle. */
  readonly leftOut: {
    readonly of: readonly BaseBundle[];
    readonly blobs: number;
    readonly bytes: number;
    readonly checked: { readonly blobs: number; readonly bytes: number };
  } | null;
  /** The repair request that was written. */
  readonly request: { readonly path: string; readonly blobs: number } | null;
  readonly faults: readonly Fault[];
}

/**
 * Verifies a bundle wholly and returns every fault; what another tool made is compared with the digests inside. Threads
 * hash already while the rest of the program is loaded and the documents are read.
 * @throws BUNDLE_NOT_FOUND, BUNDLE_TOO_NEW; a bundle whose lock or sealift.json cannot be read throws with its faults
 */
export async function verify(options: VerifyOptions, context: Context): Promise<VerifyResult> {
  const { bundle, others = [], input } = options;
  if (input !== undefined) {
    const [{ pipeSource }, { verifyStream }] = await Promise.all([
      import('./stdin.ts'),
      import('./verify-stream.ts'),
    ]);
    return verifyStream(pipeSource(input, { others, context }), options, context);
  }
  const address = addressIn([bundle, ...others]);
  if (address !== undefined) {
    const { verifyRemote } = await import('./verify-stream.ts');
    return verifyRemote(address, options, context);
  }
  return verifyFiles(options, context);
}

async function verifyFiles(options: VerifyOptions, context: Context): Promise<VerifyResult> {
  const places = await placesOf([options.bundle, ...(options.others ?? [])].map((p) => resolve(p)));
  if (options.requestPath !== undefined) {
    await refuseInput({ path: resolve(options.requestPath), inputs: places, what: '--write-request' });
  }
  // Both wait for the disk now and then.
  const rest = import('./check-bundle.ts');
  const [only] = places;
  const isOne = only !== undefined && places.length === 1;
  const ahead = isOne ? await sweepAhead(only, { sha256: isDeep(options) }) : undefined;
  try {
    const { verifyOpened } = await rest;
    return await verifyOpened(places, { ...options, ahead }, context);
  } finally {
    await ahead?.medium.close();
  }
}

/** Whether every blob's SHA-256 is wanted. */
export function isDeep(options: Pick<VerifyOptions, 'deep' | 'lockPath'>): boolean {
  return options.deep === true || options.lockPath !== undefined;
}

/** Throws what `verify` found. */
export function refuseDamaged(result: VerifyResult): void {
  if (result.faults.length === 0) return;
  const first = result.faults[0];
  throw new SealiftError(
    first?.code ?? 'BUNDLE_CHECKSUM_MISMATCH',
    `${result.path}: ${result.faults.length} faults`,
    {
      faults: result.faults,
    },
  );
}
