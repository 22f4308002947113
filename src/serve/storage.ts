import type { Digest } from '../core/digest.ts';
import type { Body, Span } from './answer.ts';

/** A blob on its way in. Whoever writes it also hashes it: storage moves bytes and proves nothing. */
export interface Incoming {
  /** Appends bytes, in order; resolves when the next may come. */
  write(chunk: Uint8Array): Promise<void>;
  /** Makes the blob visible under its digest, at once and whole. Nothing may be written afterwards. */
  commit(digest: Digest): Promise<void>;
  /** Forgets the bytes. Harmless after `commit`. */
  discard(): Promise<void>;
}

/**
 * Where a registry keeps its content: blobs by digest, and small text documents in folders (links, tags).
 * Blobs are shared by all repositories; which repository may show one is said by documents alone.
 * Folder and document names are path segments that were validated before; an implementation refuses any other.
 */
export interface Storage {
  /** The size of a blob in bytes, or undefined when there is none. */
  blobSize(digest: Digest): Promise<number | undefined>;
  /** @throws CONTENT_NOT_FOUND */
  openBlob(digest: Digest, span: Span): Promise<Body>;
  receive(): Promise<Incoming>;

  readDocument(folder: string, name: string): Promise<string | undefined>;
  /** Replaces the document at once or not at all. */
  writeDocument(folder: string, name: string, options: { readonly text: string }): Promise<void>;
  /** Returns whether there was one. */
  removeDocument(folder: string, name: string): Promise<boolean>;
  /** Names of the documents in a folder, sorted by code unit; none when there is no such folder. */
  listDocuments(folder: string): Promise<string[]>;
  /** Names of the folders in a folder, sorted by code unit. */
  listFolders(folder: string): Promise<string[]>;
}

const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$/;

/** Whether a folder path or name is made of harmless segments only: no `..`, no leading dot, no separator of any system. */
export function isSafePath(path: string): boolean {
  return path.split('/').every((segment) => SEGMENT.test(segment));
}
