import { resolve } from 'node:path';
import { countOf } from '../core/count.ts';
import { type Fault, fault } from '../core/errors.ts';
import { type PythonTarget, parseWheelPlatform } from '../core/python-target.ts';
import { mapBounded } from '../io/pool.ts';
import type { WantedPython } from '../lock/check-python.ts';
import type { PackageLock, PythonLock } from '../lock/schema.ts';
import { clashingPins, markerFor, type PinnedTargets, unitePins } from '../python/pins.ts';
import type { RequirementFiles } from '../python/requirement-files.ts';
import { type PackageTools, type PinFiles, resolvePackage } from '../source/python-files.ts';
import { findResolver } from '../source/python-find.ts';
import { PythonLogins, plainIndex, SimpleIndexes } from '../source/python-index.ts';
import type { Resolution, ResolvedPin, Resolver } from '../source/python-resolver.ts';
import type { ResolveTools } from './resolve.ts';
import { attempt, faultsIn, sortAttempts } from './session.ts';
import { sourceFault } from './unreachable.ts';

/** Projects asked at once. */
const PARALLEL = 8;

/** What is locked of the Python packages; `python` is undefined where the manifest asks for none, or something failed. */
export interface ResolvedPython {
  readonly python: PythonLock | undefined;
  readonly faults: readonly Fault[];
  readonly warnings: readonly Fault[];
}

/** Every Python on every platform: the oldest C library first, whose wheels run on the others too. */
function targetsOf({ pythons, platforms }: WantedPython): PythonTarget[] {
  const minor = (python: string): number => Number(python.slice('3.'.length));
  const parsed = platforms.map(parseWheelPlatform).toSorted((a, b) => a.minor - b.minor);
  const ordered = pythons.toSorted((a, b) => minor(a) - minor(b));
  return parsed.flatMap((platform) => ordered.map((python) => ({ python, platform })));
}

function pinLine({ name, version, marker }: PythonLock['pins'][number]): string {
  return `${name}==${version}${marker === undefined ? '' : ` ; ${marker}`}`;
}

/** A pin whose files were chosen for the same targets from the same indexes keeps them: nobody is asked. */
function keptFiles(before: PythonLock | undefined, wanted: WantedPython, tools: ResolveTools) {
  const same = (a: readonly string[] = [], b: readonly string[] = []): boolean =>
    [...a].sort().join() === [...b].sort().join();
  const holds =
    before !== undefined &&
    same(before.pythons, wanted.pythons) &&
    same(before.platforms, wanted.platforms) &&
    before.indexes.join() === wanted.indexes.join();
  const pins = new Set(holds ? before.pins.map(pinLine) : []);
  const hashes = tools.state.requirementFiles?.hashes;
  return (pin: PythonLock['pins'][number]): readonly PackageLock[] | undefined => {
    if (!pins.has(pinLine(pin)) || tools.moves('package', pin.name)) return undefined;
    const files = before?.files.filter((f) => f.name === pin.name && f.version === pin.version) ?? [];
    const allowed = hashes?.get(pin.name);
    const stays = ({ file, source, sha256 }: PackageLock): boolean =>
      'url' in source && (wanted.sdists || file.endsWith('.whl')) && (allowed?.has(sha256) ?? true);
    return files.length > 0 && files.every(stays) ? files : undefined;
  };
}

/** What the resolver is asked. */
function resolutionOf(
  wanted: WantedPython,
  targets: readonly PythonTarget[],
  { state, before, moves }: ResolveTools,
): Resolution {
  const { manifest, root } = state;
  const pins = before?.python?.pins ?? [];
  return {
    requirements: (manifest.python?.requirements ?? []).map((path) => resolve(root, path)),
    constraints: (manifest.python?.constraints ?? []).map((path) => resolve(root, path)),
    packages: wanted.packages,
    targets,
    indexes: wanted.indexes,
    sdists: wanted.sdists,
    held: pins.filter((pin) => !moves('package', pin.name)).map(pinLine),
  };
}

/** Indexes that are asked where the resolver does not say which it took: the manifest's, the files', its own. */
function indexesOf(
  wanted: WantedPython,
  files: RequirementFiles | undefined,
  configured: readonly URL[],
): readonly string[] {
  if (wanted.indexes.length > 0) return wanted.indexes;
  const named = (files?.indexes ?? []).flatMap(({ url }) =>
    URL.canParse(url) ? [plainIndex(new URL(url))] : [],
  );
  // A file's own --index-url stands instead of what is configured.
  const isReplaced = files?.indexes.some(({ isExtra }) => !isExtra) === true;
  const own = isReplaced ? [] : configured.map(plainIndex);
  return [...new Set([...named, ...own])];
}

