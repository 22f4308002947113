import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import {
  besidePath,
  diskError,
  kindOf,
  readFileLimited,
  syncFolder,
  writeFileIfChanged,
} from '../io/files.ts';
import { throwIfAborted } from '../io/pool.ts';
import type { SecretKey } from '../trust/secret-key.ts';
import { messageHash, signatureFile } from '../trust/signature.ts';
import { toolArchive, toolTar } from './tool-archive.ts';

/** Where the tool comes from that is put beside a bundle, so that the far side has something to read it with. */
export type ToolChoice =
  /** Paths of tarballs that a person named. */
  | { readonly files: readonly string[] }
  /** Folder of the program that runs: what `npm run dist` put beside it, or the tarball that it was unpacked from. */
  | { readonly program: string };

/** A tarball of the tool, before it is anywhere near the bundle. */
export interface FoundTool {
  /** Name of the file. */
  readonly name: string;
  /** 64 hex digits; undefined where it must be made first. */
  readonly sha256: string | undefined;
  /** `<name>.minisig`, where whoever built it signed it; carried as it is where no other key signs. */
  readonly signature: Buffer | undefined;
  /** Bytes; of one that must be made first rather too many. */
  readonly size: number;
  bytes(): AsyncIterable<Uint8Array>;
  /** Whether that file holds the same tool already. */
  isIn(path: string): Promise<boolean>;
}

/** A tarball beside the bundle, with its checksum in `<path>.sha256`. */
export interface PlacedTool {
  readonly path: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** `present`: it was there and was not written again. */
  readonly outcome: 'written' | 'present';
}

/** How `npm run dist` calls a tarball. One that a pack left beside a bundle is replaced by the one of another build. */
const TARBALL = /^sealift-.+-linux-(?:x64|arm64)\.tar\.gz$/;

/**
 * Finds the tool before the work begins, so that a mistyped path is told at once. None is found in a checkout where
 * `npm run dist` did not run, and in an installed npm package.
 * @throws FILE_NOT_FOUND, USAGE, TARGET_CONFLICT where something else lies at its place, FILE_CHECKSUM_MISMATCH when a
 *   tarball is not what the `.sha256` beside it states, or is damaged
 */
export async function findTools(choice: ToolChoice, out: string): Promise<readonly FoundTool[]> {
  const found =
    'files' in choice ? await Promise.all(choice.files.map(named)) : await ofProgram(choice.program);
  const bundle = basename(resolve(out));
  const names = found.flatMap(({ name }) => [name, `${name}.sha256`, `${name}.minisig`]);
  for (const [at, name] of names.entries()) {
    if (name === bundle || name.startsWith(`${bundle}.`)) throw unusable(name, 'the bundle has this name');
    if (names.indexOf(name) !== at) throw unusable(name, 'named twice');
    if (/[\\\n\r]/.test(name)) throw unusable(name, 'a list of checksums cannot hold this name');
  }
  for (const tool of found) await refuseOther(tool, placeOf(tool, out));
  return found;
}

function unusable(name: string, why: string): SealiftError {
  return new SealiftError('USAGE', `${name}: ${why}`, {
    hint: 'give each file that --tool names a name of its own',
  });
}

function placeOf({ name }: FoundTool, out: string): string {
  return join(dirname(resolve(out)), name);
}

async function refuseOther(tool: FoundTool, path: string): Promise<void> {
  const kind = await kindOf(path);
  if (kind === undefined) return;
  if (kind === 'file' && (TARBALL.test(tool.name) || (await tool.isIn(path)))) return;
  throw new SealiftError('TARGET_CONFLICT', `${path} is there and is something else than this tool`, {
    hint: 'it is not overwritten: move it away, or give the tarball another name',
  });
}

/** Bytes that have to be free for tools that are not beside the bundle yet. */
export async function roomFor(tools: readonly FoundTool[], out: string): Promise<number> {
  let sum = 0;
  for (const tool of tools) if ((await kindOf(placeOf(tool, out))) === undefined) sum += tool.size;
  return sum;
}

/**
 * Puts the tool beside the bundle, never into it: a bundle is made of its lock alone.
 * @param options.key signs each tarball too, in `<name>.minisig`, so that it can be checked before it is trusted
 */
