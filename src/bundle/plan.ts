import { createHash } from 'node:crypto';
import { ANNOTATION, type Descriptor } from '../core/descriptor.ts';
import { type Digest, digestOfHex, EMPTY_DIGEST, hexOf } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { SealiftError } from '../core/errors.ts';
import { KIB } from '../core/limits.ts';
import { NumberList } from '../core/number-list.ts';
import { mapSequence, PackedList, type Sequence } from '../core/packed-list.ts';
import { TAR_END, tarHeader, tarHeaderLength, tarPadding } from '../io/tar.ts';
import type { Lock } from '../lock/schema.ts';
import { lockPieces } from '../lock/write.ts';
import type { Graph, NodeKind } from '../oci/graph.ts';
import { blobName, EntryList, type FoundEntry, type HashList } from './entries.ts';

/** Format that this program writes, and the lowest that reads it. */
export const FORMAT_VERSION = 1;

/** The entries before the blobs, in order. */
export const DOCUMENTS: readonly string[] = [
  'oci-layout',
  'index.json',
  'versions.lock',
  'sealift.json',
  'SHA256SUMS',
];
/** The whole of the entry `oci-layout`. */
export const OCI_LAYOUT: Buffer = Buffer.from('{"imageLayoutVersion":"1.0.0"}\n');
/** How every bundle in one file begins, byte for byte. */
export const FIRST_ENTRY: Buffer = Buffer.concat([tarHeader('oci-layout', OCI_LAYOUT.length), OCI_LAYOUT]);
export const B3SUMS = 'B3SUMS';
export const SIGNATURE = 'B3SUMS.minisig';

/** What a bundle carries under one name: an image, a chart, a file or what is about an image, with everything below it. */
export interface Artifact {
  readonly kind: 'image' | 'chart' | 'file' | 'referrer';
  /** The name in the lock: an image's name, `chart-1.2.3`, a file's name; of a referrer its image and its digest. */
  readonly name: string;
  readonly root: Descriptor;
  readonly graph: Graph;
}

export type EntryKind = 'document' | 'manifest' | 'config' | 'blob' | 'sums';

/** What stands in a document: known before anything is downloaded, and made anew each time that it is read. */
export interface DocumentText {
  readonly digest: Digest;
  pieces(): Iterable<Buffer>;
}

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
  /** Where the manifests and indexes end, which are the first of them. */
  readonly manifestsEnd: number;
  /** Bytes of the unsigned tar. */
  readonly size: number;
  /** Changes when anything in the plan does. */
  readonly id: Digest;
}

const RANK: Readonly<Record<NodeKind, number>> = { index: 0, manifest: 0, config: 1, blob: 2 };

/** What `index.json` says of one artifact. */
type NamedRoot = Pick<Artifact, 'kind' | 'name'> & { readonly root: Descriptor };

/** What the artifacts of a bundle say about its shape, gathered one by one: they themselves need not be kept. */
export class Contents {
  /** Every blob once. */
  readonly digests: DigestTable;
  /** By the number of the digest: bytes, and one more than its rank; 0 where it is none of these blobs. */
  readonly #sizes = new NumberList('float64');
  readonly #ranks = new NumberList('int32');
  readonly #roots = new PackedList<NamedRoot>();
  /** Blobs about whose size two manifests disagree, as a message. */
  readonly #disputes: string[] = [];

  /** @param digests where the digests are put: a list of entries may have most of them already */
  constructor(digests = new DigestTable()) {
    this.digests = digests;
  }

  add({ kind, name, root, graph }: Artifact): void {
    const { mediaType, digest, size } = root;
    this.#roots.push({ kind, name, root: { mediaType, digest, size } });
    for (const node of graph.nodes.values()) this.#addBlob(node.descriptor, RANK[node.kind]);
  }

