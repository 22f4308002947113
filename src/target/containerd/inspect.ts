import { isAbort, SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { ContainerdClient } from '../../oci/containerd/client.ts';
import type { Container, Ingest, Lease, Plugin } from '../../oci/containerd/state-wire.ts';
import type { ImageRecord } from '../../oci/containerd/wire.ts';

/** Content of a namespace: its bytes, and whether a snapshotter has unpacked what it is the config of. */
export interface Held {
  readonly size: number;
  readonly isUnpacked: boolean;
}

/** Everything that a check reads of one containerd and one of its namespaces; undefined where it did not tell. */
export interface ContainerdState {
  readonly version: string;
  readonly namespace: string;
  readonly namespaces: readonly string[];
  readonly plugins: readonly Plugin[];
  readonly records: readonly ImageRecord[];
  readonly content: ReadonlyMap<string, Held>;
  readonly leases: readonly (Lease & { readonly digests: readonly string[] })[];
  readonly ingests: readonly Ingest[];
  readonly containers: readonly Container[] | undefined;
  /** The image of every pod's first container, where CRI tells it. */
  readonly sandboxImage: string | undefined;
  /** What CRI says of itself; `tells` where there is one. */
  readonly cri: 'tells' | 'silent' | 'absent';
}

/** Label of a config that a snapshotter has unpacked: `<prefix><snapshotter>` = chain id. */
const UNPACKED = 'containerd.io/gc.ref.snapshot.';

/** Leases whose content is asked for. */
const LEASES_ASKED = 100;

/** What a question gives, or undefined where this containerd refuses it. @throws ABORTED, TARGET_UNREACHABLE */
async function unlessRefused<T>(question: () => Promise<T>): Promise<T | undefined> {
  try {
    return await question();
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError) || error.code === 'TARGET_UNREACHABLE')
      throw error;
    return undefined;
  }
}

async function contentOf(client: ContainerdClient, signal: AbortSignal): Promise<Map<string, Held>> {
  const content = new Map<string, Held>();
  for await (const { digest, size, labels } of client.listContent(signal)) {
    const isUnpacked = [...labels.keys()].some((key) => key.startsWith(UNPACKED));
    content.set(digest, { size, isUnpacked });
  }
  return content;
}

async function leasesOf(client: ContainerdClient, signal: AbortSignal): Promise<ContainerdState['leases']> {
  const leases = (await unlessRefused(() => client.leases(signal))) ?? [];
  const known: ContainerdState['leases'][number][] = [];
  for (const lease of leases.slice(0, LEASES_ASKED)) {
    const held = (await unlessRefused(() => client.leaseResources(lease.id, signal))) ?? [];
    known.push({ ...lease, digests: held.filter((r) => r.type === 'content').map((r) => r.id) });
  }
  return known;
}

/** The image of pods' first containers as CRI's settings name it (containerd before 2.0). */
export function sandboxImageOf(info: ReadonlyMap<string, string>): string | undefined {
  const text = info.get('config');
  if (text === undefined || text.length > LIMITS.config) return undefined;
  try {
    const config: unknown = JSON.parse(text);
    if (typeof config !== 'object' || config === null || !('sandboxImage' in config)) return undefined;
    const { sandboxImage } = config;
    return typeof sandboxImage === 'string' && sandboxImage !== '' ? sandboxImage : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Reads the state of a containerd and of one namespace. Writes nothing.
 * @throws TARGET_UNREACHABLE, AUTH_DENIED, TARGET_FAILED where what a load needs does not answer
 */
export async function inspectContainerd(
  client: ContainerdClient,
  { namespace, signal }: { readonly namespace: string; readonly signal: AbortSignal },
): Promise<ContainerdState> {
  const version = await client.version(signal);
  const plugins = (await unlessRefused(() => client.plugins(signal))) ?? [];
  const hasCri = plugins.some((p) => p.type === 'io.containerd.grpc.v1' && p.id === 'cri' && !p.isBroken);
  const info = hasCri ? await unlessRefused(() => client.criInfo(signal)) : undefined;
  const sandboxImage = info === undefined ? undefined : sandboxImageOf(info);
  return {
    version,
    namespace,
    namespaces: (await client.namespaces(signal)).map(({ name }) => name),
    plugins,
    records: await client.listImages(signal),
    content: await contentOf(client, signal),
    leases: await leasesOf(client, signal),
    ingests: (await unlessRefused(() => client.ingests(signal))) ?? [],
    containers: await unlessRefused(() => client.containers(signal)),
    sandboxImage,
    cri: !hasCri ? 'absent' : sandboxImage === undefined ? 'silent' : 'tells',
  };
}

/** Whether content of one namespace is seen by others that know its digest; undefined where it is not told. */
export function sharingOf({ plugins }: Pick<ContainerdState, 'plugins'>): 'shared' | 'isolated' | undefined {
  const policy = plugins.find((p) => p.type === 'io.containerd.metadata.v1')?.exports.get('policy');
  return policy === 'shared' || policy === 'isolated' ? policy : undefined;
}

/** The folders where content and unpacked images lie, as containerd itself sees them. */
export function rootsOf({ plugins }: Pick<ContainerdState, 'plugins'>): {
  readonly content: string | undefined;
  readonly snapshots: readonly string[];
} {
  const rootOf = (p: Plugin): string => p.exports.get('root') ?? '';
  const usable = plugins.filter((p) => !p.isBroken && rootOf(p) !== '');
  return {
    content: usable.filter((p) => p.type === 'io.containerd.content.v1').map(rootOf)[0],
    snapshots: usable.filter((p) => p.type === 'io.containerd.snapshotter.v1').map(rootOf),
  };
}

/** The platforms whose containers run there, `os/architecture[/variant]`. */
export function platformsOf({ plugins }: Pick<ContainerdState, 'plugins'>): readonly string[] {
  const runtime = plugins.filter((p) => p.type.startsWith('io.containerd.runtime.') && !p.isBroken);
  return [...new Set(runtime.flatMap((p) => p.platforms))];
}