function clashFault(clash: ReturnType<typeof clashingPins>[number]): Fault {
  const [python, machine] = clash.environment.split(' ');
  const message = `${clash.name}: Python ${python} on ${machine} would need ${clash.versions.join(' and ')}, one for each C library`;
  return fault('MANIFEST_CONFLICT', message, {
    hint: `write one version of ${clash.name} that has wheels for both under constraints`,
  });
}

async function chooseFiles(
  united: readonly PinnedTargets<ResolvedPin>[],
  about: {
    readonly targets: readonly PythonTarget[];
    readonly wanted: WantedPython;
    readonly tools: ResolveTools;
    readonly resolver: Resolver;
  },
): Promise<{ readonly found: PinFiles[]; readonly faults: Fault[] }> {
  const { tools, wanted, targets, resolver } = about;
  const { access, state } = tools;
  const { http, context, root } = access;
  const configured = await resolver.configured();
  const logins = new PythonLogins(access.registries, { env: context.env, configured });
  const packages: PackageTools = {
    http,
    context,
    root,
    logins,
    pages: new SimpleIndexes({ http, context, logins }),
    indexes: indexesOf(wanted, state.requirementFiles, configured),
    sdists: wanted.sdists,
    hashes: state.requirementFiles?.hashes ?? new Map(),
  };
  const kept = keptFiles(tools.before?.python, wanted, tools);
  const limits = { limit: PARALLEL, signal: context.signal };
  const done = await mapBounded(united, limits, async (one) => {
    const files = kept(lockedPin(one, targets));
    if (files !== undefined) return { value: { files, warnings: [] } };
    const result = await attempt(() => resolvePackage(one, packages));
    const what = `Python package ${one.pin.name} ${one.pin.version}`;
    return 'fault' in result ? { fault: sourceFault(result.fault, what) } : result;
  });
  const { values, faults } = sortAttempts<PinFiles>(done);
  return { found: values, faults };
}

function lockedPin(
  { pin, targets }: PinnedTargets<ResolvedPin>,
  all: readonly PythonTarget[],
): PythonLock['pins'][number] {
  const marker = markerFor(targets, all);
  return { name: pin.name, version: pin.version, ...(marker === undefined ? {} : { marker }) };
}

async function resolveAnew(wanted: WantedPython, tools: ResolveTools): Promise<ResolvedPython> {
  const { context, root } = tools.access;
  const targets = targetsOf(wanted);
  const wish = { resolver: tools.state.manifest.python?.resolver, pythons: wanted.pythons };
  const resolver = await findResolver(wish, { context, root });
  context.emit({
    type: 'note',
    message: `${resolver.name} resolves ${countOf(targets.length, 'Python target')}`,
  });
  const united = unitePins(await resolver.resolve(resolutionOf(wanted, targets, tools)), targets);
  const clashes = clashingPins(united).map(clashFault);
  if (clashes.length > 0) return { python: undefined, faults: clashes, warnings: [] };
  const { found, faults } = await chooseFiles(united, { targets, wanted, tools, resolver });
  const warnings = found.flatMap((one) => one.warnings);
  if (faults.length > 0) return { python: undefined, faults, warnings };
  const { requirements, constraints, packages, pythons, platforms, indexes } = wanted;
  const files = new Map(found.flatMap((one) => one.files).map((file) => [file.file, file]));
  return {
    faults,
    warnings,
    python: {
      requirements,
      constraints,
      packages,
      pythons,
      platforms,
      indexes,
      pins: united.map((one) => lockedPin(one, targets)),
      files: [...files.values()],
    },
  };
}

/** The Python packages of the manifest. They are resolved together; where nothing changed, nobody is asked. */
export async function resolvePython(tools: ResolveTools): Promise<ResolvedPython> {
  const { state, before, check, moves, access } = tools;
  const wanted = state.wanted.python;
  if (wanted === undefined) return { python: undefined, faults: [], warnings: [] };
  const old = before?.python;
  if (old !== undefined && check.satisfied.python && !old.pins.some((pin) => moves('package', pin.name))) {
    return { python: old, faults: [], warnings: [] };
  }
  const { emit } = access.context;
  const id = 'Python packages';
  emit({ type: 'start', id, label: id, size: 0 });
  const { position } = wanted;
  const at = (f: Fault): Fault => (position === undefined ? f : { ...f, position: f.position ?? position });
  let outcome: 'done' | 'failed' = 'failed';
  try {
    const resolved = await resolveAnew(wanted, tools);
    if (resolved.faults.length === 0) outcome = 'done';
    return { ...resolved, faults: resolved.faults.map(at), warnings: resolved.warnings.map(at) };
  } catch (error) {
    return { python: undefined, faults: faultsIn(error).map(at), warnings: [] };
  } finally {
    emit({ type: 'end', id, outcome });
  }
}
