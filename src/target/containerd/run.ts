import type { Digest } from '../../core/digest.ts';
import { fault, faultOf, isAbort, SealiftError } from '../../core/errors.ts';
import type { Context } from '../../core/events.ts';
import { mapBounded, type Turns, throwIfAborted } from '../../io/pool.ts';
import type { ContainerdClient } from '../../oci/containerd/client.ts';
import { callError } from '../../oci/containerd/failure.ts';
import type { BlobIntake, ContentReader } from '../../oci/content.ts';
import { type Entry, emptyTally, type Tally, type TargetRun } from '../target.ts';
import { LEASE_OF_LOAD } from './labels.ts';
import { missingLabels, type Piece, type Plan, type Work } from './plan.ts';
import { isTargetError, writeContent } from './write.ts';

/** Pieces at the same time, of which some wait: for their children, or for containerd's disk. */
const WRITERS = 8;
/** How long an unfinished load keeps what it has sent: the next one goes on from there. */
const LEASE_MS = 24 * 60 * 60 * 1000;

const REF_PREFIX = { index: 'index', manifest: 'manifest', config: 'config', blob: 'layer' } as const;

export interface RunParts {
  readonly client: ContainerdClient;
  readonly plan: Plan;
  /** For people: the target's name. */
  readonly name: string;
  /** Stands in the ids of events. */
  readonly namespace: string;
  readonly turns: Turns;
  readonly context: Context;
  readonly source: ContentReader;
}

/**
 * A load into one namespace. It holds the connection and, from the first thing that is written, a lease; when the plan
 * found nothing to do nothing at all is written, not even a lease.
 */
export class ContainerdRun implements TargetRun {
  readonly entries: readonly Entry[];
  readonly tally: Tally = emptyTally();
  readonly #parts: RunParts;
  readonly #works: readonly Work[];
  readonly #pieces: readonly Piece[];
  /** Manifests that wait until all blobs have passed. */
  #later: readonly Piece[] = [];
  #lease: string | undefined;
  /** The bundle's own bytes were bad: nothing that was sent is worth keeping. */
  #sourceFailed = false;

  constructor(parts: RunParts) {
    this.#parts = parts;
    this.entries = parts.plan.works.map((work) => work.entry);
    this.#works = parts.plan.works.filter((work) => work.entry.state === 'write');
    this.#pieces = parts.plan.pieces.filter((p) => p.wantedBy.some((work) => work.entry.state === 'write'));
    for (const piece of parts.plan.pieces) if (piece.found !== undefined) this.#count(piece, 'present', 1);
  }

  /**
   * Everything that has a digest: nobody sees a manifest before an image record leads to it, and the lease keeps what
   * is there. So manifests follow the blobs of their own image while those of others are still on their way.
   */
  async writeBlobs(): Promise<void> {
    if (this.#works.length === 0) return;
    await this.#guard(this.#works, () => this.#begin());
    await this.#settleAll(this.#pieces);
  }

  /** The same for blobs that pass. Manifests are written when all have passed. */
  async intake(): Promise<BlobIntake> {
    const blobs = new Map(this.#pieces.filter((p) => !isNamer(p)).map((p) => [p.descriptor.digest, p]));
    this.#later = this.#pieces.filter(isNamer);
    if (this.#works.length > 0) await this.#guard(this.#works, () => this.#begin());
    const { context, turns } = this.#parts;
    return {
      takersOf: (digest) => {
        const piece = blobs.get(digest);
        if (piece === undefined) return [];
        const { signal } = context;
        return [(source) => turns(digest, () => this.#settleWanted(piece, { signal, source }))];
      },
    };
  }

  async #settleAll(pieces: readonly Piece[]): Promise<void> {
    const { context, turns, source } = this.#parts;
    const settled = new Map<Digest, Promise<unknown>>();
    // Whoever waits for a child waits for somebody who has begun: it comes before its parent, or (where a second image wants
    // more of an index) is not waited for.
    await mapBounded(pieces, { limit: WRITERS, signal: context.signal }, async (piece, signal) => {
      const { digest } = piece.descriptor;
      const before = Promise.allSettled(piece.children.map((child) => settled.get(child.digest)));
      // Two namespaces share one store: the second waits for the first's bytes instead of sending them again.
      const done = before.then(() => turns(digest, () => this.#settleWanted(piece, { signal, source })));
      settled.set(digest, done);
      await done;
    });
  }

  async needs(isAbsent: (digest: Digest) => boolean): Promise<Digest[]> {
    const lacking = this.#pieces.filter(({ found }) => found === undefined);
    return lacking.map(({ descriptor }) => descriptor.digest).filter(isAbsent);
  }

  /** What waited until all blobs had passed; otherwise nothing is left for it. */
  async writeManifests(): Promise<void> {
    await this.#settleAll(this.#later);
  }

  async commit(): Promise<void> {
    const { client, context } = this.#parts;
    await mapBounded(this.#works, { limit: WRITERS, signal: context.signal }, async (work, signal) => {
      // A connection that broke in the meantime has failed all that were not done.
      if (work.entry.state !== 'write') return;
      await this.#guard([work], async () => {
        for (const { record, needed, isThere } of work.records) {
          if (needed) await client.putImage(record, { isThere, signal });
        }
        if (work.entry.state === 'write') work.entry.state = 'written';
      });
    });
  }

  /**
   * Deletes the lease, which collects what no image holds. After being stopped, and when an image is not written, the
   * lease is left to expire, so that the next run finds what was sent.
   */
  async close(end?: { readonly isBad: boolean }): Promise<void> {
    const { client, context, name } = this.#parts;
    this.#sourceFailed ||= end?.isBad === true;
    try {
      const unfinished = context.signal.aborted || this.#works.some(({ entry }) => entry.state !== 'written');
      if (this.#lease !== undefined && (this.#sourceFailed || !unfinished)) {
        await client.deleteLease(this.#lease, new AbortController().signal);
      }
    } catch (error) {
      const { message } = callError(error, name);
      context.emit({
        type: 'warning',
        fault: fault('TARGET_FAILED', `the lease ${this.#lease} was not released: ${message}`, {
          hint: 'nothing is lost: it expires by itself within 24 hours',
        }),
      });
    } finally {
      client.close();
    }
  }

  async #begin(): Promise<void> {
    const { client, context } = this.#parts;
    const expire = new Date(context.now() + LEASE_MS).toISOString();
    const labels = new Map([['containerd.io/gc.expire', expire], LEASE_OF_LOAD]);
    this.#lease = await client.createLease(labels, context.signal);
    client.useLease(this.#lease);
  }

  /** Runs a step for some images; the target's failure fails them, everything else ends the run. */
  async #guard(works: readonly Work[], step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      if (!isTargetError(error)) {
        this.#sourceFailed ||= isWrong(error) && !this.#parts.context.signal.aborted;
        throw error;
      }
      // Without a connection every other image would only wait and fail in the same way.
      const hit = error.code === 'TARGET_UNREACHABLE' || error.code === 'AUTH_DENIED' ? this.#works : works;
      for (const work of hit) this.#fail(work, error);
    }
  }

  #fail(work: Work, error: SealiftError): void {
    if (work.entry.state !== 'write') return;
    work.entry.state = 'failed';
    work.entry.fault = faultOf(error);
  }