  #addBlob({ digest, size }: Descriptor, rank: number): void {
    const id = this.digests.add(digest);
    const known = this.#ranks.at(id);
    if (known === 0) {
      this.#sizes.set(id, size);
      this.#ranks.set(id, rank + 1);
      return;
    }
    const other = this.#sizes.at(id);
    if (other !== size) {
      const [less, more] = [Math.min(other, size), Math.max(other, size)];
      this.#disputes.push(`${digest} is said to have ${less} and ${more} bytes`);
    }
    this.#ranks.set(id, Math.min(known, rank + 1));
  }

  /** What `index.json` names, in bundle order: images, charts, files, referrers, each by name. */
  roots(): Sequence<NamedRoot> {
    const names = Array.from(this.#roots, ({ kind, name }, at) => ({ kind, name, at }));
    const places = sortArtifacts(names).map(({ at }) => at);
    // Each place is one of the list's own.
    return mapSequence(places, (at) => this.#roots.at(at) as NamedRoot);
  }

  /**
   * The numbers of every blob in tar order: manifests and indexes, configs, all others, each by hex; and how many of them
   * are of the first kind, and of the first two.
   * @throws OCI_MANIFEST_INVALID when two manifests disagree about a blob's size
   */
  order(): { readonly ids: Uint32Array; readonly manifests: number; readonly documents: number } {
    const [dispute] = this.#disputes.sort();
    if (dispute !== undefined) throw new SealiftError('OCI_MANIFEST_INVALID', dispute);
    const ranks = this.#ranks;
    const ids = new Uint32Array(this.digests.size).map((_, id) => id).filter((id) => ranks.at(id) > 0);
    ids.sort((a, b) => ranks.at(a) - ranks.at(b) || this.digests.compare(a, b));
    const below = (rank: number): number => ids.reduce((sum, id) => sum + (ranks.at(id) <= rank ? 1 : 0), 0);
    return { ids, manifests: below(RANK.config), documents: below(RANK.blob) };
  }

  sizeOf(id: number): number {
    return this.#sizes.at(id);
  }
}

/** What artifacts that are all there say. */
export function contentsOf(artifacts: Iterable<Artifact>): Contents {
  const contents = new Contents();
  for (const artifact of artifacts) contents.add(artifact);
  return contents;
}

/** Bytes that are made at once of a text that may be long. */
const PIECE = 64 * KIB;

/** A text in pieces that are worth a call each. */
function* inPieces(parts: Iterable<string>): Generator<Buffer> {
  let text = '';
  for (const part of parts) {
    text += part;
    if (text.length < PIECE) continue;
    yield Buffer.from(text);
    text = '';
  }
  if (text !== '') yield Buffer.from(text);
}

/** `index.json`: images under their full name (so that skopeo and ctr find them), everything else under `dev.sealift.name`. */
function* indexJson(roots: Sequence<NamedRoot>): Generator<string> {
  yield '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[';
  let separator = '';
  for (const { kind, name, root } of roots) {
    const annotations =
      kind === 'image'
        ? { [ANNOTATION.containerdName]: name, [ANNOTATION.refName]: name }
        : { [ANNOTATION.sealiftName]: name };
    yield `${separator}${JSON.stringify({ ...root, annotations })}`;
    separator = ',';
  }
  yield ']}\n';
}

/** A document before it has its place. */
interface Document {
  readonly name: string;
  readonly size: number;
  readonly text: DocumentText;
}

function document(name: string, pieces: () => Iterable<Buffer>): Document {
  const hash = createHash('sha256');
  let size = 0;
  for (const piece of pieces()) {
    hash.update(piece);
    size += piece.length;
  }
  return { name, size, text: { digest: digestOfHex(hash.digest('hex')), pieces } };
}

/** `sealift.json`, fixed keys and widths: `size` has 16 digits, so that it can state the length of the file that it is in. */
function sealiftJson(lock: Lock, facts: { lock: Digest; size: number; entries: number }): Buffer {
  const body = {
    formatVersion: FORMAT_VERSION,
    minReader: FORMAT_VERSION,
    name: lock.name,
    version: lock.version,
    lock: facts.lock,
    size: String(facts.size).padStart(16, '0'),
    entries: facts.entries,
    base: null,
  };
  return Buffer.from(`${JSON.stringify(body, null, 2)}\n`);
}

/** The artifacts in bundle order: images, charts, files, referrers, each by name. */
function sortArtifacts<T extends Pick<Artifact, 'kind' | 'name'>>(artifacts: readonly T[]): T[] {
  const rank = { image: 0, chart: 1, file: 2, referrer: 3 };
  return [...artifacts].sort(
    (a, b) => rank[a.kind] - rank[b.kind] || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
}

/** A line of `B3SUMS` or `SHA256SUMS`: 64 hex digits, two spaces, the name, a line feed. */
function sumLine(hex: string, name: string): string {
  return `${hex}  ${name}\n`;
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
  ids: Uint32Array,
): {
  readonly listed: readonly Document[];
  readonly sums: number;
  readonly b3sums: number;
  readonly size: number;
} {
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
  const facts = { lock: lock.digest, entries: DOCUMENTS.length + ids.length + 1 };
  const about = (size: number): Document =>
    document('sealift.json', () => [sealiftJson(lock.value, { ...facts, size })]);
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
  order: ReturnType<Contents['order']>,
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
 * the graphs that the lock names (design, "The bundle").
 * @throws OCI_MANIFEST_INVALID when two manifests disagree about a blob's size
 */
export function planBundle(lock: PlannedLock, contents: Contents): BundlePlan {
  const order = contents.order();
  const { ids } = order;
  const { listed, sums, b3sums, size } = documentsOf(lock, contents, ids);
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
  return { entries, blobs: ids.length, manifestsEnd, size, id: identityOf(entries) };
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
