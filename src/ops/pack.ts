import { readdir } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Base, BaseBundle } from '../bundle/contents.ts';
import { hasVolumes, openMedium } from '../bundle/medium.ts';
import { removePartial } from '../bundle/partial.ts';
import { type BundlePlan, type PlannedLock, planBundle } from '../bundle/plan.ts';
import { type Bundle, type KnownLock, openBundle } from '../bundle/reader.ts';
import type { StreamOptions } from '../bundle/stream-writer.ts';
import { settleStopped } from '../bundle/volume-sink.ts';
import { type Form, formFor, volumeSizeIn, volumesAt } from '../bundle/volumes.ts';
import type { WriterStats } from '../bundle/writer-stats.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { Output } from '../io/byte-sink.ts';
import { kindOf } from '../io/files.ts';
import type { HttpClient } from '../io/http.ts';
import { type Counts, countsOf } from '../lock/counts.ts';
import type { Lock } from '../lock/schema.ts';
import { Registries } from '../source/registries.ts';
import type { Vouched } from '../trust/comment.ts';
import { basesOf } from './base.ts';
import { checkOpened } from './check-bundle.ts';
import { lockPathOf, readLockFile, recompressedIn, refuseStale } from './lock.ts';
import { ManifestSpool } from './manifest-spool.ts';
import { fillBundle } from './pack-fill.ts';
import { gatherContents, type PackTools } from './pack-sources.ts';
import { refuseTerminal, streamOut } from './pack-stream.ts';
import { readRequest } from './repair.ts';
import { withHttp } from './session.ts';
import { registriesConfig } from './wanted.ts';

export interface PackOptions {
  /** Bytes of each volume of a bundle in volumes. */
  readonly volumeSize?: number;
  /** Earlier bundles, or what stands for them (`basesOf`): what all of them have is left out. */
  readonly since?: readonly string[];
  /** A repair request: only what it names is carried. */
  readonly repair?: string;
  /** Path of sealift.yaml; where it is absent the lock alone decides. */
  readonly manifestPath: string;
  /** Default: `versions.lock` beside the manifest. */
  readonly lockPath?: string;
  /** Path of the bundle; a folder when it ends in `/`. */
  readonly out: string;
  /** Where the bundle goes in order, instead of `out`, which then only names it. */
  readonly output?: Output;
  /** Signs what goes into `output`; a bundle at a path is signed by `packSigned`. */
  readonly signer?: (vouched: Vouched) => StreamOptions['sign'];
  /** Looks at nothing behind B3SUMS of a bundle that is there: it is signed next. */
  readonly toSums?: boolean;
  /** Read a finished bundle's bytes again instead of believing its headers. */
  readonly verify?: boolean;
  /** Fail where a registry's limit on pulls would have to be waited for. */
  readonly noWait?: boolean;
  /** Bytes that whoever packs will write beside the bundle: they need room on its disk too. */
  readonly beside?: number;
}

export interface PackResult {
  readonly path: string;
  readonly kind: 'tar' | 'folder' | 'volumes' | 'stream';
  /** Of a bundle in volumes. */
  readonly volumes: { readonly size: number; readonly count: number } | null;
  /** What a delta builds on and leaves out. */
  readonly base: {
    readonly of: readonly BaseBundle[];
    readonly blobs: number;
    readonly bytes: number;
  } | null;
  /** Bytes of the bundle. */
  readonly size: number;
  readonly entries: number;
  readonly blobs: number;
  readonly lock: Digest;
  /** `present`: the bundle was there and nothing was written. */
  readonly outcome: 'packed' | 'present';
  /** Whether a bundle that was there had its bytes read, or only its documents, headers and length. */
  readonly compared: 'bytes' | 'headers' | null;
  readonly stats: WriterStats | null;
  readonly artifacts: Counts;
}

/**
 * Writes the bundle that the lock describes. A bundle that is there and matches is left alone; an interrupted pack is
 * taken up; blobs of an older bundle at the same path are used again.
 * @throws LOCK_STALE, LOCK_NOT_FOUND, DISK_FULL, and one error with every content that cannot be had
 */
