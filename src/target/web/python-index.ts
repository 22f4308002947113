import type { Digest } from '../../core/digest.ts';
import type { PackageItem } from '../target.ts';

/** A file that an index has. */
export interface ListedFile {
  readonly fileName: string;
  /** Below the server's base, encoded. */
  readonly path: string;
  readonly sha256: Digest | undefined;
  /** Hex digits, where there is nothing better. */
  readonly md5?: string | undefined;
}

/** An index of Python packages that takes uploads: what Nexus and devpi do in different ways. */
export interface PythonIndex {
  /** For messages: `pypi https://nexus.local/repository/pypi-hosted`. */
  readonly name: string;
  /** Bytes that the server itself takes at most unless it is told otherwise, and what to do then. */
  readonly most?: { readonly bytes: number; readonly hint: string };
  /** Where forms are sent, below the server's base. */
  readonly uploadPath: string;
  /**
   * Proves that it is there and takes uploads, as far as that can be asked.
   * @returns what somebody should know before, for each load
   * @throws TARGET_UNREACHABLE, TARGET_FAILED, AUTH_REQUIRED, AUTH_DENIED
   */
  check(): Promise<readonly string[]>;
  /** Makes what is missing and may be made; called before the first write. */
  prepare(): Promise<void>;
  /** The files of a project that are its own, by their names. @param project normalised */
  files(project: string): Promise<ReadonlyMap<string, ListedFile>>;
  /** The SHA-256 of a file that is there, when its listing does not tell it. */
  digestOf(file: ListedFile, item: PackageItem): Promise<Digest>;
  /** The address that a file will have. */
  urlOf(item: PackageItem, fileName: string): URL;
  /** Takes back what this run has uploaded. */
  remove(files: readonly ListedFile[]): Promise<void>;
}
