import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { isFileOf, normalizeProject, versionKey } from '../core/distribution.ts';
import { MIB } from '../core/limits.ts';
import { invalidPackage, type PackageMetadata, parseMetadata } from './metadata.ts';
import { readTarGzEntry } from './sdist-entry.ts';
import type { SeekableBlob } from './zip-entries.ts';

/** A package file that can be read at any place, and from its start. */
export interface PackageBlob extends SeekableBlob {
  open(): AsyncIterable<Uint8Array>;
}

/** Where a package says what it is: PEP 427 `{name}-{version}.dist-info/METADATA`, PEP 625 `{name}-{version}/PKG-INFO`. */
function isMetadataOf(fileName: string): (name: string) => boolean {
  const form = fileName.endsWith('.whl')
    ? /^[^/]{1,255}\.dist-info\/METADATA$/
    : /^(?:\.\/)?[^/]{1,255}\/PKG-INFO$/;
  return (name) => form.test(name);
}

function parsed(bytes: Buffer | undefined, fileName: string): PackageMetadata | undefined {
  if (bytes !== undefined) return parseMetadata(bytes, fileName);
  if (!fileName.endsWith('.whl')) return undefined;
  throw invalidPackage(fileName, 'no .dist-info/METADATA in it, so it is no wheel');
}

/** Its reader is loaded with the first zip. */
async function fromZip(blob: SeekableBlob, fileName: string): Promise<PackageMetadata | undefined> {
  const { readZipEntry } = await import('./zip-entries.ts');
  const bytes = await readZipEntry(blob, { what: fileName, isWanted: isMetadataOf(fileName) });
  return parsed(bytes, fileName);
}

async function fromTar(
  source: AsyncIterable<Uint8Array>,
  fileName: string,
): Promise<PackageMetadata | undefined> {
  const bytes = await readTarGzEntry(source, { what: fileName, isWanted: isMetadataOf(fileName) });
  return parsed(bytes, fileName);
}

/**
 * What a wheel or source archive says of itself; undefined for an old source archive without PKG-INFO.
 * @throws PACKAGE_INVALID, and what reading the blob throws
 */
export function readPackageMetadata(
  blob: PackageBlob,
  fileName: string,
): Promise<PackageMetadata | undefined> {
  return fileName.endsWith('.tar.gz') ? fromTar(blob.open(), fileName) : fromZip(blob, fileName);
}

/** The end of a zip that is kept while it passes: what it holds, and in wheels the metadata before that (PEP 427). */
const TAIL = 4 * MIB;

/** Reads the metadata of a file that passes once: give it each chunk, then ask. */
export interface MetadataTap {
  feed(chunk: Uint8Array): Promise<void>;
  /** @returns undefined where it cannot be known from one passage @throws PACKAGE_INVALID */
  end(): Promise<PackageMetadata | undefined>;
  /** Ends it where the file did not come to its end. */
  close(): void;
}

class Passed extends Error {}

function zipTap(fileName: string, size: number): MetadataTap {
  const from = Math.max(0, size - TAIL);
  const tail = Buffer.alloc(size - from);
  let position = 0;
  const read = async (at: number, length: number): Promise<Buffer> => {
    if (at < from) throw new Passed();
    return tail.subarray(at - from, at - from + length);
  };
  return {
    async feed(chunk) {
      const skip = Math.max(0, from - position);
      if (skip < chunk.length) tail.set(chunk.subarray(skip), position + skip - from);
      position += chunk.length;
    },
    async end() {
      try {
        // Blocks begin at multiples of their size; the first that is kept wholly counts.
        return await fromZip({ size, read }, fileName);
      } catch (error) {
        if (error instanceof Passed) return undefined;
        throw error;
      }
    },
    close() {},
  };
}

function tarTap(fileName: string): MetadataTap {
  const way = new PassThrough({ highWaterMark: MIB });
  way.on('error', () => {});
  let isOver = false;
  const found = fromTar(way, fileName).finally(() => {
    isOver = true;
    way.destroy();
  });
  found.catch(() => {}); // It is asked for at the end.
  return {
    async feed(chunk) {
      if (isOver || way.write(Buffer.from(chunk))) return;
      await Promise.race([once(way, 'drain').catch(() => {}), found.catch(() => {})]);
    },
    async end() {
      if (!isOver) way.end();
      return found;
    },
    close() {
      way.destroy();
    },
  };
}

export function metadataTap(fileName: string, size: number): MetadataTap {
  return fileName.endsWith('.tar.gz') ? tarTap(fileName) : zipTap(fileName, size);
}

/**
 * Refuses a file whose name, metadata and lock are not of the same project and version: an index files it by the one, and
 * pip looks for the other.
 * @throws PACKAGE_INVALID
 */
export function checkPackage(
  fileName: string,
  about: {
    readonly project: string;
    readonly version: string;
    readonly metadata?: PackageMetadata | undefined;
  },
): void {
  const { project, version, metadata } = about;
  if (!isFileOf(fileName, { name: project, version })) {
    throw invalidPackage(fileName, `not the name of a file of ${project} ${version}`);
  }
  if (metadata === undefined) return;
  if (normalizeProject(metadata.name) === project && versionKey(metadata.version) === versionKey(version))
    return;
  const says = `${metadata.name.slice(0, 200)} ${metadata.version.slice(0, 200)}`;
  throw invalidPackage(fileName, `it is to be ${project} ${version}, its metadata says ${says}`);
}
