import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { diskError, readFileLimited, readRange } from '../io/files.ts';
import { gzipSteady } from '../io/gzip-steady.ts';
import { TAR_BLOCK, TAR_END, tarHeader, tarPadding } from '../io/tar.ts';

/** The list of checksums in a folder of the tool: `sha256sum -c` reads it, and it decides what the archive holds. */
const SUMS = 'SHA256SUMS';
/** Names in the archive are `<tool>/<path>`, and ustar cuts them in two where they are long. */
const MAX_PATH = 150;
/** What runs; all else is read. */
const EXECUTABLE: ReadonlySet<string> = new Set(['sealift', 'runtime/node']);

interface Listed {
  readonly path: string;
  readonly sha256: string;
}

/**
 * Streams `<name>.tar.gz` out of a folder of the tool: what its SHA256SUMS names and that list itself, in the order of
 * their names, with time and owner 0. The same files give the same bytes on every machine. Whoever makes the tool calls
 * it (`npm run dist`), and so does a tool that makes itself again out of what was unpacked.
 * @param options.name the one folder in the archive: `sealift-0.1.0-linux-x64`
 * @throws FILE_CHECKSUM_MISMATCH when a file is not what the list says, FILE_NOT_FOUND
 */
export function toolArchive(root: string, options: { readonly name: string }): AsyncGenerator<Uint8Array> {
  return gzipSteady(toolTar(root, options));
}

/** The same without compression: two archives with equal bytes here hold the same tool. */
export async function* toolTar(
  root: string,
  { name }: { readonly name: string },
): AsyncGenerator<Uint8Array> {
  const list = await readFileLimited(join(root, SUMS), { limit: LIMITS.toolSums, missing: 'FILE_NOT_FOUND' });
  const own = { path: SUMS, sha256: createHash('sha256').update(list).digest('hex') };
  const files = [...readSums(list.toString('latin1')), own].sort((a, b) => (a.path < b.path ? -1 : 1));
  for (const file of files) yield* entry(file, { root, name });
  yield Buffer.alloc(TAR_END);
}

function readSums(text: string): Listed[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, sha256, path] = /^([0-9a-f]{64}) {2}([\x21-\x7e]+)$/.exec(line) ?? [];
      const isInside = path !== undefined && path.length <= MAX_PATH && !path.startsWith('/');
      if (sha256 === undefined || !isInside || path.split('/').includes('..')) {
        throw new SealiftError('FILE_CHECKSUM_MISMATCH', `${SUMS}: not a line of a tool's list: ${line}`);
      }
      return { path, sha256 };
    });
}

async function* entry(
  file: Listed,
  { root, name }: { readonly root: string; readonly name: string },
): AsyncGenerator<Uint8Array> {
  const path = join(root, file.path);
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    throw diskError(error, path);
  }
  try {
    const { size } = await handle.stat();
    yield toolHeader(`${name}/${file.path}`, { size, mode: EXECUTABLE.has(file.path) ? 0o755 : 0o644 });
    const hash = createHash('sha256');
    let read = 0;
    for await (const chunk of readRange(handle, { position: 0, length: size })) {
      hash.update(chunk);
      read += chunk.length;
      yield chunk;
    }
    if (read !== size || hash.digest('hex') !== file.sha256) {
      throw new SealiftError('FILE_CHECKSUM_MISMATCH', `${path}: not the bytes that ${SUMS} states`, {
        hint: `unpack the tool again, and check it: \`sha256sum -c ${SUMS}\``,
      });
    }
    yield Buffer.alloc(tarPadding(size));
  } finally {
    await handle.close();
  }
}

/** The bundle's own encoding with a mode, and with ustar's prefix where a name is longer than 100 bytes. */
function toolHeader(name: string, { size, mode }: { readonly size: number; readonly mode: number }): Buffer {
  const cut = name.length > 100 ? name.indexOf('/', name.length - 101) : -1;
  const header = tarHeader(name.slice(cut + 1), size);
  header.write(mode.toString(8).padStart(7, '0'), 100, 'latin1');
  if (cut > 0) header.write(name.slice(0, cut), 345, 'latin1');
  header.write('        ', 148, 'latin1');
  const sum = header.subarray(0, TAR_BLOCK).reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}
