import { createReadStream } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { diskError, errnoOf } from '../io/files.ts';
import type { HttpClient } from '../io/http.ts';
import { withoutQuery } from '../io/redirect.ts';
import { digestStream } from '../io/verify.ts';
import { downloadUrl, type HostAccess } from './download.ts';

/** Where a file comes from. `path` is relative to the manifest's folder `root`. */
export type FileSource = { readonly url: string } | { readonly path: string };

/** One file of a wanted entry: a folder gives many. */
export interface FoundFile {
  /** Below the entry: '' for a single file, `sub/name` inside a folder. */
  readonly below: string;
  /** Relative to the manifest's folder, with `/`. */
  readonly path: string;
}

/**
 * The files of a `path` entry, sorted: itself, or all below a folder. Links and special files are refused, because what
 * they stand for may change without the lock knowing.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE
 */
export async function listFiles(root: string, path: string): Promise<FoundFile[]> {
  const found: FoundFile[] = [];
  const walk = async (below: string): Promise<void> => {
    const at = below === '' ? path : `${path}/${below}`;
    const absolute = join(root, at);
    let s: Awaited<ReturnType<typeof lstat>>;
    try {
      s = await lstat(absolute);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw diskError(error, absolute);
      throw new SealiftError('FILE_NOT_FOUND', `${at}: no such file or folder`, {
        hint: 'the path is relative to the folder of sealift.yaml',
      });
    }
    if (s.isFile()) found.push({ below, path: at });
    else if (s.isDirectory()) {
      for (const name of (await readdir(absolute)).sort())
        await walk(below === '' ? name : `${below}/${name}`);
    } else {
      throw new SealiftError('FILE_UNREADABLE', `${at}: neither a file nor a folder`, {
        hint: 'links and special files are not carried; put the file itself there',
      });
    }
  };
  await walk('');
  return found;
}

/** Streams a file's bytes from `offset`, unverified. @throws FILE_NOT_FOUND, CONTENT_NOT_FOUND, NETWORK_FAILED */
export async function* openFile(
  source: FileSource,
  options: {
    readonly root: string;
    readonly http: HttpClient;
    readonly context: Context;
    readonly registries?: HostAccess;
    readonly offset?: number;
    readonly size?: number;
  },
): AsyncGenerator<Buffer> {
  if ('url' in source) {
    const { root: _, ...rest } = options;
    yield* downloadUrl(source.url, rest);
    return;
  }
  yield* openLocal(source.path, options);
}

/** Streams a file of this disk from `offset`. @throws FILE_NOT_FOUND, FILE_UNREADABLE */
export async function* openLocal(
  path: string,
  options: { readonly root: string; readonly offset?: number },
): AsyncGenerator<Buffer> {
  const absolute = join(options.root, path);
  try {
    yield* createReadStream(absolute, { start: options.offset ?? 0, highWaterMark: 1024 * 1024 });
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw diskError(error, absolute);
    throw new SealiftError('FILE_NOT_FOUND', `${path}: no such file`, { cause: error });
  }
}

/**
 * Reads a file once: its digest and size.
 * @throws FILE_CHECKSUM_MISMATCH when the manifest says another SHA-256
 */
export async function resolveFile(
  source: FileSource,
  options: {
    readonly root: string;
    readonly http: HttpClient;
    readonly context: Context;
    readonly registries?: HostAccess;
    readonly expected?: Digest;
  },
): Promise<{ readonly digest: Digest; readonly size: number }> {
  const { expected, ...open } = options;
  const found = await digestStream(openFile(source, open));
  if (expected !== undefined && expected !== found.digest) {
    const what = 'url' in source ? withoutQuery(source.url) : source.path;
    throw new SealiftError('FILE_CHECKSUM_MISMATCH', `${what}: expected ${expected}, found ${found.digest}`, {
      hint: 'the publisher changed the file, or sha256 in sealift.yaml is wrong: compare with the checksum they publish',
      details: { expected, found: found.digest },
    });
  }
  return found;
}
