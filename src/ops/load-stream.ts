import type { Readable } from 'node:stream';
import type { BundleInfo } from '../bundle/documents.ts';
import { DOCUMENTS } from '../bundle/names.ts';
import { heldBlob, PassingBlob } from '../bundle/passing-blob.ts';
import type { PlannedEntry } from '../bundle/plan.ts';
import type { StreamEnd } from '../bundle/stream-end.ts';
import { type EntryBody, openStream, type StreamedBundle } from '../bundle/stream-reader.ts';
import type { Descriptor } from '../core/descriptor.ts';
import { errorOf, type Fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { MIB } from '../core/limits.ts';
import type { BlobIntake, BlobTaker, PassingContent } from '../oci/content.ts';
import { isSourceFault, type Target, type TargetRun } from '../target/target.ts';
import { graphKeeper, type LoadedSource, type Source } from './load-source.ts';
import { pipeSource, STDIN } from './stdin.ts';
import { judgeEnd } from './stream-trust.ts';
import { policyOf, refuseUntrusted, type TrustOptions } from './trust.ts';

const AGAIN = 'send the bundle once more: what is on the targets already is not sent there again';

/** Blobs up to this are taken whole into memory; so many bytes and blobs of them may be on their way to the targets at once. */
const SMALL = 4 * MIB;
const AHEAD_BYTES = 16 * MIB;
const AHEAD_BLOBS = 8;

/** A load's target with its run; `fault` once it is out of the race. */
interface Racer {
  readonly target: Target;
  readonly run?: TargetRun;
  fault?: Fault;
}

/** A bundle that comes in order: what is loaded, and how its blobs are brought to the targets. */
export interface PassingSource extends Source {
  /**
   * Reads the rest of the stream: each blob goes to all targets that want it, at the same time. Settles when everything
   * has come, was compared with B3SUMS, and is trusted; nothing that anybody sees is written before. Where every target
   * has failed nobody needs the rest.
   * @returns whether all was read
   * @throws faults of the bundle and of its signature; the targets' own are theirs
   */
  pass(racers: readonly Racer[], stop: AbortController): Promise<boolean>;
}

/** Of a load whose bundle comes in order. */
interface StreamOptions extends TrustOptions {
  readonly input: Readable;
  readonly verify?: boolean | undefined;
  readonly name?: string | undefined;
  readonly others?: readonly string[] | undefined;
  readonly dryRun?: boolean | undefined;
}

/** A delta or a repair is judged by what is beside it, and that by a target that is asked for each blob before. */
function notWhole({ name, version }: BundleInfo): SealiftError {
  const message = `${STDIN}: ${name} ${version} is a delta or a repair, which cannot come through a pipe`;
  return new SealiftError('USAGE', message, {
    hint: 'copy it to a file and load that, with its base beside it where the target lacks something',
  });
}

/** What means nothing for a stream. */
function refuseIdle({ verify, name }: StreamOptions): void {
  if (verify !== true && name === undefined) return;
  const [flag, why] =
    verify === true
      ? ['--verify', 'is checked while it passes']
      : ['--name', 'is a bundle, whose names are those of its lock'];
  throw new SealiftError('USAGE', `${flag}: what comes through a pipe ${why}`, {
    hint: 'leave it out: nothing becomes visible before every byte has come and is right',
  });
}

/**
 * Opens a bundle that comes in order: its documents and manifests are read, nothing behind them.
 * @throws USAGE, and what `openStream` throws
 */
export async function streamSource(options: StreamOptions, context: Context): Promise<PassingSource> {
  refuseIdle(options);
  const policy = await policyOf(options, context);
  const source = pipeSource(options.input, { others: options.others, again: AGAIN, context });
  try {
    const graphs = graphKeeper();
    const bundle = await openStream(source, { tell: graphs.tell });
    const { info, lock, lockDigest } = bundle;
    if (info.base !== null) throw notWhole(info);
    const { name, version } = lock;
    const facts = { name, version, lock: lockDigest };
    // An old one need not come as a whole to be refused. Who signed it stands at its end.
    refuseUntrusted(await judgeEnd(undefined, { what: STDIN, facts, policy }), STDIN);
    if (policy?.isRequired === true && options.dryRun === true) {
      const message = `${STDIN}: who signed it stands at its end, which --dry-run does not read: nothing is known of that`;
      context.emit({ type: 'note', message });
    }
    let signedBy: string | null = null;
    let isChecked = false;
    const about: LoadedSource = {
      format: 'bundle',
      ...facts,
      get signedBy() {
        return signedBy;
      },
    };
    return {
      path: STDIN,
      about,
      leftOut: undefined,
      items: graphs.items(lock),
      lock: { bundle: lock.name, read: async () => bundle.lockBytes() },
      open: (descriptor) => manifest(bundle, descriptor),
      check: async () => {
        throw new SealiftError('INTERNAL', 'a stream cannot be read twice');
      },
      pass: async (racers, stop) => {
        const end = await new Passage(bundle, { racers, stop, context }).run();
        if (end === undefined) return false;
        const trust = await judgeEnd(end, { what: STDIN, facts, policy });
        refuseUntrusted(trust, STDIN);
        signedBy = trust.state === 'trusted' ? trust.keyId : null;
        isChecked = true;
        return true;
      },
      get isChecked() {
        return isChecked;
      },
      close: async () => source.close(),
    };
  } catch (error) {
    source.close();
    throw error;
  }
}

/** Manifests are kept; everything else has passed, or is still to come. */
async function* manifest({ manifests }: StreamedBundle, { digest }: Descriptor): AsyncGenerator<Buffer> {
  const bytes = manifests.read(digest);
  if (bytes === undefined) {
    throw new SealiftError('TARGET_FAILED', `${digest}: is needed again, but the stream has passed it`, {
      hint: AGAIN,
      side: 'destination',
    });
  }
  yield bytes;
}

/** Whether nothing more can be written there, because of what failed. */
function isOut({ run, fault }: Racer): boolean {
  const entries = run?.entries ?? [];
  return fault !== undefined || (entries.length > 0 && entries.every(({ state }) => state === 'failed'));
}

/** Those who take a blob one after the other, because what the first brings is there for the next. */
type Lane = (blob: PassingContent) => Promise<void>;

/**
 * One reading of the blobs of a stream. The order of waiting has no cycle: the reader waits for takers of the blob that
 * passes (or for room, which ends with takers of blobs that are wholly in memory); a taker waits for its target and for
 * bytes of this one blob; and who is ahead with a blob waits for those behind (`PassingBlob`). No taker waits for another
 * blob, nor for another taker: those that would are one lane.
 */
class Passage {
  readonly #bundle: StreamedBundle;
  readonly #racers: readonly Racer[];
  readonly #stop: AbortController;
  readonly #context: Context;
  /** Of each store, or each target that has none of its own. */
  readonly #lanes: { readonly racer: Racer; readonly intake: BlobIntake }[][] = [];
  readonly #running = new Set<Promise<void>>();
  #held = 0;
  /** Wakes the reader where it waits for room. */
  #wake: () => void = () => {};
  #fatal: { readonly error: unknown } | undefined;

  constructor(
    bundle: StreamedBundle,
    of: { readonly racers: readonly Racer[]; readonly stop: AbortController; readonly context: Context },
  ) {
    this.#bundle = bundle;
    this.#racers = of.racers;
    this.#stop = of.stop;
    this.#context = of.context;
  }

  /** @returns undefined where every target has failed before all was read */
  async run(): Promise<StreamEnd | undefined> {
    try {
      await this.#openLanes();
      await this.#passManifests();
      const isWhole = await this.#bundle.passBlobs((body) => this.#pass(body), {
        sha256: (entry) => this.#lanesFor(entry).length > 0,
        isWanted: () => !this.#racers.every(isOut),
      });
      while (this.#running.size > 0) await Promise.all(this.#running);
      this.#throwFatal();
      if (!isWhole) return undefined;
      this.#context.emit({ type: 'phase', name: 'check' });
      const end = await this.#bundle.end();
      if (end.faults.length === 0) return end;
      throw errorOf(end.faults, `${STDIN}: the bundle is damaged; nothing that was sent is visible`);
    } catch (error) {
      // What ended the others says more than that they ended.
      if (this.#fatal === undefined || (isAbort(this.#fatal.error) && !isAbort(error))) {
        this.#fatal = { error };
      }
      this.#stop.abort();
      await Promise.allSettled(this.#running);
      throw this.#fatal.error;
    }
  }

  #throwFatal(): void {
    if (this.#fatal !== undefined) throw this.#fatal.error;
  }

  /** A file may have the very bytes of a manifest, which have come already. */
  async #passManifests(): Promise<void> {
    const { manifests, plan } = this.#bundle;
    for (let index = DOCUMENTS.length; index < plan.manifestsEnd; index += 1) {
      const entry = plan.entries.at(index);
      const lanes = this.#lanesFor(entry);
      const bytes =
        lanes.length === 0 || entry.digest === undefined ? undefined : manifests.read(entry.digest);
      if (bytes !== undefined) await Promise.all(lanes.map((lane) => lane(heldBlob(bytes))));
      this.#throwFatal();
    }
  }

  async #openLanes(): Promise<void> {
    const byStore = new Map<string, { readonly racer: Racer; readonly intake: BlobIntake }[]>();
    for (const racer of this.#racers) {
      const { run, target } = racer;
      if (run === undefined || racer.fault !== undefined) continue;
      try {
        const lane = { racer, intake: await run.intake() };
        const known = target.store === undefined ? undefined : byStore.get(target.store);
        if (known === undefined) this.#lanes.push([lane]);
        else known.push(lane);
        if (target.store !== undefined && known === undefined) {
          byStore.set(target.store, this.#lanes.at(-1) ?? []);
        }
      } catch (error) {
        this.#judge(racer, error);
      }
    }
    this.#throwFatal();
  }

  /** A failure is the target's own, or it ends everything. */
  #judge(racer: Racer, error: unknown): void {
    if (!isSourceFault(error) && !isAbort(error) && error instanceof SealiftError) {
      racer.fault ??= faultOf(error);
      return;
    }
    if (this.#fatal === undefined || (isAbort(this.#fatal.error) && !isAbort(error))) this.#fatal = { error };
    this.#stop.abort();
  }

  #lanesFor({ digest }: PlannedEntry): Lane[] {
    if (digest === undefined) return [];
    return this.#lanes.flatMap((lane) => {
      const takers = lane.flatMap(({ racer, intake }) =>
        racer.fault === undefined ? intake.takersOf(digest).map((take) => ({ racer, take })) : [],
      );
      if (lane.length === 1) return takers.map((one) => this.#laneOf([one]));
      return takers.length === 0 ? [] : [this.#laneOf(takers)];
    });
  }

  #laneOf(takers: readonly { readonly racer: Racer; readonly take: BlobTaker }[]): Lane {
    return async (blob) => {
      for (const { racer, take } of takers) {
        if (racer.fault !== undefined || this.#fatal !== undefined) continue;
        try {
          await take(blob);
        } catch (error) {
          this.#judge(racer, error);
        }
      }
    };
  }

  async #pass(body: EntryBody): Promise<void> {
    this.#throwFatal();
    const { entry } = body;
    const lanes = this.#lanesFor(entry);
    if (lanes.length === 0) return;
    if (entry.size <= SMALL) return this.#takeWhole(body, lanes);
    if (entry.digest === undefined) return;
    const blob = new PassingBlob({ mediaType: '', digest: entry.digest, size: entry.size }, body);
    // All are there before the first one reads.
    const views = lanes.map((lane) => ({ lane, view: blob.view() }));
    await Promise.all(views.map(({ lane, view }) => lane(view).finally(() => view.close())));
    await blob.end();
    this.#throwFatal();
  }

  /** A small blob leaves for its targets while the stream goes on. */
  async #takeWhole(body: EntryBody, lanes: readonly Lane[]): Promise<void> {
    const { size } = body.entry;
    while (this.#running.size >= AHEAD_BLOBS || this.#held + size > AHEAD_BYTES) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#throwFatal();
    }
    const bytes = Buffer.allocUnsafeSlow(size);
    let at = 0;
    for (let piece = await body.next(); piece !== undefined; piece = await body.next()) {
      at += piece.copy(bytes, at);
    }
    const blob = heldBlob(bytes);
    this.#held += size;
    const taken: Promise<void> = Promise.all(lanes.map((lane) => lane(blob))).then(() => {
      this.#running.delete(taken);
      this.#held -= size;
      this.#wake();
    });
    this.#running.add(taken);
  }
}
