import { access, constants, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { isAbort, SealiftError } from '../../core/errors.ts';
import type { Context } from '../../core/events.ts';
import { formatPlatform } from '../../core/platform.ts';
import { errnoOf, kindOf, spaceOf } from '../../io/files.ts';
import { ContainerdClient } from '../../oci/containerd/client.ts';
import { knock } from '../../oci/containerd/socket.ts';
import { type Finding, finding, type Room, type TargetReport } from '../finding.ts';
import { findLacks } from './completeness.ts';
import { cleanFindings, imageFindings, type SiteWords, strayFindings } from './image-findings.ts';
import { type ContainerdState, inspectContainerd, platformsOf, rootsOf } from './inspect.ts';
import { findStrays } from './strays.ts';

export interface ContainerdPlace extends SiteWords {
  /** Absolute path. */
  readonly socket: string;
}

/** Before this no layer that is compressed with zstd can be unpacked (registry.md 3.5). */
const ZSTD_SINCE = [1, 5] as const;

/** `v2.2.0`, `1.6.20~ds1`: major and minor; undefined of a version that has none. */
function versionOf(text: string): readonly [number, number] | undefined {
  const found = /^v?(\d{1,4})\.(\d{1,4})\b/.exec(text);
  return found === null ? undefined : [Number(found[1]), Number(found[2])];
}

function reachFindings(state: ContainerdState, { socket, namespace }: ContainerdPlace): Finding[] {
  const found = [finding('ok', 'REACHABLE', { message: `${socket}: containerd ${state.version}` })];
  const version = versionOf(state.version);
  const [major, minor] = ZSTD_SINCE;
  if (version !== undefined && (version[0] < major || (version[0] === major && version[1] < minor))) {
    const message = `containerd ${state.version} cannot unpack layers that are compressed with zstd`;
    found.push(
      finding('warning', 'VERSION_OLD', {
        message,
        fix: 'update containerd to 1.5 or later (1.7 is better)',
      }),
    );
  }
  const isThere = state.namespaces.includes(namespace);
  const absent = `the namespace ${namespace} is not there yet: it comes with the first image`;
  found.push(
    isThere
      ? finding('ok', 'NAMESPACE', {
          message: `the namespace ${namespace} holds ${state.records.length} image records`,
        })
      : finding('info', 'NAMESPACE', { message: absent }),
  );
  return found;
}

/**
 * The folder of the content, where it is the same folder for us as for containerd, which may run in a container: one of its
 * blobs lies there. Of an empty one only the name is known.
 */
async function localRoot(state: ContainerdState): Promise<string | undefined> {
  const { content: root } = rootsOf(state);
  if (root === undefined || !isAbsolute(root)) return undefined;
  // containerd 2 makes the folder with the first content.
  const isNew = state.content.size === 0 && (await kindOf(root)) === undefined;
  if ((await kindOf(isNew ? dirname(root) : root)) !== 'folder') return undefined;
  for (const [digest, { size }] of state.content) {
    const [algorithm = '', hex = ''] = digest.split(':');
    if (!/^[a-f0-9]+$/.test(hex) || algorithm !== 'sha256') continue;
    const blob = await stat(join(root, 'blobs', algorithm, hex)).catch(() => undefined);
    return blob?.size === size ? root : undefined;
  }
  return root;
}

const OWN_CONTAINER = 'run the check where containerd runs, as root';

async function diskFindings(state: ContainerdState): Promise<{ found: Finding[]; room?: Room }> {
  const root = await localRoot(state);
  if (root === undefined) {
    const message = "the folder of containerd's content cannot be seen from here: its space is not known";
    return { found: [finding('info', 'STATE_UNKNOWN', { message, fix: OWN_CONTAINER })] };
  }
  const found: Finding[] = [];
  try {
    await access(root, constants.W_OK);
  } catch (error) {
    if (errnoOf(error) === 'EROFS') {
      const message = `${root}: the file system of containerd's content is read-only`;
      const fix = `look for disk errors (dmesg), then: mount -o remount,rw "$(findmnt -n -o TARGET -T ${root})"`;
      return { found: [finding('fault', 'STORE_READ_ONLY', { message, fix })] };
    }
  }
  const { free } = await spaceOf(root);
  if (Number.isFinite(free)) {
    found.push(...(await unpackFindings(state, root)));
    return { found, room: { free, where: root } };
  }
  return { found };
}

/** Unpacked images take space too; where they lie elsewhere that place may be the one that lacks it. */
async function unpackFindings(state: ContainerdState, root: string): Promise<Finding[]> {
  const { device } = await spaceOf(root);
  const found: Finding[] = [];
  for (const folder of rootsOf(state).snapshots) {
    if (!isAbsolute(folder) || (await kindOf(folder)) !== 'folder') continue;
    const other = await spaceOf(folder);
    if (other.device === device || !Number.isFinite(other.free)) continue;
    const message = `${other.free} bytes are free at ${folder}, where images are unpacked (two to three times their size)`;
    found.push(finding('info', 'SPACE', { message, details: { free: other.free, where: folder } }));
  }
  return found;
}

/** The platforms of the machine, as containerd tells them, or of this one. */
function machineOf(state: ContainerdState): readonly string[] {
  const told = platformsOf(state);
  if (told.length > 0) return told;
  const architecture = { x64: 'amd64', ia32: '386' }[process.arch as string] ?? process.arch;
  return [formatPlatform({ os: 'linux', architecture })];
}

/** A check that cannot be done is told as such: the others still are. @throws ABORTED, TARGET_UNREACHABLE */
async function told(what: string, check: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await check();
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError) || error.code === 'TARGET_UNREACHABLE')
      throw error;
    return [
      finding('info', 'STATE_UNKNOWN', { message: `${what} could not be looked at: ${error.message}` }),
    ];
  }
}

/**
 * Checks one namespace of a containerd without changing anything: whether a load would work, and whether its images are in
 * a state in which kubelet can use and keep them (registry.md 3.3, 3.5).
 * @throws TARGET_UNREACHABLE, AUTH_DENIED, ABORTED where nothing can be said at all
 */
export async function checkContainerd(place: ContainerdPlace, context: Context): Promise<TargetReport> {
  const { socket, namespace } = place;
  const { signal } = context;
  await knock(socket, signal);
  const client = new ContainerdClient(socket, namespace);
  try {
    const state = await inspectContainerd(client, { namespace, signal });
    const disk = await diskFindings(state);
    const platforms = machineOf(state);
    const ask = { content: state.content, platforms, signal };
    const lacking = await told('the images', async () =>
      imageFindings({ state, place, lacks: await findLacks(client, state.records, ask) }),
    );
    const strays = await told('other namespaces', async () =>
      strayFindings(await findStrays(socket, state, { signal }), { place, state }),
    );
    const findings = [
      ...reachFindings(state, place),
      ...disk.found,
      ...lacking,
      ...strays,
      ...cleanFindings(state, { place, now: context.now() }),
    ];
    return { findings, ...(disk.room === undefined ? {} : { room: disk.room }) };
  } finally {
    client.close();
  }
}
