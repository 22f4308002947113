import { setMaxListeners } from 'node:events';
import { resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { isAddress } from '../bundle/names.ts';
import { countOf } from '../core/count.ts';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { Release } from '../io/hold.ts';
import type { HttpClient } from '../io/http.ts';
import type { AskLogin } from '../site/credentials.ts';
import {
  type Addition,
  additionOf,
  type Entry,
  emptyTally,
  type Item,
  isSourceFault,
  type Tally,
  type Target,
  type TargetOptions,
  type TargetRun,
} from '../target/target.ts';
import { refuseDowngrade } from './downgrade.ts';
import { type ForNone, forNone } from './for-none.ts';
import { holdTargets } from './holds.ts';
import { refuseLeftOut } from './left-out.ts';
import { type LoadedSource, openSource, type Source } from './load-source.ts';
import type { PassingSource } from './load-stream.ts';
import { namesTargets, type TargetChoice, targetsOf } from './load-targets.ts';
import { matchNames } from './names.ts';
import { type PlannedTarget, runOfMissing } from './planned-target.ts';
import { blobsThere, ReceiptFile, refuseUnwritable } from './receipt.ts';
import { withHttp } from './session.ts';
import { chosenSite, type SiteChoice, siteTrees } from './site.ts';
import { tooLittleSpace } from './space.ts';
import type { TrustOptions } from './trust.ts';

export interface LoadOptions extends TrustOptions, TargetChoice, SiteChoice {
  /** A file or a folder; or a volume, the folder of the volumes, or a pattern of these. */
  readonly bundle: string;
  /** Where a bundle comes from in order, instead of `bundle`, which then only names it. */
  readonly input?: Readable;
  /** Others that supply what it leaves out: the base of a delta, a repair. Also volumes from other folders. */
  readonly others?: readonly string[];
  /** The name of the only image of an archive that another tool made. */
  readonly name?: string;
  /** Read and check every byte before anything is written. */
  readonly verify?: boolean;
  /** Names of images, charts and files; default everything. */
  readonly only?: readonly string[];
  /** Plan only. */
  readonly dryRun?: boolean;
  /** Load an older bundle than what the receipt and the chart trees say is there. */
  readonly allowDowngrade?: boolean;
  /** Where the receipt is written; a dry run writes none. */
  readonly receiptPath?: string;
  /** Asks a person for the login of a target of the site; absent where nobody can be asked. */
  readonly askLogin?: AskLogin;
}

/** One item on one target, as the receipt tells it. Bytes. */
export interface LoadedEntry {
  readonly kind: Item['kind'];
  readonly name: string;
  /** Its name on the target. */
  readonly as: string;
  /** Of the bundle's manifest or index. */
  readonly digest: Digest;
  /** The image whose bytes it carries under its own name, and why they are not what a registry had. */
  readonly replacedBy: string | null;
  readonly recompressed: string | null;
  /** What it is there when the target could not take the original. */
  readonly pushedDigest: Digest | null;
  /** What stands there: in a registry a manifest or index, elsewhere a chart's archive or tree, a file's bytes. */
  readonly content: Digest;
  readonly state: Entry['state'];
  /** The digest of what was under its name before: of something else, or of the same where parts of it lacked. */
  readonly found: string | null;
  /** What this load put there, or an earlier one of this bundle with the same receipt; null for nothing. */
  readonly added: Addition | null;
  readonly presentBytes: number;
  readonly writeBytes: number;
  readonly notes: readonly string[];
  readonly fault: Fault | null;
}

export interface LoadedTarget {
  readonly kind: Target['kind'];
  readonly name: string;
  /** What a flag of `load` would say; null where the name says it. */
  readonly address: string | null;
  /** Its name in the site's file; null where a flag named it. */
  readonly site: string | null;
  /** How clients are told to use it: lines for people. */
  readonly use: readonly string[];
  /** The repository that the load made for it, or would make, with its settings. */
  readonly made: MadeRepository | null;
  /** Why nothing at all could be done there. */
  readonly fault: Fault | null;
  readonly tally: Tally;
  readonly entries: readonly LoadedEntry[];
}

export interface MadeRepository {
  readonly repository: string;
  readonly format: string;
  readonly settings: Readonly<Record<string, unknown>>;
}

/** The receipt: what is now on the targets and how it came there. */
export interface LoadResult {
  readonly bundle: LoadedSource;
  /** ISO 8601, UTC. */
  readonly start: string;
  readonly end: string;
  readonly dryRun: boolean;
  /** Whether every byte was checked before. */
  readonly verified: boolean;
  readonly targets: readonly LoadedTarget[];
  /** What no target takes. */
  readonly forNone: readonly ForNone[];
  /** Entries and targets that failed. */
  readonly failed: number;
}

/** A target with its run; `fault` once it is out of the race. */
interface Racer extends PlannedTarget {
  run?: TargetRun;
  fault?: Fault;
  /** Whether `missing` was made, or in a dry run would be. */
  isMade?: boolean;
}

/** Plans every target. Name collisions stop everything; any other failure is the target's own. */
async function planAll(
  racers: readonly Racer[],
  items: readonly Item[],
  plan: TargetOptions & { readonly dryRun: boolean },
): Promise<void> {
  const done = await Promise.allSettled(racers.map((racer) => planOne(racer, items, plan)));
  for (const [i, outcome] of done.entries()) {
    if (outcome.status === 'fulfilled') continue;
    const error: unknown = outcome.reason;
    const fatal =
      isAbort(error) ||
      isSourceFault(error) ||
      (error instanceof SealiftError && error.code === 'TARGET_NAME_COLLISION');
    if (fatal || !(error instanceof SealiftError)) throw error;
    const racer = racers[i];
    if (racer !== undefined) racer.fault = faultOf(error);
  }
}

async function planOne(
  racer: Racer,
  items: readonly Item[],
  plan: TargetOptions & { readonly dryRun: boolean },
): Promise<void> {
  if (racer.fault !== undefined) return;
  const { target, missing } = racer;
  const own = items.filter((item) => target.accepts(item));
  if (own.length === 0) {
    const message = `nothing that is loaded is for ${target.name}`;
    plan.context.emit({ type: 'warning', fault: fault('USAGE', message) });
  }
  if (missing !== undefined) {
    racer.isMade = plan.dryRun;
    if (plan.dryRun) {
      racer.run = runOfMissing(own, missing);
      return;
    }
    await missing.make();
    racer.isMade = true;
  }
  racer.run = await target.plan(own, plan);
}

type Stage = 'writeBlobs' | 'writeManifests' | 'commit';

/** One stage on all targets. A fault of the bundle stops all of them before the next stage. */
async function runStage(racers: readonly Racer[], stage: Stage, stop: AbortController): Promise<void> {
  let fatal: unknown;
  await Promise.all(
    racers.map(async (racer) => {
      if (racer.run === undefined || racer.fault !== undefined) return;
      try {
        await racer.run[stage]();
      } catch (error) {
        if (isSourceFault(error) || isAbort(error) || !(error instanceof SealiftError)) {
          if (fatal === undefined || (isAbort(fatal) && !isAbort(error))) fatal = error;
          stop.abort();
        } else racer.fault = faultOf(error);
      }
    }),
  );
  if (fatal !== undefined) throw fatal;
}

function loadedEntry(
  entry: Entry,
  about: { readonly kind: Target['kind']; readonly outOfRace: boolean },
): LoadedEntry {
  const { item } = entry;
  const added = additionOf(entry);
  const isEmpty = added === undefined || added.names.length + added.manifests.length === 0;
  return {
    kind: item.kind,
    name: item.name,
    as: entry.as,
    digest: item.root.digest,
    replacedBy: (item.kind === 'image' ? item.replacedBy : undefined) ?? null,
    recompressed: (item.kind === 'image' ? item.recompressed : undefined) ?? null,
    pushedDigest: entry.pushedDigest ?? null,
    content: contentOf(entry, about.kind),
    state: about.outOfRace && entry.state === 'write' ? 'failed' : entry.state,
    found: entry.found ?? null,
    added: isEmpty ? null : added,
    presentBytes: entry.presentBytes,
    writeBytes: entry.writeBytes,
    notes: entry.notes,
    fault: entry.fault ?? null,
  };
}

function contentOf({ item, pushedDigest, content }: Entry, target: Target['kind']): Digest {
  if (content !== undefined) return content;
  if (item.kind === 'image' || target === 'registry') return pushedDigest ?? item.root.digest;
  return item.kind === 'chart' ? item.archive.digest : item.content.digest;
}

function loadedTarget({ target, run, fault, site, use, missing, isMade }: Racer): LoadedTarget {
  const made = isMade === true ? missing : undefined;
  return {
    kind: target.kind,
    name: target.name,
    address: target.address ?? null,
    site: site ?? null,
    use: use ?? [],
    made: made === undefined ? null : { repository: made.name, format: made.format, settings: made.settings },
    fault: fault ?? null,
    tally: run?.tally ?? emptyTally(),
    entries: (run?.entries ?? []).map((e) =>
      loadedEntry(e, { kind: target.kind, outOfRace: fault !== undefined }),
    ),
  };
}

/**
 * Loads a bundle into targets: plan, then all blobs everywhere, then manifests, then names. Nothing that a user of a
 * target sees is written before every blob arrived. Failures of items and targets are in the result; running again
 * goes on.
 * @throws faults of the bundle (exit 5), TARGET_BUSY, TARGET_NAME_COLLISION, USAGE, ABORTED
 */
export function load(options: LoadOptions, context: Context): Promise<LoadResult> {
  return withHttp(context, async (http) => {
    let release: Release = async () => {};
    const hold = async (targets: readonly Target[]): Promise<void> => {
      if (options.dryRun !== true) release = await holdTargets(targets, options);
    };
    try {
      return await loadHeld(options, { http, context, hold });
    } finally {
      // The receipt is written by now: the next load reads there what this one did.
      await release();
    }
  });
}

async function loadHeld(
  options: LoadOptions,
  tools: {
    readonly http: HttpClient;
    readonly context: Context;
    readonly hold: (targets: readonly Target[]) => Promise<void>;
  },
): Promise<LoadResult> {
  const { http, context } = tools;
  const start = context.now();
  const site = namesTargets(options) ? undefined : await chosenSite(options);
  const stop = new AbortController();
  const linked: Context = { ...context, signal: AbortSignal.any([context.signal, stop.signal]) };
  setMaxListeners(0, linked.signal); // Every running request of every target listens.
  const passing = await openPassing(options, linked);
  const source = passing ?? (await openSource(options, linked));
  const receipt =
    options.receiptPath === undefined || options.dryRun === true
      ? undefined
      : new ReceiptFile(options.receiptPath);
  const tell: ReceiptFile['write'] = async (...said) => receipt?.write(...said);
  let isBad = false;
  let racers: Racer[] = [];
  let items: readonly Item[] = [];
  try {
    if (options.receiptPath !== undefined && options.dryRun !== true) {
      const given = options.input === undefined ? [options.bundle, ...(options.others ?? [])] : [];
      const inputs = given.filter((word) => !isAddress(word)).map((word) => resolve(word));
      await refuseUnwritable(resolve(options.receiptPath), inputs);
    }
    items = matchNames(source.items, options.only);
    const dryRun = options.dryRun === true;
    const ask = options.askLogin === undefined ? {} : { ask: options.askLogin };
    const targets = await targetsOf(options, source, { http, context: linked, site, dryRun, ...ask });
    racers = busyOf(targets, items);
    await tools.hold(racers.map(({ target }) => target));
    // Behind the hold: what another load writes until then counts.
    const chartTrees = [...(options.chartTrees ?? []), ...siteTrees(site)];
    await refuseDowngrade(source.about, { ...options, chartTrees });
    if (options.verify === true) await refuseBad(source, context);
    context.emit({
      type: 'phase',
      name: 'plan',
      detail: `${countOf(items.length, 'item')}, ${countOf(racers.length, 'target')}`,
    });
    const { leftOut } = source;
    const absent = leftOut === undefined ? {} : { isAbsent: leftOut.isAbsent };
    const how = { source, context: linked, passing: passing !== undefined, dryRun, ...absent };
    await planAll(racers, items, how);
    await refuseLeftOut(racers, source);
    if (options.dryRun !== true) for (const { run } of racers) await run?.clear?.();
    for (const [racer, full] of await tooLittleSpace(racers)) racer.fault = full;
    const seen = (): Promise<void> =>
      tell(resultOf(source, { racers, items, options, start, end: context.now() }), []);
    if (options.dryRun !== true) await apply(racers, { stop, context, passing, seen });
  } catch (error) {
    isBad = passing !== undefined && isWrong(error);
    throw error;
  } finally {
    await Promise.all(racers.map((r) => r.run?.close({ isBad })));
    await source.close();
  }
  const result = resultOf(source, { racers, items, options, start, end: context.now() });
  await tell(result, blobsThere(items, racers));
  return result;
}

/** A site's file is for every bundle: targets of it that nothing is for stay aside. What a flag names is for this one. */
function busyOf(targets: readonly PlannedTarget[], items: readonly Item[]): Racer[] {
  const busy = targets.filter(
    ({ site, target }) => site === undefined || items.some((item) => target.accepts(item)),
  );
  if (busy.length > 0) return busy.map((one) => ({ ...one }));
  throw new SealiftError('USAGE', "nothing that is loaded is for a target of the site's file", {
    hint: `it has ${targets.map(({ target }) => target.name).join(', ')}`,
  });
}

/** A bundle that comes through a pipe; undefined where a path is given. @throws USAGE, faults of the bundle */
async function openPassing(options: LoadOptions, context: Context): Promise<PassingSource | undefined> {
  if (options.input === undefined) return undefined;
  const { streamSource } = await import('./load-stream.ts');
  return streamSource({ ...options, input: options.input }, context);
}

/** Wrong content, or nobody's whom we trust; not only the want of some. */
function isWrong(error: unknown): boolean {
  const code = error instanceof SealiftError ? error.code : '';
  return /^(BUNDLE|SIGNATURE|POLICY)_/.test(code) && code !== 'BUNDLE_TRUNCATED';
}

async function refuseBad(source: Source, context: Context): Promise<void> {
  context.emit({ type: 'phase', name: 'verify' });
  const { faults } = await source.check();
  if (faults.length > 0) throw errorOf(faults, `${source.path}: the bundle is damaged; nothing was written`);
}

async function apply(
  racers: readonly Racer[],
  run: {
    readonly stop: AbortController;
    readonly context: Context;
    readonly passing: PassingSource | undefined;
    /** Is called before anything becomes visible. */
    readonly seen: () => Promise<void>;
  },
): Promise<void> {
  const entries = racers.flatMap((r) => r.run?.entries ?? []).filter((e) => e.state === 'write');
  const bytes = entries.reduce((sum, e) => sum + e.writeBytes, 0);
  run.context.emit({ type: 'total', bytes, items: entries.length });
  const stages: readonly [Stage, string][] = [
    ['writeBlobs', 'blobs'],
    ['writeManifests', 'manifests'],
    ['commit', 'names'],
  ];
  const first = racers.some(({ target }) => target.isSeenAtOnce === true) ? 'writeBlobs' : 'writeManifests';
  for (const [stage, name] of stages) {
    // Again before the names: by then it is known which manifests were added.
    if ((stage === first || stage === 'commit') && entries.length > 0) await run.seen();
    run.context.emit({ type: 'phase', name });
    if (stage !== 'writeBlobs' || run.passing === undefined) await runStage(racers, stage, run.stop);
    else if (!(await run.passing.pass(racers, run.stop))) return;
  }
}

function resultOf(
  source: Source,
  run: {
    readonly racers: readonly Racer[];
    readonly items: readonly Item[];
    readonly options: LoadOptions;
    readonly start: number;
    readonly end: number;
  },
): LoadResult {
  const targets = run.racers.map(loadedTarget);
  const failedEntries = targets.flatMap((t) => t.entries).filter((e) => e.state === 'failed').length;
  return {
    bundle: source.about,
    start: new Date(run.start).toISOString(),
    end: new Date(run.end).toISOString(),
    dryRun: run.options.dryRun === true,
    verified: run.options.verify === true || source.isChecked === true,
    targets,
    forNone: forNone(
      run.items,
      run.racers.map(({ target }) => target),
    ),
    failed: failedEntries + targets.filter((t) => t.fault !== null).length,
  };
}
