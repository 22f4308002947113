import { open, opendir, realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { KIB, LIMITS } from '../core/limits.ts';
import { diskError, kindOf, readAt } from '../io/files.ts';
import { FIRST_ENTRY } from './names.ts';

/**
 * A bundle that lies in volumes: equal byte splits of one tar, `NAME.001` and on, so that `cat` joins them. They may lie in
 * several folders.
 */
export interface VolumeSet {
  /** The path of the first volume that is known, without its number: how the bundle is called in messages. */
  readonly path: string;
  /** The path of each volume that is there, by its number from 1 on. */
  readonly files: ReadonlyMap<number, string>;
  /** Digits of a number in a name. */
  readonly width: number;
}

/** Where a bundle lies: a file or a folder, or volumes. */
export type Place = string | VolumeSet;

/** How a bundle is called in messages, and what is named beside it. */
export function pathOf(place: Place): string {
  return typeof place === 'string' ? place : place.path;
}

/** How a bundle is written: one tar, a folder of the same shape, or volumes of so many bytes each. */
export type Form = 'tar' | 'folder' | `volumes:${number}`;

/** Bytes of a volume; undefined for the other forms. */
export function volumeSizeIn(form: Form): number | undefined {
  return form.startsWith('volumes:') ? Number(form.slice('volumes:'.length)) : undefined;
}

/**
 * How a path asks for a bundle to be written: a folder where it ends in `/`.
 * @throws USAGE for volumes of a folder, and for a file whose name is that of a volume
 */
export function formFor({ out, volumeSize }: { readonly out: string; readonly volumeSize?: number }): Form {
  if (!out.endsWith('/')) {
    refuseVolumeName(out);
    return volumeSize === undefined ? 'tar' : `volumes:${volumeSize}`;
  }
  if (volumeSize === undefined) return 'folder';
  throw new SealiftError('USAGE', '--volume-size: a folder has no volumes', {
    hint: 'leave out the / at the end of the path',
  });
}

/** True for what `Form` allows. */
export function isForm(value: unknown): value is Form {
  return (
    value === 'tar' ||
    value === 'folder' ||
    (typeof value === 'string' && /^volumes:[1-9]\d{0,15}$/.test(value))
  );
}

/** What a signature may add to a tar, in bytes: the number of volumes is the same with and without it. */
const SIGNATURE_ROOM = 4 * KIB;

/** The volumes of a tar of so many bytes: their number, and the digits of a number in a name. @throws USAGE for too many */
export function volumesFor(
  size: number,
  volumeSize: number,
): { readonly count: number; readonly width: number } {
  const count = Math.ceil(size / volumeSize);
  const most = Math.ceil((size + SIGNATURE_ROOM) / volumeSize);
  if (most > LIMITS.volumes) {
    throw new SealiftError(
      'USAGE',
      `--volume-size ${volumeSize}: ${most} volumes, the limit is ${LIMITS.volumes}`,
      {
        hint: 'choose larger volumes',
      },
    );
  }
  return { count, width: Math.max(3, String(most).length) };
}

const VOLUME = /^(.+)\.(\d{3,6})$/;
const GLOB = /[*?[{]/;

/** The stem and the number of a volume's path; undefined for any other path. */
function volumeOf(
  path: string,
): { readonly stem: string; readonly number: number; readonly width: number } | undefined {
  const [, stem, digits] = VOLUME.exec(path) ?? [];
  if (stem === undefined || digits === undefined || Number(digits) === 0) return undefined;
  return { stem, number: Number(digits), width: digits.length };
}

/** A bundle whose own name ends like a volume's would be taken for one. @throws USAGE */
function refuseVolumeName(out: string): void {
  if (volumeOf(out) === undefined) return;
  throw new SealiftError('USAGE', `${out}: this is how a volume is called, not a bundle`, {
    hint: `name it ${out}.tar; volumes get their numbers by themselves with --volume-size`,
  });
}

/** The path of a volume, from 1 on. */
export function volumePath(path: string, number: number, width: number): string {
  return `${path}.${String(number).padStart(width, '0')}`;
}

/** Every volume in a folder, of the given stem or of any. */
export async function volumesIn(folder: string, stem?: string): Promise<string[]> {
  const found: string[] = [];
  try {
    for await (const entry of await opendir(folder === '' ? '.' : folder)) {
      const volume = volumeOf(entry.name);
      if (volume === undefined || (stem !== undefined && volume.stem !== stem)) continue;
      const path = join(folder, entry.name);
      if (entry.isFile() || (await kindOf(path)) === 'file') found.push(path);
      if (found.length > LIMITS.volumes) throw tooMany(folder);
    }
  } catch (error) {
    throw diskError(error, folder);
  }
  return found.sort();
}

function tooMany(where: string): SealiftError {
  return new SealiftError('CONTENT_TOO_LARGE', `${where}: more than ${LIMITS.volumes} volumes`);
}

/** An address that was taken for a path. */
const ADDRESS = /(?:^|\/)https?:\//i;

/** The files that a glob names; a path with such characters that is there is itself meant. */
async function expand(given: string): Promise<string[]> {
  if (ADDRESS.test(given) && (await kindOf(given)) === undefined) {
    throw new SealiftError('USAGE', 'an address is given where a path must be', {
      hint: 'only ls, verify and load read a bundle on a server, one alone: copy it here first',
    });
  }
  if (!GLOB.test(given) || (await kindOf(given)) !== undefined) return [given];
  const { glob } = await import('tinyglobby');
  const found = await glob(given, { absolute: true, onlyFiles: true, dot: true, expandDirectories: false });
  if (found.length > 0) return found.sort();
  throw new SealiftError('BUNDLE_NOT_FOUND', `${given}: nothing fits this pattern`, {
    hint: 'give the path of a bundle, its first volume, or the folder where its volumes are',
  });
}

/** Bundles that are named where a folder has several. */
const NAMED = 6;

function severalIn(folder: string, paths: readonly string[]): never {
  const names = paths.map((path) => basename(path));
  const more = names.length > NAMED ? [`${names.length - NAMED} more`] : [];
  const shown = [...names.slice(0, NAMED), ...more].join(', ');
  throw new SealiftError('USAGE', `${folder}: several bundles are in this folder: ${shown}`, {
    hint: 'give the path of the one that is meant, of volumes the first one; or all that belong together, each by its path',
  });
}

/** The bundles in one file each that lie in a folder, known by how they begin. */
async function bundlesIn(folder: string): Promise<string[]> {
  const found: string[] = [];
  try {
    for await (const entry of await opendir(folder)) {
      const path = join(folder, entry.name);
      if (entry.name.endsWith('.tar') && (await beginsAsBundle(path))) found.push(path);
    }
  } catch (error) {
    throw diskError(error, folder);
  }
  return found.sort();
}

/** Whether a path is a file that begins as only a bundle does. @throws FILE_UNREADABLE */
export async function beginsAsBundle(path: string): Promise<boolean> {
  if ((await kindOf(path)) !== 'file') return false;
  const handle = await open(path, 'r').catch((error: unknown) => {
    throw diskError(error, path);
  });
  try {
    return (await readAt(handle, 0, FIRST_ENTRY.length)).equals(FIRST_ENTRY);
  } catch (error) {
    throw diskError(error, path);
  } finally {
    await handle.close();
  }
}

/** Volumes whose numbers are as wide as those of a first one, where there is one: a file that ends in a year is none of them. */
function withFirst(paths: readonly string[]): string[] {
  const volumes = paths.flatMap((path) => {
    const volume = volumeOf(path);
    return volume === undefined ? [] : [{ path, ...volume }];
  });
  const firsts = volumes.filter(({ number }) => number === 1);
  return volumes
    .filter(({ stem, width }) => {
      const own = firsts.filter((first) => first.stem === stem);
      return own.length === 0 || own.some((first) => first.width === width);
    })
    .map(({ path }) => path);
}

/** Whether a path is a whole bundle that is only called like a volume, as `site-1.2.345`: no other file there continues it. */
async function isWholeNamed(path: string): Promise<boolean> {
  const volume = volumeOf(path);
  if (volume === undefined || volume.number === 1 || (await kindOf(path)) !== 'file') return false;
  if (!(await beginsAsBundle(path))) return false;
  for (const other of await volumesIn(dirname(path), basename(volume.stem))) {
    if (volumeOf(other)?.number === 1 || !(await beginsAsBundle(other))) return false;
  }
  return true;
}

/** What one path means: itself, or the volumes that lie there. */
async function meant(path: string): Promise<string[]> {
  const volume = volumeOf(path);
  const kind = await kindOf(path);
  // The others of the same bundle in this folder come along.
  if (volume !== undefined && kind !== 'folder') {
    const found = await volumesIn(dirname(path), basename(volume.stem));
    const all = found.filter((other) => volumeOf(other)?.width === volume.width);
    return all.length > 0 ? all : [path];
  }
  if (kind === undefined) {
    return onlyOf(dirname(path), {
      volumes: await volumesIn(dirname(path), basename(path)).catch(() => []),
      otherwise: path,
    });
  }
  if (kind !== 'folder' || (await kindOf(join(path, 'oci-layout'))) !== undefined) return [path];
  return onlyOf(path, { files: await bundlesIn(path), volumes: await volumesIn(path), otherwise: path });
}

/** The only bundle of a folder among these: a file, or volumes. @throws USAGE for several */
function onlyOf(
  folder: string,
  found: {
    readonly files?: readonly string[];
    readonly volumes: readonly string[];
    /** What it is where there is none. */
    readonly otherwise: string;
  },
): string[] {
  const bundles = new Map<string, string[]>();
  for (const path of found.files ?? []) bundles.set(path, [path]);
  for (const path of withFirst(found.volumes)) {
    const { stem = '', width = 0 } = volumeOf(path) ?? {};
    const key = `${stem} ${width}`;
    bundles.set(key, [...(bundles.get(key) ?? []), path]);
  }
  const [only = [found.otherwise], ...others] = bundles.values();
  if (others.length === 0) return only;
  return severalIn(
    folder,
    [...bundles.values()].flatMap(([first]) => first ?? []),
  );
}

interface Gathering {
  readonly path: string;
  readonly width: number;
  readonly files: Map<number, string>;
}

/** Adds one volume. @throws USAGE where the same volume is given twice */
async function add(
  sets: Map<string, Gathering>,
  path: string,
  volume: NonNullable<ReturnType<typeof volumeOf>>,
): Promise<Gathering> {
  const key = `${basename(volume.stem)}/${volume.width}`;
  const set = sets.get(key) ?? { path: volume.stem, width: volume.width, files: new Map<number, string>() };
  sets.set(key, set);
  const other = set.files.get(volume.number);
  if (other === undefined) set.files.set(volume.number, path);
  else if ((await realpath(other)) !== (await realpath(path))) {
    throw new SealiftError('USAGE', `${other} and ${path} are the same volume`, {
      hint: 'give each volume once; where two differ, `sealift verify` of each set says which is whole',
    });
  }
  return set;
}

/**
 * What the words of a command line mean: each a bundle, its first volume, any of its volumes, the folder where they lie, or
 * a pattern of these. Volumes of one name make one bundle, whatever folder each lies in and in whatever order they are given.
 * @throws BUNDLE_NOT_FOUND, USAGE
 */
export async function placesOf(given: readonly string[]): Promise<Place[]> {
  const places: (string | Gathering)[] = [];
  const sets = new Map<string, Gathering>();
  for (const word of given) {
    for (const named of await expand(word)) {
      if (await isWholeNamed(named)) {
        if (!places.includes(named)) places.push(named);
        continue;
      }
      for (const path of await meant(named)) {
        const volume = volumeOf(path);
        const place =
          volume === undefined || (await kindOf(path)) !== 'file' ? path : await add(sets, path, volume);
        if (!places.includes(place)) places.push(place);
      }
    }
  }
  return places;
}

/** The volumes of this name; undefined where there are none. */
export async function volumesAt(path: string): Promise<VolumeSet | undefined> {
  const [first] = withFirst(await volumesIn(dirname(path), basename(path)).catch(() => []));
  const place = first === undefined ? undefined : await placeAt(first);
  return typeof place === 'string' ? undefined : place;
}

/** The same of one path: a bundle, or volumes beside it. */
export async function placeAt(path: string): Promise<Place> {
  const [place = path] = await placesOf([path]);
  return place;
}
