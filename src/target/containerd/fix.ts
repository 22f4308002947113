import type { Descriptor } from '../../core/descriptor.ts';
import { type Fault, faultOf, isAbort, SealiftError } from '../../core/errors.ts';
import type { Context } from '../../core/events.ts';
import { createTurns, mapBounded } from '../../io/pool.ts';
import { ContainerdClient } from '../../oci/containerd/client.ts';
import { knock } from '../../oci/containerd/socket.ts';
import type { Named } from '../../oci/containerd/state-wire.ts';
import type { ImageRecord } from '../../oci/containerd/wire.ts';
import type { ContentReader } from '../../oci/content.ts';
import { collectGraph, isSparse } from '../../oci/graph.ts';
import { parseManifest } from '../../oci/manifest.ts';
import type { ImageItem } from '../target.ts';
import { readManifestOf } from './completeness.ts';
import { sharingOf } from './inspect.ts';
import { CRI_PINNED } from './labels.ts';
import { planImages } from './plan.ts';
import { ContainerdRun } from './run.ts';
import { findStrays, type Stray, WRONG_NAMESPACES } from './strays.ts';

/** Labels that are set at the same time. */
const PINNING = 8;
/** Label of a namespace whose content others see though the policy keeps namespaces apart. */
const SHAREABLE = 'containerd.io/namespace.shareable';

/** One image whose reference is copied, or why not. */
export interface CopiedImage {
  /** Its full name, which it has afterwards. */
  readonly name: string;
  readonly digest: string;
  /** Where it is now, and how its record is called there. */
  readonly from: { readonly namespace: string; readonly said: string };
  /** `taken`: another image has its name, and keeps it. */
  readonly state: 'copy' | 'copied' | 'taken' | 'failed';
  readonly fault: Fault | null;
}

/** One record that is labelled so that kubelet keeps its image. */
export interface PinnedImage {
  readonly name: string;
  readonly state: 'pin' | 'pinned' | 'failed';
  readonly fault: Fault | null;
}

export interface FixResult {
  readonly copies: readonly CopiedImage[];
  readonly pins: readonly PinnedImage[];
}

export interface FixOptions {
  readonly socket: string;
  readonly namespace: string;
  /** Namespaces that are looked into; default `WRONG_NAMESPACES`. */
  readonly from?: readonly string[];
  /** Label copied images, and those that are there, against kubelet's image collection. */
  readonly pin: boolean;
  readonly isWanted: (name: string) => boolean;
  readonly dryRun: boolean;
}

/** What copies an image whose content one namespace does not show to another. */
const MOVE =
  'Or copy it with its bytes: `ctr -n FROM images export - NAME | ctr -n k8s.io images import --all-platforms -`';

/** Nothing is read: containerd has the bytes already, or the image is not copied. */
const NO_BYTES: ContentReader = {
  open(descriptor) {
    throw new SealiftError(
      'TARGET_FAILED',
      `${descriptor.digest}: containerd does not show it to this namespace`,
      {
        hint: MOVE,
        side: 'destination',
      },
    );
  },
};

/** A copy that is planned: the image as a load of it would get it. */
interface Copy {
  readonly stray: Stray;
  readonly item?: ImageItem;
  readonly fault?: Fault;
}

function refused(error: unknown): Fault {
  if (isAbort(error) || !(error instanceof SealiftError) || error.code === 'TARGET_UNREACHABLE') throw error;
  return faultOf(error);
}

function incomplete(stray: Stray): SealiftError {
  return new SealiftError(
    'CONTENT_NOT_FOUND',
    `${stray.said} in ${stray.namespace}: content of it is not there, for any platform`,
    { hint: 'load a bundle that has the image', side: 'destination' },
  );
}

/**
 * The image with all its platforms that are there whole.
 * @throws CONTENT_NOT_FOUND when none is, OCI_MANIFEST_INVALID, TARGET_UNREACHABLE
 */
async function itemOf(client: ContainerdClient, stray: Stray, signal: AbortSignal): Promise<ImageItem> {
  const isThere = async (descriptor: Descriptor): Promise<boolean> =>
    (await client.info(descriptor.digest, signal)) !== undefined;
  const read = (descriptor: Descriptor): Promise<Buffer> => readManifestOf(client, descriptor, signal);
  const isWhole = async (manifest: Descriptor): Promise<boolean> => {
    if (!(await isThere(manifest))) return false;
    const { nodes } = await collectGraph(manifest, { read });
    for (const node of nodes.values()) if (!(await isThere(node.descriptor))) return false;
    return true;
  };
  const root: Descriptor = stray.target;
  if (!(await isThere(root))) throw incomplete(stray);
  const top = parseManifest(await read(root), root);
  const whole = new Set<string>();
  for (const child of top.kind === 'index' ? top.manifests : [root]) {
    if (await isWhole(child)) whole.add(child.digest);
  }
  if (whole.size === 0) throw incomplete(stray);
  const graph = await collectGraph(root, { read, keep: (child) => whole.has(child.digest) });
  const { name, reference } = stray;
  return { kind: 'image', name, reference, graph, root, sparse: isSparse(graph) };
}