export async function placeTools(
  tools: readonly FoundTool[],
  options: { readonly out: string; readonly context: Context; readonly key?: SecretKey },
): Promise<readonly PlacedTool[]> {
  const { out, context, key } = options;
  const placed: PlacedTool[] = [];
  for (const tool of tools) {
    const path = placeOf(tool, out);
    placed.push(await place(tool, path, context));
    const signature = key === undefined ? tool.signature : await signatureOf(path, key);
    if (signature !== undefined) await writeFileIfChanged(`${path}.minisig`, signature);
  }
  return placed;
}

/** As minisign would sign it, with its name for the comment instead of the time: the same file, the same signature. */
async function signatureOf(path: string, key: SecretKey): Promise<Buffer> {
  const hash = await hashed(path, messageHash());
  return signatureFile(hash, key, { comment: `file:${basename(path)}` });
}

async function removeFile(path: string): Promise<void> {
  try {
    await rm(path, { force: true });
  } catch (error) {
    throw diskError(error, path);
  }
}

async function place(tool: FoundTool, path: string, { signal }: Context): Promise<PlacedTool> {
  const isThere = (await kindOf(path)) === 'file' && (await tool.isIn(path));
  // The signature of what is replaced would only say that something is wrong.
  if (!isThere) await removeFile(`${path}.minisig`);
  const sha256 = isThere ? await sha256Of(path) : await write(tool, path, signal);
  await writeFileIfChanged(`${path}.sha256`, Buffer.from(`${sha256}  ${tool.name}\n`));
  const { size } = await stat(path);
  return { path, digest: `sha256:${sha256}`, size, outcome: isThere ? 'present' : 'written' };
}

/** Beside, fsync, rename. @returns the SHA-256 of what was written */
async function write(tool: FoundTool, path: string, signal: AbortSignal): Promise<string> {
  const temp = besidePath(path);
  const hash = createHash('sha256');
  try {
    const handle = await open(temp, 'wx', 0o644);
    try {
      for await (const chunk of tool.bytes()) {
        throwIfAborted(signal);
        hash.update(chunk);
        await handle.writeFile(chunk);
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    const sha256 = hash.digest('hex');
    if (tool.sha256 !== undefined && tool.sha256 !== sha256) throw changed(tool.name, tool.sha256, sha256);
    await rename(temp, path);
    await syncFolder(dirname(path));
    return sha256;
  } catch (error) {
    await rm(temp, { force: true }).catch(() => {});
    throw diskError(error, path);
  }
}

function changed(path: string, expected: string, found: string): SealiftError {
  return new SealiftError(
    'FILE_CHECKSUM_MISMATCH',
    `${path}: the SHA-256 is ${found}, expected ${expected}`,
    {
      hint: 'the tarball was damaged or changed: get or build it again',
    },
  );
}

async function hashed(path: string, hash: Hash): Promise<Buffer> {
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk);
  } catch (error) {
    throw diskError(error, path);
  }
  return hash.digest();
}

async function sha256Of(path: string): Promise<string> {
  return (await hashed(path, createHash('sha256'))).toString('hex');
}

/** A tarball that is a file. Where `<path>.sha256` is beside it, it must be right; else a gzip must be whole. */
async function named(path: string): Promise<FoundTool> {
  const kind = await kindOf(path);
  if (kind === undefined) {
    throw new SealiftError('FILE_NOT_FOUND', `${path}: no such file`, {
      hint: '--tool names a tarball that `npm run dist` made; --no-tool leaves it out',
    });
  }
  if (kind !== 'file') throw new SealiftError('USAGE', `${path}: is not a file`);
  const sha256 = await sha256Of(path);
  const beside = await readBeside(`${path}.sha256`);
  if (beside !== undefined) {
    const stated = /\b[0-9a-f]{64}\b/i.exec(beside.toString('latin1'))?.[0].toLowerCase();
    if (stated !== sha256) throw changed(path, stated ?? `one in ${path}.sha256`, sha256);
  } else if (/\.t?gz$/.test(path)) await refuseTorn(path);
  const { size } = await stat(path);
  return {
    name: basename(path),
    sha256,
    signature: await readBeside(`${path}.minisig`),
    size,
    bytes: () => createReadStream(path, { highWaterMark: 1024 * 1024 }),
    isIn: async (other) => (await sha256Of(other)) === sha256,
  };
}

