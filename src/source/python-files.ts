import { readdir } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { isFileOf } from '../core/distribution.ts';
import { type Fault, fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { PythonTarget } from '../core/python-target.ts';
import { diskError } from '../io/files.ts';
import type { HttpClient } from '../io/http.ts';
import type { PackageLock } from '../lock/schema.ts';
import { chooseSdist, chooseWheel, type OfferedFile } from '../python/choose.ts';
import type { PinnedTargets } from '../python/pins.ts';
import { WheelRanks } from '../python/tags.ts';
import type { HostAccess } from './download.ts';
import { resolveFile } from './file.ts';
import { decoded, type SimpleIndexes } from './python-index.ts';
import { type ResolvedPin, targetText } from './python-resolver.ts';

/** What files are chosen with. */
export interface PackageTools {
  readonly http: HttpClient;
  readonly context: Context;
  readonly root: string;
  readonly logins: HostAccess;
  readonly pages: SimpleIndexes;
  /** Indexes that are asked where the resolver does not say which it took. */
  readonly indexes: readonly string[];
  readonly sdists: boolean;
  /** By project: hashes that requirements name. */
  readonly hashes: ReadonlyMap<string, ReadonlySet<Digest>>;
}

/** The files of one pin, and what a person should know about them. */
export interface PinFiles {
  readonly files: readonly PackageLock[];
  readonly warnings: readonly Fault[];
}

interface Candidate extends OfferedFile {
  readonly source: PackageLock['source'];
  readonly size?: number;
  readonly requiresPython?: string;
}

function pathBelow(root: string, absolute: string): string {
  return relative(root, absolute).split(sep).join('/');
}

/** The files that an index, a folder or a requirement offers for a pin. */
async function candidates(pin: ResolvedPin, tools: PackageTools): Promise<Candidate[]> {
  const { from } = pin;
  const ofPin = (file: string): boolean => isFileOf(file, pin);
  const local = (path: string): Candidate => ({
    file: path.split(sep).at(-1) ?? path,
    sha256: undefined,
    source: { path: pathBelow(tools.root, path) },
  });
  if ('file' in from) return [local(from.file)];
  if ('folder' in from) {
    const names = await readdir(from.folder).catch((error: unknown) => {
      throw diskError(error, from.folder);
    });
    return names
      .filter(ofPin)
      .sort()
      .map((name) => local(join(from.folder, name)));
  }
  if ('url' in from) {
    const file = decoded(new URL(from.url).pathname.split('/').at(-1) ?? '');
    return [{ file, sha256: from.sha256, source: { url: from.url } }];
  }
  const found = new Map<string, Candidate>();
  for (const index of from.index === undefined ? tools.indexes : [from.index]) {
    for (const { url, ...file } of (await tools.pages.files(index, pin.name)) ?? []) {
      if (ofPin(file.file) && !found.has(file.file)) found.set(file.file, { ...file, source: { url } });
    }
    // The first index that has the version decides: what a stranger puts under the name of a private project is not looked at.
    if (found.size > 0) break;
  }
  return [...found.values()];
}

/** What a server says of a file without sending it. */
export async function headFile(
  address: string,
  tools: Pick<PackageTools, 'http' | 'context' | 'logins'>,
): Promise<{ readonly status: number; readonly size: number | undefined }> {
  const url = new URL(address);
  const access = await tools.logins.accessTo(url, undefined);
  const { authorization } = access;
  const answer = await tools.http.request({
    method: 'HEAD',
    url,
    headers: authorization === undefined ? {} : { authorization },
    tls: access.tls,
  });
  await answer.body.dump();
  const { status, headers } = answer;
  const length = headers['content-length'] ?? '';
  return { status, size: status === 200 && /^\d{1,15}$/.test(length) ? Number(length) : undefined };
}

/** A chosen file with its hash and size. What the index does not say is read from the file itself. */
async function locked(pin: ResolvedPin, chosen: Candidate, tools: PackageTools): Promise<PackageLock> {
  const { file, source, requiresPython, yanked } = chosen;
  let { sha256, size } = chosen;
  // What a requirement says of an address is asked of the file itself.
  const isStated = !('url' in pin.from);
  if (isStated && sha256 !== undefined && size === undefined && 'url' in source) {
    size = (await headFile(source.url, tools)).size;
  }
  if (sha256 === undefined || size === undefined) {
    const { http, context, root, logins } = tools;
    const read = await resolveFile(source, { http, context, root, registries: logins });
    if (sha256 !== undefined && sha256 !== read.digest) {
      throw new SealiftError(
        'FILE_CHECKSUM_MISMATCH',
        `${file}: it shall be ${sha256}, found ${read.digest}`,
      );
    }
    sha256 = read.digest;
    size = read.size;
  }
  const allowed = tools.hashes.get(pin.name);
  if (allowed?.has(sha256) === false) throw notAllowed(pin, `${file} has ${sha256}`);
  return {
    file,
    name: pin.name,
    version: pin.version,
    source,
    size,
    sha256,
    ...(requiresPython === undefined ? {} : { requiresPython }),
    ...(yanked === undefined ? {} : { yanked }),
  };
}

function notAllowed(pin: ResolvedPin, found: string): SealiftError {
  const message = `${pin.name} ${pin.version}: ${found}, and the requirements name other hashes`;
  return new SealiftError('FILE_CHECKSUM_MISMATCH', message, {
    hint: 'compare with what the project publishes; make the requirements anew with hashes for every target (`uv pip compile --universal --generate-hashes`)',
  });
}

function listText(names: readonly string[]): string {
  const shown = names.slice(0, 8).join(', ');
  return names.length > 8 ? `${shown} and ${names.length - 8} more` : shown || 'none';
}

/** What of the offered files a target gets. @throws PACKAGE_NOT_FOUND, FILE_CHECKSUM_MISMATCH */
function chooseFor(
  { pin, target }: { readonly pin: ResolvedPin; readonly target: PythonTarget },
  offered: readonly Candidate[],
  tools: PackageTools,
): Candidate {
  const ranks = new WheelRanks(target);
  const allowed = tools.hashes.get(pin.name);
  const wheel = chooseWheel(offered, { ranks, allowed });
  if (wheel !== undefined) return wheel;
  const sdist = tools.sdists ? chooseSdist(offered, allowed) : undefined;
  if (sdist !== undefined) return sdist;
  const there = `its files are ${listText(offered.map(({ file }) => file))}`;
  if (allowed !== undefined && chooseWheel(offered, { ranks }) !== undefined) throw notAllowed(pin, there);
  const message = `${pin.name} ${pin.version}: no wheel ${targetText(target)}; ${there}`;
  const hint = tools.sdists
    ? 'take another version of it with a line under constraints, or leave that target out'
    : 'take another version of it with a line under constraints, or allow its source archive with sdists: true';
  throw new SealiftError('PACKAGE_NOT_FOUND', message, { hint });
}

function warningsOf(files: readonly PackageLock[]): Fault[] {
  const [first] = files;
  const yanked = files.find((f) => f.yanked !== undefined);
  const sdist = files.find(({ file }) => !file.endsWith('.whl'));
  const name = `${first?.name} ${first?.version}`;
  return [
    ...(yanked === undefined
      ? []
      : [
          fault(
            'PACKAGE_YANKED',
            `${name} was taken back by its publisher: ${yanked.yanked || 'no reason given'}`,
            {
              hint: `take another version: \`sealift lock --update ${first?.name}\`, or correct the requirements`,
            },
          ),
        ]),
    ...(sdist === undefined
      ? []
      : [
          fault('PACKAGE_NOT_FOUND', `${name}: a target has no wheel, so ${sdist.file} is carried`, {
            hint: 'at the site it is built: what that needs (setuptools, wheel, a compiler) has to be there; add the Python parts under python.packages',
          }),
        ]),
  ];
}

/**
 * The files of one pin: for each target that wants it the wheel that pip installs there, or the source archive where none
 * fits and that is allowed; each file once.
 * @throws PACKAGE_NOT_FOUND, FILE_CHECKSUM_MISMATCH, and what an index or a disk answers
 */
export async function resolvePackage(
  { pin, targets }: PinnedTargets<ResolvedPin>,
  tools: PackageTools,
): Promise<PinFiles> {
  const offered = await candidates(pin, tools);
  const chosen = new Map<string, Candidate>();
  for (const target of targets) {
    const one = chooseFor({ pin, target }, offered, tools);
    chosen.set(one.file, one);
  }
  const files: PackageLock[] = [];
  for (const one of chosen.values()) files.push(await locked(pin, one, tools));
  return { files, warnings: warningsOf(files) };
}