async function planCopies(
  strays: readonly Stray[],
  place: {
    readonly socket: string;
    readonly signal: AbortSignal;
    readonly hidden: (namespace: string) => boolean;
  },
): Promise<Copy[]> {
  const { socket, signal, hidden } = place;
  const copies: Copy[] = [];
  const clients = new Map<string, ContainerdClient>();
  try {
    for (const stray of strays) {
      const { namespace } = stray;
      if (hidden(namespace)) {
        copies.push({ stray, fault: faultOf(isolated(stray)) });
        continue;
      }
      const client = clients.get(namespace) ?? new ContainerdClient(socket, namespace);
      clients.set(namespace, client);
      try {
        copies.push({ stray, item: await itemOf(client, stray, signal) });
      } catch (error) {
        copies.push({ stray, fault: refused(error) });
      }
    }
    return copies;
  } finally {
    for (const client of clients.values()) client.close();
  }
}

function isolated({ said, namespace }: Stray): SealiftError {
  return new SealiftError(
    'TARGET_FAILED',
    `${said}: containerd keeps the content of ${namespace} from other namespaces (content_sharing_policy = "isolated")`,
    {
      hint: `with containerd 2 \`ctr namespaces label ${namespace} ${SHAREABLE}=true\` lets others see it; then run the same command again. ${MOVE}`,
      side: 'destination',
    },
  );
}

interface Run extends FixOptions {
  readonly client: ContainerdClient;
  readonly context: Context;
}

/** Writes the planned copies as a load writes images, under a lease; the bytes are there already. */
async function applyCopies(copies: readonly Copy[], run: Run): Promise<ReadonlyMap<string, Fault | null>> {
  const { socket, namespace, pin, context } = run;
  const items = copies.flatMap(({ item }) => item ?? []);
  const outcome = new Map<string, Fault | null>();
  if (items.length === 0) return outcome;
  // The run closes its connection; ours goes on.
  const client = new ContainerdClient(socket, namespace);
  const plan = await planImages(client, items, { pin, signal: context.signal });
  const name = `containerd ${socket} ${namespace}`;
  const source = NO_BYTES;
  const load = new ContainerdRun({ client, plan, name, namespace, turns: createTurns(), context, source });
  try {
    await load.writeBlobs();
    await load.writeManifests();
    await load.commit();
  } finally {
    await load.close();
  }
  for (const entry of load.entries) outcome.set(entry.item.name, entry.fault ?? null);
  return outcome;
}

function copiedOf(
  { stray, fault }: Copy,
  outcome: ReadonlyMap<string, Fault | null> | undefined,
): CopiedImage {
  const { name, namespace, said, target } = stray;
  const failed = fault ?? outcome?.get(name) ?? null;
  const state = failed !== null ? 'failed' : outcome === undefined ? 'copy' : 'copied';
  return { name, digest: target.digest, from: { namespace, said }, state, fault: failed };
}

async function pinAll(records: readonly ImageRecord[], run: Run): Promise<PinnedImage[]> {
  const [label, value] = CRI_PINNED;
  const { client, context, dryRun, isWanted } = run;
  const loose = records.filter(
    ({ name, labels }) => !name.startsWith('sha256:') && labels.get(label) !== value && isWanted(name),
  );
  if (dryRun) return loose.map(({ name }) => ({ name, state: 'pin', fault: null }));
  const limits = { limit: PINNING, signal: context.signal };
  return await mapBounded(loose, limits, async ({ name }, signal): Promise<PinnedImage> => {
    try {
      await client.labelImage(name, new Map([CRI_PINNED]), signal);
      return { name, state: 'pinned', fault: null };
    } catch (error) {
      return { name, state: 'failed', fault: refused(error) };
    }
  });
}

function hiddenOf(namespaces: readonly Named[], policy: string | undefined, own: string) {
  return (name: string): boolean => {
    if (policy !== 'isolated' || name === own) return false;
    return namespaces.find((n) => n.name === name)?.labels.get(SHAREABLE) !== 'true';
  };
}

/**
 * Gives images that kubelet does not find (in another namespace, or under a short name) a record under their full name in
 * its namespace. No bytes are moved: containerd keeps content once. Nothing that is there is removed or changed but the
 * label that pins it, where that is asked for. A dry run only reads.
 * @throws TARGET_UNREACHABLE, AUTH_DENIED, ABORTED
 */
export async function fixContainerd(options: FixOptions, context: Context): Promise<FixResult> {
  const { socket, namespace, from = WRONG_NAMESPACES, pin, isWanted, dryRun } = options;
  const { signal } = context;
  await knock(socket, signal);
  const client = new ContainerdClient(socket, namespace);
  try {
    const plugins = await client.plugins(signal);
    const spaces = await client.namespaces(signal);
    const records = await client.listImages(signal);
    const known = { namespace, namespaces: spaces.map((n) => n.name), records };
    const strays = (await findStrays(socket, known, { from, signal })).filter((s) => isWanted(s.name));
    const hidden = hiddenOf(spaces, sharingOf({ plugins }), namespace);
    const free = strays.filter((s) => s.taken === undefined);
    const copies = await planCopies(free, { socket, signal, hidden });
    const run: Run = { ...options, client, context };
    const outcome = dryRun ? undefined : await applyCopies(copies, run);
    const taken = strays
      .filter((s) => s.taken !== undefined)
      .map((s): CopiedImage => ({ ...copiedOf({ stray: s }, undefined), state: 'taken' }));
    const pins = pin ? await pinAll(records, run) : [];
    return { copies: [...copies.map((copy) => copiedOf(copy, outcome)), ...taken], pins };
  } finally {
    client.close();
  }
}