/** A gzip ends with a checksum of its own. */
async function refuseTorn(path: string): Promise<void> {
  let bytes = 0;
  try {
    for await (const chunk of gunzipped(path)) {
      bytes += chunk.length;
      if (bytes > LIMITS.toolUnpacked) {
        throw new SealiftError('CONTENT_TOO_LARGE', `${path}: holds more than ${LIMITS.toolUnpacked} bytes`);
      }
    }
  } catch (error) {
    if (error instanceof SealiftError) throw error;
    throw new SealiftError('FILE_CHECKSUM_MISMATCH', `${path}: is not a whole gzip file`, {
      cause: error,
      hint: 'the tarball was damaged or cut off: get or build it again',
    });
  }
}

function gunzipped(path: string): AsyncIterable<Uint8Array> {
  return pipeline(createReadStream(path), createGunzip(), () => {});
}

async function readBeside(path: string): Promise<Buffer | undefined> {
  if ((await kindOf(path)) === undefined) return undefined;
  return readFileLimited(path, { limit: LIMITS.signatureText, missing: 'FILE_NOT_FOUND' });
}

async function ofProgram(program: string): Promise<readonly FoundTool[]> {
  const folder = resolve(program, '../tool');
  const names = (await kindOf(folder)) === 'folder' ? await namesIn(folder) : [];
  const tarballs = names.filter((name) => TARBALL.test(name)).sort();
  if (tarballs.length > 0) return Promise.all(tarballs.map((name) => named(join(folder, name))));
  const root = resolve(program, '../../..');
  // Above a checkout somebody else's folder may look like a tool.
  const own = resolve(root, 'program/dist/program') === resolve(program) ? await unpacked(root) : undefined;
  return own === undefined ? [] : [own];
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    throw diskError(error, folder);
  }
}

/**
 * A tool that runs out of its own tarball cannot hold that tarball, but it makes the same one again out of its files,
 * which are checked on the way.
 */
async function unpacked(root: string): Promise<FoundTool | undefined> {
  const path = join(root, 'tool.json');
  if ((await kindOf(path)) !== 'file') return undefined;
  const name = nameIn(await readFileLimited(path, { limit: LIMITS.toolSums, missing: 'FILE_NOT_FOUND' }));
  if (name === undefined) return undefined;
  // Nobody shall wait for a whole pack to hear that a file of the tool was changed.
  const parts = toolTar(root, { name });
  while ((await parts.next()).done !== true);
  return {
    name: `${name}.tar.gz`,
    sha256: undefined,
    signature: undefined,
    size: await sizeAbout(root),
    bytes: () => toolArchive(root, { name }),
    isIn: (other) => haveSameBytes(gunzipped(other), toolTar(root, { name })),
  };
}

/** Nearly all of a tool is Node, of which gzip leaves less than half. */
async function sizeAbout(root: string): Promise<number> {
  const node = join(root, 'runtime/node');
  return (await kindOf(node)) === 'file' ? Math.ceil((await stat(node)).size / 2) : 0;
}

/** `name` of a tool.json; undefined when it is somebody else's file. */
function nameIn(bytes: Buffer): string | undefined {
  try {
    const document: unknown = JSON.parse(bytes.toString('utf8'));
    if (typeof document !== 'object' || document === null || !('name' in document)) return undefined;
    const { name } = document;
    return typeof name === 'string' && /^sealift-[\w.+-]{1,40}$/.test(name) ? name : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a file that may be anything has the bytes of another source, whose errors count. */
async function haveSameBytes(
  file: AsyncIterable<Uint8Array>,
  wanted: AsyncIterable<Uint8Array>,
): Promise<boolean> {
  const there = file[Symbol.asyncIterator]();
  let rest: Uint8Array = new Uint8Array(0);
  try {
    for await (const chunk of wanted) {
      for (let at = 0; at < chunk.length; ) {
        if (rest.length === 0) {
          const next = await there.next().catch(() => undefined);
          if (next === undefined || next.done === true) return false;
          rest = next.value;
          continue;
        }
        const length = Math.min(rest.length, chunk.length - at);
        if (Buffer.compare(rest.subarray(0, length), chunk.subarray(at, at + length)) !== 0) return false;
        rest = rest.subarray(length);
        at += length;
      }
    }
    const after = rest.length > 0 ? undefined : await there.next().catch(() => undefined);
    return after?.done === true;
  } finally {
    await there.return?.();
  }
}