  /** One piece, unless all images that want it have failed. */
  async #settleWanted(piece: Piece, reading: Reading): Promise<void> {
    if (piece.wantedBy.every((work) => work.entry.state !== 'write')) return;
    throwIfAborted(reading.signal);
    await this.#guard(piece.wantedBy, () => this.#settle(piece, reading));
  }

  /** Brings one piece to where it must be: there, under the lease, with its labels. */
  async #settle(piece: Piece, { signal, source }: Reading): Promise<void> {
    const wasFound = piece.found !== undefined;
    if (wasFound && (await this.#keep(piece, signal))) return;
    if (wasFound) this.#count(piece, 'present', -1);
    const { client, context, namespace } = this.#parts;
    const { descriptor, kind } = piece;
    const id = `containerd:${namespace}:${descriptor.digest}`;
    const label = `${piece.wantedBy[0]?.item.name ?? ''} ${kind} ${descriptor.digest.slice(7, 19)}`.trim();
    context.emit({ type: 'start', id, label, size: descriptor.size });
    try {
      const outcome = await writeContent(
        client,
        {
          descriptor,
          ref: `${REF_PREFIX[kind]}-${descriptor.digest}`,
          labels: missingLabels(piece, new Map()),
          onProgress: (bytes) => context.emit({ type: 'progress', id, bytes }),
          onSent: (bytes) => {
            this.tally.bytesWritten += bytes;
          },
        },
        { context, source, signal },
      );
      // Somebody else committed it, with labels of his own.
      if (outcome === 'exists' && !(await this.#keep(piece, signal))) throw vanished(descriptor.digest);
      this.#count(piece, outcome === 'exists' ? 'present' : outcome, 1);
      context.emit({ type: 'end', id, outcome: outcome === 'sent' ? 'done' : 'present' });
    } catch (error) {
      context.emit({ type: 'end', id, outcome: 'failed' });
      throw error;
    }
  }

  /**
   * Puts content that is there under the lease and adds the labels that it lacks. First the lease, then the question:
   * between the plan and now it may have been collected.
   * @returns false when it is not there any more
   */
  async #keep(piece: Piece, signal: AbortSignal): Promise<boolean> {
    const { client } = this.#parts;
    const { digest } = piece.descriptor;
    if (this.#lease !== undefined) await client.addToLease(this.#lease, digest, signal);
    const info = await client.info(digest, signal);
    if (info === undefined) return false;
    const missing = missingLabels(piece, info.labels);
    if (missing.size > 0) await client.updateLabels(digest, missing, signal);
    return true;
  }

  #count(piece: Piece, what: 'present' | 'sent' | 'shared', by: number): void {
    const isManifest = isNamer(piece);
    if (what === 'sent') this.tally[isManifest ? 'manifestsWritten' : 'blobsWritten'] += by;
    else if (isManifest) this.tally.manifestsPresent += by;
    else this.tally[what === 'present' ? 'blobsPresent' : 'blobsMounted'] += by;
  }
}

/** How content is read, and until when. */
interface Reading {
  readonly signal: AbortSignal;
  readonly source: ContentReader;
}

/** Wrong content. Of a stream that ends early, or a disk or server that gives no more, what came before is worth keeping. */
function isWrong(error: unknown): boolean {
  if (isAbort(error) || !(error instanceof SealiftError)) return !isAbort(error);
  const isBreak = error.code === 'BUNDLE_TRUNCATED' || error.code === 'BUNDLE_UNREACHABLE';
  return /^(BUNDLE|CONTENT)_/.test(error.code) && !isBreak;
}

function isNamer({ kind }: Piece): boolean {
  return kind === 'manifest' || kind === 'index';
}

function vanished(digest: Digest): SealiftError {
  return new SealiftError('TARGET_FAILED', `${digest}: another client wrote it and removed it again`, {
    hint: 'run the same command again',
    side: 'destination',
  });
}