export function pack(options: PackOptions, context: Context): Promise<PackResult> {
  const work = async (http: HttpClient): Promise<PackResult> => {
    if (options.output !== undefined) refuseTerminal(options.output);
    const { lock, digest, size } = await readLockFile(lockPathOf(options));
    if (Object.values(countsOf(lock)).every((n) => n === 0)) {
      throw new SealiftError('MANIFEST_EMPTY', 'the lock names nothing to carry', {
        hint: 'add images, charts, files or Python packages to sealift.yaml and run `sealift lock`',
      });
    }
    const known = (await kindOf(options.manifestPath)) !== undefined;
    const base = await baseFor(options, { digest, context });
    // A repair is of what was packed, whatever is wanted by now.
    const how = { http, context, mayBeStale: options.repair !== undefined };
    const state = known ? await refuseStale(options.manifestPath, lock, how) : undefined;
    const root = state?.root ?? dirname(resolve(options.lockPath ?? options.manifestPath));
    const config = registriesConfig(state?.manifest.registries ?? {}, root);
    const access = {
      http,
      context,
      root,
      registries: new Registries({ http, context, config, mayRecompress: recompressedIn(lock) }),
    };
    if (options.output !== undefined) {
      const wanted = { value: lock, digest, size };
      const { output, out: name, signer } = options;
      return packStream(wanted, { output, name, signer, base, access, context });
    }
    const out = resolve(options.out);
    const kind = formFor(options);
    await settleStopped(out);
    await refuseOtherKind(out, kind);
    const there = await openExisting(out, {
      known: { lock, digest },
      form: kind,
      toSums: options.toSums,
      context,
    });
    try {
      refuseBase(there, base, digest);
      const finished =
        there === undefined || base !== undefined || there.info.base !== null
          ? undefined
          : await finishedResult(there, { digest, options, kind, context });
      if (finished !== undefined) {
        await removePartial(out);
        return finished;
      }
      const manifests = await ManifestSpool.open(context);
      try {
        const tools: PackTools = { context, access, lock, manifests };
        const { contents, sources } = await gatherContents(tools, { there, base });
        const plan = planBundle({ value: lock, digest, size }, contents, base);
        const same =
          base === undefined || there?.plan?.id !== plan.id
            ? undefined
            : await finishedResult(there, { digest, options, kind, base, context });
        if (same !== undefined) return same;
        await there?.close();
        const stats = await fillBundle({ plan, out, kind, sources, tools, beside: options.beside ?? 0 });
        return result({ plan, out, kind, lock, digest, base, outcome: 'packed', compared: null, stats });
      } finally {
        await manifests.close();
      }
    } finally {
      await there?.close();
      await access.registries.close();
    }
  };
  return withHttp(context, work, { waitForLimits: options.noWait !== true });
}

/** Packs into an output instead of a path: nothing that was there is used, nothing is left behind. */
async function packStream(
  wanted: PlannedLock,
  to: {
    readonly output: Output;
    readonly name: string;
    readonly signer: PackOptions['signer'] | undefined;
    readonly base: Base | undefined;
  } & Pick<PackTools, 'access' | 'context'>,
): Promise<PackResult> {
  const { access, context, output, name, base, signer } = to;
  const { value: lock, digest } = wanted;
  const manifests = await ManifestSpool.open(context);
  try {
    const tools: PackTools = { context, access, lock, manifests };
    const { contents, sources } = await gatherContents(tools, { base });
    const plan = planBundle(wanted, contents, base);
    const vouched = { name: lock.name, version: lock.version, lock: digest };
    const stats = await streamOut(output, { plan, sources, tools, sign: signer?.(vouched) });
    const facts = { plan, out: name, kind: 'stream', lock, digest, base, outcome: 'packed' } as const;
    return result({ ...facts, compared: null, stats });
  } finally {
    await manifests.close();
    await access.registries.close();
  }
}

/** What a delta or a repair builds on. @throws USAGE, LOCK_STALE and what `basesOf` throws */
async function baseFor(
  { since = [], repair }: PackOptions,
  { digest, context }: { readonly digest: Digest; readonly context: Context },
): Promise<Base | undefined> {
  if (repair === undefined) return since.length === 0 ? undefined : basesOf(since, context);
  if (since.length > 0) throw new SealiftError('USAGE', '--repair and --since cannot be used together');
  const base = await readRequest(repair);
  if (base.lock === digest) return base;
  const [{ name, version } = { name: '', version: '' }] = base.of;
  throw new SealiftError(
    'LOCK_STALE',
    `${repair} is for ${name} ${version} with lock ${base.lock}, the lock here is ${digest}`,
    {
      hint: 'give the lock that the bundle was packed from with --lock (`git log -- versions.lock` finds it)',
    },
  );
}

async function refuseOtherKind(out: string, kind: Form): Promise<void> {
  const found = await kindOf(out);
  if (found === undefined || (found === 'file') === (kind !== 'folder')) return;
  throw new SealiftError('USAGE', `${out} is a ${found}`, {
    hint:
      found === 'folder'
        ? 'end the path with / to write a folder'
        : 'leave out the / at the end to write a file',
  });
}

