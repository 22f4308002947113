import { type Digest, EMPTY_DIGEST, hexOf } from '../core/digest.ts';
import type { DigestTable } from '../core/digest-table.ts';
import { SealiftError } from '../core/errors.ts';
import { TAR_END, tarHeaderLength, tarPadding } from '../io/tar.ts';
import type { Lock } from '../lock/schema.ts';
import { lockPieces } from '../lock/write.ts';
import type { Base, Contents, Order } from './contents.ts';
import { blobName, EntryList, type FoundEntry, type HashList } from './entries.ts';
import { B3SUMS, DOCUMENTS, OCI_LAYOUT } from './names.ts';
import {
  type Document,
  type DocumentText,
  document,
  indexJson,
  inPieces,
  sealiftJson,
  sumLine,
} from './texts.ts';

export type EntryKind = 'document' | 'manifest' | 'config' | 'blob' | 'sums';

/** One entry of the archive and where its content lies: in the tar the header lies before it. */
export interface PlannedEntry extends FoundEntry {
  readonly kind: EntryKind;
  /** Its place in the order of the archive. */
  readonly index: number;
  /** Of blobs. */
  readonly digest?: Digest;
  /** Of documents. */
  readonly text?: DocumentText;
}

/** The whole shape of a bundle, computed from the lock and the manifests that it names. */
export interface BundlePlan {
  readonly entries: EntryList<PlannedEntry>;
  /** Number of the blobs among the entries. */
  readonly blobs: number;
  /** What a delta leaves out. */
  readonly leftOut: { readonly blobs: number; readonly bytes: number };
  /** Where the manifests and indexes end, which are the first of them. */
  readonly manifestsEnd: number;
  /** Bytes of the unsigned tar. */
  readonly size: number;
  /** Changes when anything in the plan does. */
  readonly id: Digest;
}

const BLOB_LINE = sumLine(hexOf(EMPTY_DIGEST), blobName(EMPTY_DIGEST)).length;

/** Bytes of a list of the documents of these names and so many blobs. */
function listSize(names: readonly string[], blobs: number): number {
  return names.reduce((sum, name) => sum + sumLine('', name).length + 64, blobs * BLOB_LINE);
}

/** Bytes of an entry in the tar. */
function span(size: number): number {
  return tarHeaderLength(size) + size + tarPadding(size);
}

/** A lock that was read, and the digest and the size of its bytes: those are made anew where they are needed. */
export interface PlannedLock {
  readonly value: Lock;
  readonly digest: Digest;
  readonly size: number;
}

/** The documents but SHA256SUMS, which lists them; and how long both lists and the whole are. */
function documentsOf(
  lock: PlannedLock,
  contents: Contents,
  how: { readonly order: Order; readonly base: Base | undefined },
): {
  readonly listed: readonly Document[];
  readonly sums: number;
  readonly b3sums: number;
  readonly size: number;
} {
  const { ids, left } = how.order;
  const roots = contents.roots();
  const first = [
    document('oci-layout', () => [OCI_LAYOUT]),
    document('index.json', () => inPieces(indexJson(roots))),
    {
      name: 'versions.lock',
      size: lock.size,
      text: { digest: lock.digest, pieces: () => lockPieces(lock.value) },
    },
  ];
  const leftOut = function* (): Generator<{ digest: Digest; size: number }> {
    for (const id of left) yield { digest: contents.digests.at(id), size: contents.sizeOf(id) };
  };
  const base = how.base === undefined ? undefined : { of: how.base.of, leftOut };
  const facts = { lock: lock.digest, entries: DOCUMENTS.length + ids.length + 1, base };
  const about = (size: number): Document =>
    document('sealift.json', () => inPieces(sealiftJson(lock.value, { ...facts, size })));
  // What has a fixed width has its length before its content is known.
  const unknown = about(0);
  const sums = listSize(DOCUMENTS.slice(0, -1), ids.length);
  const b3sums = listSize(DOCUMENTS, ids.length);
  const sizes = [...first.map((d) => d.size), unknown.size, sums, b3sums];
  let size = sizes.reduce((sum, each) => sum + span(each), TAR_END);
  for (const id of ids) size += span(contents.sizeOf(id));
  return { listed: [...first, about(size)], sums, b3sums, size };
}

/** Makes planned entries of what the list keeps. */
function planned(
  order: Order,
  about: { readonly texts: readonly DocumentText[]; readonly digests: DigestTable },
): EntryList<PlannedEntry> {
  const kindAt = (blob: number): EntryKind =>
    blob < order.manifests ? 'manifest' : blob < order.documents ? 'config' : 'blob';
  const make = ({ name, size, offset }: FoundEntry, index: number, digest?: Digest): PlannedEntry => {
    if (digest !== undefined) {
      return { name, kind: kindAt(index - DOCUMENTS.length), size, offset, index, digest };
    }
    const text = about.texts[index];
    return text === undefined
      ? { name, kind: 'sums', size, offset, index }
      : { name, kind: 'document', size, offset, index, text };
  };
  return new EntryList(make, about.digests);
}

/**
 * Lays out a bundle: every entry's place is known before the first layer is fetched. A pure function of the lock and of
 * the graphs that the lock names (design, "The bundle"); and, of a delta, of what it builds on.
 * @throws OCI_MANIFEST_INVALID when two manifests disagree about a blob's size
 */
export function planBundle(lock: PlannedLock, contents: Contents, base?: Base): BundlePlan {
  const order = contents.order(base);
  const { ids, left } = order;
  const { listed, sums, b3sums, size } = documentsOf(lock, contents, { order, base });
  const texts = listed.map((d) => d.text);
  const entries = planned(order, { texts, digests: contents.digests });
  let at = 0;
  const place = (name: string, bytes: number): void => {
    entries.push({ name, size: bytes, offset: at + tarHeaderLength(bytes) });
    at += span(bytes);
  };
  for (const d of listed) place(d.name, d.size);
  place('SHA256SUMS', sums);
  for (const id of ids) place(blobName(contents.digests.at(id)), contents.sizeOf(id));
  place(B3SUMS, b3sums);
  const lines = function* (): Generator<string> {
    for (const { name, text, digest } of entries) {
      const listedBy = text?.digest ?? digest;
      if (name !== 'SHA256SUMS' && listedBy !== undefined) yield sumLine(hexOf(listedBy), name);
    }
  };
  texts.push(document('SHA256SUMS', () => inPieces(lines())).text);
  const manifestsEnd = DOCUMENTS.length + order.manifests;
  const leftOut = { blobs: left.length, bytes: left.reduce((sum, id) => sum + contents.sizeOf(id), 0) };
  return { entries, blobs: ids.length, leftOut, manifestsEnd, size, id: identityOf(entries) };
}

function identityOf(entries: EntryList<PlannedEntry>): Digest {
  const lines = function* (): Generator<string> {
    for (const { text, size, name } of entries) yield `${text?.digest ?? size} ${name}\n`;
  };
  return document('', () => inPieces(lines())).text.digest;
}

/** The text of `B3SUMS` for a plan whose hashes are all known. @throws INTERNAL where one is not */
export function b3sumsText(plan: BundlePlan, hashes: HashList): Iterable<Buffer> {
  const lines = function* (): Generator<string> {
    for (const { name, index } of plan.entries) {
      if (name === B3SUMS) continue;
      const hash = hashes.at(index);
      if (hash === undefined) throw new SealiftError('INTERNAL', `no BLAKE3 of ${name}`);
      yield sumLine(hash, name);
    }
  };
  return inPieces(lines());
}
