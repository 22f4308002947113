import { basename, dirname, join, resolve } from 'node:path';
import { countOf } from '../core/count.ts';
import type { Digest } from '../core/digest.ts';
import { errorOf, type Fault, fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import type { Reference } from '../core/reference.ts';
import { INCLUDES } from '../core/referrer.ts';
import { readFileIfExists, readFileLimited, writeFileIfChanged } from '../io/files.ts';
import { mapBounded } from '../io/pool.ts';
import { digestOf } from '../io/verify.ts';
import { type CheckResult, checkLock } from '../lock/check.ts';
import { type Counts, countsOf } from '../lock/counts.ts';
import { diffLocks, type LockDiff } from '../lock/diff.ts';
import { parseLock } from '../lock/read.ts';
import { type ChartLock, chartName, type ImageLock, imageSource, type Lock } from '../lock/schema.ts';
import { lockBytes, lockPieces, referrerKey } from '../lock/write.ts';
import { checkPublished, type IndexCache } from '../source/chart.ts';
import type { ChartAccess } from '../source/chart-archive.ts';
import { resolveFile } from '../source/file.ts';
import { findReferrers } from '../source/referrers.ts';
import { Registries, type Repository } from '../source/registries.ts';
import type { Trust } from '../trust/policy.ts';
import { chartNames, imageNames } from './names.ts';
import { announcePulls, pullsOfLock } from './pulls.ts';
import { pythonDrift } from './python-drift.ts';
import { type ResolveTools, resolveCharts, resolveFiles, resolveImages } from './resolve.ts';
import { resolvePython } from './resolve-python.ts';
import { attempt, withHttp } from './session.ts';
import { judgeSignedLock } from './trust.ts';
import { cannotLock } from './unreachable.ts';
import { changedPathDependencies, readWanted, registriesConfig, type WantedState } from './wanted.ts';

export interface LockOptions {
  /** Path of sealift.yaml. */
  readonly manifestPath: string;
  /** Default: `versions.lock` beside the manifest. */
  readonly lockPath?: string;
  /** Entries whose pin shall move: image names (also without host, path or tag), chart names, file names, Python projects. */
  readonly update?: readonly string[];
  readonly updateAll?: boolean;
  /** Carry foreign layers of every image that has some, unless the manifest says no for it. */
  readonly foreignLayers?: boolean;
  /** Make images anew that only an archive of `docker save` has, and lock them under their new digests. */
  readonly recompress?: boolean;
  /** Only say what would change. */
  readonly dryRun?: boolean;
  /** Fail where a registry's limit on pulls would have to be waited for. */
  readonly noWait?: boolean;
}

export interface LockResult {
  readonly path: string;
  readonly lock: Lock;
  /** From the lock that was there (an empty one when there was none). */
  readonly diff: LockDiff;
  readonly written: boolean;
  readonly warnings: readonly Fault[];
}

export interface LockCheckResult {
  readonly path: string;
  /** LOCK_STALE, DRIFT_FOUND, CHART_REPUBLISHED …; empty when all is in step. */
  readonly faults: readonly Fault[];
  readonly warnings: readonly Fault[];
  /** Entries that were compared with the manifest, and with their source. */
  readonly checked: Counts;
  readonly online: boolean;
  /** What was judged of its signature; null where nobody asked. */
  readonly signature: Pick<Trust, 'state' | 'keyId' | 'at'> | null;
}

type MayRecompress = (of: Repository) => boolean;

/** Of which repositories a lock has images that were made anew. */
export function recompressedIn(locked: Lock): MayRecompress {
  const made: Reference[] = [];
  for (const image of locked.images) if (image.recompressed !== undefined) made.push(imageSource(image));
  return (of) => made.some((image) => image.host === of.host && image.repository === of.repository);
}

/** The lock that belongs to a manifest. */
export function lockPathOf(options: {
  readonly manifestPath: string;
  readonly lockPath?: string | undefined;
}): string {
  return options.lockPath ?? join(dirname(options.manifestPath), 'versions.lock');
}

/** Reads a lock that must be there; digest and size are those of its bytes. @throws LOCK_NOT_FOUND, LOCK_INVALID */
export async function readLockFile(
  path: string,
): Promise<{ readonly lock: Lock; readonly digest: Digest; readonly size: number }> {
  const bytes = await readFileLimited(path, {
    limit: LIMITS.lockText,
    missing: 'LOCK_NOT_FOUND',
    hint: 'run `sealift lock` to make it',
  });
  return { lock: parseLock(bytes, path), digest: digestOf(bytes), size: bytes.length };
}

/** The lock that is there, and the digest of its bytes, which are not kept. @throws LOCK_INVALID */
async function readBefore(path: string): Promise<{ readonly lock?: Lock; readonly digest?: Digest }> {
  const bytes = await readFileIfExists(path);
  return bytes === undefined ? {} : { lock: parseLock(bytes, path), digest: digestOf(bytes) };
}

function emptyLock(name: string, version: string): Lock {
  return { lockVersion: 1, name, version, images: [], charts: [], files: [] };
}

/** Everything that the old lock says about the manifest as it is now, chart folders of dependencies included. */
async function compareNow(
  before: Lock,
  state: WantedState,
): Promise<{ readonly check: CheckResult; readonly changedPaths: ReadonlySet<string> }> {
  const changedPaths = await changedPathDependencies(before, state);
  const check = checkLock(before, state.wanted);
  const more = [...changedPaths].map((name) =>
    fault('LOCK_STALE', `chart ${name} has changed in its folder`, {
      hint: 'run `sealift lock` to update it',
    }),
  );
  return { check: { ...check, faults: [...check.faults, ...more] }, changedPaths };
}

/** Runs `work` with everything that the manifest's sources need; what mirrors hold open is closed at the end. */
async function withAccess<T>(
  state: WantedState,
  tools: {
    readonly http: ChartAccess['http'];
    readonly context: Context;
    readonly mayRecompress: MayRecompress;
  },
  work: (access: ChartAccess) => Promise<T>,
): Promise<T> {
  const { http, context, mayRecompress } = tools;
  const config = registriesConfig(state.manifest.registries, state.root);
  const registries = new Registries({ http, context, config, mayRecompress });
  try {
    return await work({ http, context, root: state.root, registries });
  } finally {
    await registries.close();
  }
}

/** Which entries `--update` means. @throws USAGE for a name that nothing has */
function movesOf(options: LockOptions, state: WantedState, before: Lock | undefined): ResolveTools['moves'] {
  if (options.updateAll === true) return () => true;
  const asked = new Set(options.update ?? []);
  const unknown = new Set(asked);
  const moved = new Set<string>();
  const note = (entry: string, names: readonly string[]): void => {
    const hits = names.filter((one) => asked.has(one));
    if (hits.length > 0) moved.add(entry);
    for (const hit of hits) unknown.delete(hit);
  };
  const locked = before?.charts ?? [];
  const parents = new Set(locked.map(chartName));
  const { images, charts, files } = state.wanted;
  for (const chart of [...locked.filter((c) => c.usedBy.some((user) => parents.has(user))), ...charts])
    note(`chart ${chartName(chart)}`, chartNames(chart));
  if (asked.size > 0) for (const { name } of images) note(`image ${name}`, imageNames(name));
  for (const { name } of files) note(`file ${name}`, [name]);
  for (const { name } of before?.python?.pins ?? []) note(`package ${name}`, [name]);
  if (unknown.size > 0) {
    throw new SealiftError('USAGE', `--update: nothing is called ${[...unknown].join(', ')}`, {
      hint: 'give an image, chart, file or Python project name as it stands in versions.lock',
    });
  }
  return (kind, name) => moved.has(`${kind} ${name}`);
}

/**
 * Resolves everything that sealift.yaml names and writes versions.lock. Pins that hold are kept; all failures are
 * reported together, and then nothing is written.
 * @throws MANIFEST_INVALID, LOCK_INVALID, USAGE, or one error with every fault of the sources
 */
export function lock(options: LockOptions, context: Context): Promise<LockResult> {
  const work = async (http: ChartAccess['http']): Promise<LockResult> => {
    const state = await readWanted(options.manifestPath, { http, context });
    const path = lockPathOf(options);
    const { lock: before, digest } = await readBefore(path);
    const known = before ?? emptyLock(state.manifest.name, state.manifest.version);
    const { check, changedPaths } = await compareNow(known, state);
    const moves = movesOf(options, state, before);
    const foreignLayers = options.foreignLayers === true;
    context.emit({
      type: 'phase',
      name: 'resolve',
      detail: [
        countOf(state.wanted.images.length, 'image'),
        countOf(state.wanted.charts.length, 'chart'),
        countOf(state.wanted.files.length, 'file'),
        ...(state.wanted.python === undefined ? [] : ['Python packages']),
      ].join(', '),
    });
    const manifestName = basename(options.manifestPath);
    const mayRecompress = options.recompress === true ? () => true : recompressedIn(known);
    const { images, charts, files, python } = await withAccess(
      state,
      { http, context, mayRecompress },
      async (access) => {
        const tools: ResolveTools = { access, state, before, check, moves, foreignLayers };
        await announcePulls(pullsOfLock(tools), access);
        return {
          images: await resolveImages(tools),
          charts: await resolveCharts({ ...tools, manifestName, changedPaths }),
          files: await resolveFiles(tools),
          python: await resolvePython(tools),
        };
      },
    );
    const faults = [...images.faults, ...charts.faults, ...files.faults, ...python.faults];
    if (faults.length > 0) throw cannotLock(faults);
    const made: Lock = {
      ...emptyLock(state.manifest.name, state.manifest.version),
      images: images.entries,
      charts: charts.entries,
      files: files.entries,
      ...(python.python === undefined ? {} : { python: python.python }),
    };
    const warnings = [...state.warnings, ...images.warnings, ...charts.warnings, ...python.warnings];
    if (digest !== undefined && digest === digestOf(lockPieces(made))) {
      return { path, lock: known, diff: diffLocks(known, known), written: false, warnings };
    }
    const text = lockBytes(made);
    const checked = parseLock(text, path);
    const written = options.dryRun === true ? false : await writeFileIfChanged(path, text);
    return { path, lock: checked, diff: diffLocks(known, checked), written, warnings };
  };
  return withHttp(context, work, { waitForLimits: options.noWait !== true });
}

/** Whether one of these keys signed the very lock that was read. */
async function checkSigned(
  path: string,
  about: { readonly lock: Lock; readonly digest: Digest; readonly keys: readonly string[] },
  context: Context,
): Promise<Trust> {
  const bytes = await readFileLimited(path, { limit: LIMITS.lockText, missing: 'LOCK_NOT_FOUND' });
  if (digestOf(bytes) !== about.digest) {
    throw new SealiftError('LOCK_INVALID', `${path}: changed while it was checked`);
  }
  const given = { bytes, lock: () => about.lock };
  return judgeSignedLock(resolve(path), given, { keys: about.keys, context });
}

/**
 * Compares versions.lock with sealift.yaml without the network; with `online` also with what the sources publish now.
 * With `keys` one of these public keys must have signed it (`versions.lock.minisig`). Returns every difference.
 */
export function checkLockFile(
  options: LockOptions & { readonly online?: boolean; readonly keys?: readonly string[] },
  context: Context,
): Promise<LockCheckResult> {
  const work = async (http: ChartAccess['http']): Promise<LockCheckResult> => {
    const state = await readWanted(options.manifestPath, { http, context });
    const path = lockPathOf(options);
    const { lock: locked, digest } = await readLockFile(path);
    const { keys } = options;
    const trust =
      keys === undefined ? null : await checkSigned(path, { lock: locked, digest, keys }, context);
    const { check } = await compareNow(locked, state);
    const online = options.online === true;
    const mayRecompress = recompressedIn(locked);
    const drift = online
      ? await withAccess(state, { http, context, mayRecompress }, (access) => findDrift(locked, access))
      : [];
    return {
      path,
      online,
      warnings: state.warnings,
      signature: trust === null ? null : { state: trust.state, keyId: trust.keyId, at: trust.at },
      faults: [...(trust?.faults ?? []), ...check.faults, ...drift],
      checked: countsOf(locked),
    };
  };
  return withHttp(context, work, { waitForLimits: options.noWait !== true });
}

/** Whether a tag moved; and where it did not, whether other signatures or referrers travel with the image now. */
async function imageDrift(image: ImageLock, access: ChartAccess): Promise<Fault | undefined> {
  const { ref: name } = image;
  const ref = imageSource(image);
  const now = await access.registries.resolve(ref, ref.tag ?? image.digest);
  const hint = `look at what changed, then take it with \`sealift lock --update ${name}\``;
  if (now !== image.digest) {
    return fault('DRIFT_FOUND', `${name}: locked ${image.digest}, now ${now ?? 'absent'}`, {
      hint,
      details: { name, locked: image.digest, now: now ?? null },
    });
  }
  const referrers = image.referrers ?? [];
  const nested = referrers.map((r) => r.subject).filter((s) => !referrers.some((r) => r.digest === s));
  const own = [image.digest, ...Object.values(image.platforms), ...image.others, ...nested];
  const subjects = [...new Set(own)];
  const { signal } = access.context;
  const include = image.include ?? INCLUDES;
  const found = await findReferrers(access.registries, { ref, subjects, include, signal });
  const [unasked] = found.warnings;
  if (unasked !== undefined) return unasked;
  const before = new Set(referrers.map(referrerKey));
  const fresh = found.referrers.filter((r) => !before.delete(referrerKey(r)));
  if (fresh.length + before.size === 0) return undefined;
  return fault(
    'DRIFT_FOUND',
    `${name}: ${countOf(fresh.length, 'signature or referrer')} new, ${before.size} gone since the lock`,
    { hint, details: { name, new: fresh.map((r) => r.digest), gone: [...before] } },
  );
}

/** What the sources publish now that differs from the lock. A source that cannot be asked is a fault too. */
async function findDrift(locked: Lock, access: ChartAccess): Promise<Fault[]> {
  const cache: IndexCache = new Map();
  const jobs: (() => Promise<Fault | undefined>)[] = [
    ...Array.from({ length: locked.images.length }, (_, at) => async () => {
      const image = locked.images.at(at);
      return image === undefined ? undefined : imageDrift(image, access);
    }),
    ...locked.charts.map((chart: ChartLock) => () => checkPublished(chart, access, cache)),
    ...locked.files.map((file) => async () => {
      if (!('url' in file.source)) return undefined;
      const { digest } = await resolveFile(file.source, access);
      if (digest === file.sha256) return undefined;
      return fault('DRIFT_FOUND', `${file.name}: locked ${file.sha256}, now ${digest}`, {
        hint: `take it with \`sealift lock --update ${file.name}\``,
        details: { name: file.name, locked: file.sha256, now: digest },
      });
    }),
    ...pythonDrift(locked.python, access),
  ];
  const limits = { limit: 6, signal: access.context.signal };
  const done = await mapBounded(jobs, limits, (job) => attempt(job));
  return done.flatMap((d) => ('fault' in d ? [d.fault] : d.value === undefined ? [] : [d.value]));
}

/** Refuses a lock that is not in step with its manifest. @throws LOCK_STALE with every difference */
export async function refuseStale(
  manifestPath: string,
  locked: Lock,
  tools: {
    readonly http: ChartAccess['http'];
    readonly context: Context;
    /** Say nothing about it. */
    readonly mayBeStale?: boolean;
  },
): Promise<WantedState> {
  const state = await readWanted(manifestPath, tools);
  if (tools.mayBeStale === true) return state;
  const { check } = await compareNow(locked, state);
  if (check.faults.length > 0) {
    throw errorOf(check.faults, `versions.lock does not match ${basename(manifestPath)}`, 'LOCK_STALE');
  }
  return state;
}