/** The bundle at the target path, damaged or not; undefined when there is none that can be read. */
async function openExisting(
  out: string,
  about: {
    readonly known: KnownLock;
    readonly form: Form;
    readonly toSums: boolean | undefined;
    readonly context: Context;
  },
): Promise<Bundle | undefined> {
  const { known, form, toSums, context } = about;
  const kind = await kindOf(out);
  const place = form.startsWith('volumes:') ? await volumesAt(out) : out;
  if (place === undefined || (place === out && kind === undefined)) return undefined;
  if (kind === 'folder' && (await readdir(out)).length === 0) return undefined;
  try {
    const medium = await openMedium(place, { toSums });
    const there = await openBundle(place, { signal: context.signal, strict: false, known, medium });
    const foreign =
      kind === 'folder' ? there.medium.faults.find((f) => f.code === 'BUNDLE_ENTRY_EXTRA') : undefined;
    if (foreign === undefined) return there;
    await there.close();
    throw new SealiftError('TARGET_CONFLICT', foreign.message, {
      hint: 'a bundle in a folder is replaced as a whole: move other files out of it, or choose another folder with -o',
    });
  } catch (error) {
    if (error instanceof SealiftError && error.code === 'TARGET_CONFLICT') throw error;
    if (!(error instanceof SealiftError) || error.code === 'ABORTED') throw error;
    throw new SealiftError('TARGET_CONFLICT', `${out}: there is something that is not a bundle of sealift`, {
      cause: error,
      hint: 'move it away or choose another path with -o: what is there is not overwritten',
    });
  }
}

/**
 * A delta or a repair does not replace what it builds on, without which it is nothing, nor the complete bundle of its own
 * lock, which is more. @throws TARGET_CONFLICT
 */
function refuseBase(there: Bundle | undefined, base: Base | undefined, digest: Digest): void {
  if (there === undefined || base === undefined) return;
  const { info, lockDigest, medium } = there;
  const isOwn = (of: readonly BaseBundle[] = []): boolean => of.some(({ lock }) => lock === lockDigest);
  // A repair that was packed before has the lock of what it repairs too, and may be replaced.
  if (info.base === null && lockDigest === digest && !isOwn(base.of)) {
    throw new SealiftError('TARGET_CONFLICT', `${medium.path} is the complete bundle of this lock`, {
      hint: 'choose another path with -o: a delta has less',
    });
  }
  if (!isOwn(base.of) || isOwn(info.base?.of)) return;
  throw new SealiftError('TARGET_CONFLICT', `${medium.path} is what this would build on`, {
    hint: 'choose another path with -o: what a delta or a repair builds on is needed beside it',
  });
}

async function finishedResult(
  there: Bundle,
  about: {
    readonly digest: Digest;
    readonly options: PackOptions;
    readonly kind: Form;
    readonly base?: Base | undefined;
    readonly context: Context;
  },
): Promise<PackResult | undefined> {
  const { plan, lock } = there;
  const volumeSize = volumeSizeIn(about.kind);
  if (volumeSize !== undefined && !hasVolumes(there.medium, volumeSize)) return undefined;
  if (there.lockDigest !== about.digest || there.faults.length > 0 || plan === undefined) return undefined;
  const read = about.options.verify === true;
  if (read && (await checkOpened(there, { deep: true, context: about.context })).faults.length > 0)
    return undefined;
  const out = there.medium.path;
  const compared = read ? 'bytes' : 'headers';
  return result({
    plan,
    out,
    kind: about.kind,
    lock,
    digest: about.digest,
    base: about.base,
    outcome: 'present',
    compared,
    stats: null,
  });
}

function result(facts: {
  readonly plan: BundlePlan;
  readonly out: string;
  readonly kind: Form | 'stream';
  readonly base?: Base | undefined;
  readonly lock: Lock;
  readonly digest: Digest;
  readonly outcome: PackResult['outcome'];
  readonly compared: PackResult['compared'];
  readonly stats: WriterStats | null;
}): PackResult {
  const { plan, lock, out, kind, base, outcome, compared, stats } = facts;
  const volumeSize = kind === 'stream' ? undefined : volumeSizeIn(kind);
  const isWhole = kind === 'tar' || kind === 'folder' || kind === 'stream';
  return {
    path: out,
    kind: isWhole ? kind : 'volumes',
    volumes: volumeSize === undefined ? null : { size: volumeSize, count: Math.ceil(plan.size / volumeSize) },
    base: base === undefined ? null : { of: base.of, ...plan.leftOut },
    size: plan.size,
    entries: plan.entries.length,
    blobs: plan.blobs,
    lock: facts.digest,
    outcome,
    compared,
    stats,
    artifacts: countsOf(lock),
  };
}
