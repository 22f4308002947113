import { SealiftError } from '../../core/errors.ts';
import type { Context } from '../../core/events.ts';
import { MIB } from '../../core/limits.ts';
import type { ContentReader } from '../../oci/content.ts';
import type { PackageMetadata } from '../../python/metadata.ts';
import {
  checkPackage,
  type MetadataTap,
  metadataTap,
  readPackageMetadata,
} from '../../python/package-file.ts';
import type { PythonEntry } from './python-plan.ts';
import { type UploadForm, uploadForm } from './upload-form.ts';

/** Blobs up to this pass wholly in memory, and can be read at any place (ops/load-stream.ts). */
const HELD = 4 * MIB;

async function readPart(source: AsyncIterable<Uint8Array>, length: number): Promise<Buffer> {
  const out = Buffer.alloc(length);
  let filled = 0;
  if (length === 0) return out;
  for await (const chunk of source) {
    const part = chunk.subarray(0, length - filled);
    out.set(part, filled);
    filled += part.length;
    if (filled === length) break;
  }
  return out.subarray(0, filled);
}

/**
 * What a file says of itself, when it agrees with its name and the lock.
 * @throws PACKAGE_INVALID; faults of the bundle where it is that which is damaged
 */
export async function packageMetadata(
  { item, fileName }: PythonEntry,
  from: { readonly source: ContentReader; readonly signal: AbortSignal },
): Promise<PackageMetadata | undefined> {
  const { source, signal } = from;
  const { size } = item.content;
  const open = (offset = 0): AsyncIterable<Uint8Array> => source.open(item.content, { signal, offset });
  try {
    const read = (at: number, length: number): Promise<Buffer> => readPart(open(at), length);
    const metadata = await readPackageMetadata({ size, open, read }, fileName);
    checkPackage(fileName, { ...item, metadata });
    return metadata;
  } catch (error) {
    // Parts are not verified by themselves: it is the package's fault only if these are its bytes.
    if (error instanceof SealiftError && error.code === 'PACKAGE_INVALID') for await (const _ of open());
    throw error;
  }
}

/** Passes chunks to whoever reads metadata out of them, and tells how far it is. */
async function* told(
  bytes: AsyncIterable<Uint8Array>,
  about: { readonly tap?: MetadataTap | undefined; readonly id: string; readonly context: Context },
): AsyncGenerator<Uint8Array> {
  const { tap, id, context } = about;
  let isWhole = false;
  try {
    for await (const chunk of bytes) {
      await tap?.feed(chunk);
      yield chunk;
      context.emit({ type: 'progress', id, bytes: chunk.length });
    }
    isWhole = true;
  } finally {
    if (!isWhole) tap?.close();
  }
}

/**
 * The form for a file. Where it can be read at any place, what it says of itself stands in front; of a large one that
 * passes once it follows its bytes.
 * @throws as `packageMetadata`
 */
export async function packageForm(
  entry: PythonEntry,
  from: { readonly source: ContentReader; readonly isPassing: boolean; readonly context: Context },
): Promise<UploadForm> {
  const { item, fileName } = entry;
  const { source, isPassing, context } = from;
  const { signal } = context;
  const about = { id: entry.as, context };
  if (!isPassing || item.content.size <= HELD) {
    const metadata = await packageMetadata(entry, { source, signal });
    const open = (): AsyncIterable<Uint8Array> => told(source.open(item.content, { signal }), about);
    return uploadForm(item, { fileName, metadata, open });
  }
  let tap: MetadataTap | undefined;
  return uploadForm(item, {
    fileName,
    metadata: undefined,
    open: () => {
      tap?.close();
      tap = metadataTap(fileName, item.content.size);
      return told(source.open(item.content, { signal }), { ...about, tap });
    },
    late: async () => {
      const metadata = await tap?.end();
      // The form has not come to its end: what is refused here never arrives.
      checkPackage(fileName, { ...item, metadata });
      return metadata;
    },
  });
}
