import { ANNOTATION, type Descriptor } from '../core/descriptor.ts';
import { type Digest, hexOf } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { TAR_END, tarHeader, tarHeaderLength, tarPadding } from '../io/tar.ts';
import { digestOf } from '../io/verify.ts';
import type { Lock } from '../lock/schema.ts';
import type { Graph, NodeKind } from '../oci/graph.ts';

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

/** One entry of the archive and where its content lies. Offsets and sizes in bytes. */
export interface PlannedEntry {
  readonly name: string;
  readonly kind: EntryKind;
  readonly size: number;
  /** Of the content in the tar; the header lies before it. */
  readonly offset: number;
  /** Of blobs. */
  readonly digest?: Digest;
  /** Of documents: known before anything is downloaded. */
  readonly bytes?: Buffer;
}

/** The whole shape of a bundle, computed from the lock and the manifests that it names. */
export interface BundlePlan {
  readonly entries: readonly PlannedEntry[];
  readonly blobs: ReadonlyMap<Digest, PlannedEntry>;
  /** Bytes of the unsigned tar. */
  readonly size: number;
  /** Changes when anything in the plan does. */
  readonly id: Digest;
}

/** The entry name of a blob. */
export function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

const RANK: Readonly<Record<NodeKind, number>> = { index: 0, manifest: 0, config: 1, blob: 2 };

/** Every blob once, in tar order: manifests and indexes, configs, all others, each by hex. */
function orderedBlobs(
  artifacts: readonly Artifact[],
): { readonly descriptor: Descriptor; readonly rank: number }[] {
  const blobs = new Map<Digest, { descriptor: Descriptor; rank: number }>();
  for (const { graph } of artifacts) {
    for (const { descriptor, kind } of graph.nodes.values()) {
      const known = blobs.get(descriptor.digest);
      const rank = RANK[kind];
      if (known === undefined) blobs.set(descriptor.digest, { descriptor, rank });
      else {
        if (known.descriptor.size !== descriptor.size) {
          throw new SealiftError(
            'OCI_MANIFEST_INVALID',
            `${descriptor.digest} is said to have ${known.descriptor.size} and ${descriptor.size} bytes`,
          );
        }
        known.rank = Math.min(known.rank, rank);
      }
    }
  }
  return [...blobs.values()].sort(
    (a, b) => a.rank - b.rank || (a.descriptor.digest < b.descriptor.digest ? -1 : 1),
  );
}

/** `index.json`: images under their full name (so that skopeo and ctr find them), everything else under `dev.sealift.name`. */
function indexJson(artifacts: readonly Artifact[]): Buffer {
  const manifests = artifacts.map(({ kind, name, root }) => ({
    mediaType: root.mediaType,
    digest: root.digest,
    size: root.size,
    annotations:
      kind === 'image'
        ? { [ANNOTATION.containerdName]: name, [ANNOTATION.refName]: name }
        : { [ANNOTATION.sealiftName]: name },
  }));
  return Buffer.from(
    `${JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests })}\n`,
  );
}

interface Sized {
  readonly name: string;
  readonly kind: EntryKind;
  readonly size: number;
  readonly digest?: Digest;
  readonly bytes?: Buffer;
}

function place(sized: readonly Sized[]): { readonly entries: PlannedEntry[]; readonly size: number } {
  let at = 0;
  const entries = sized.map(({ name, kind, size, digest, bytes }): PlannedEntry => {
    const offset = at + tarHeaderLength(size);
    at = offset + size + tarPadding(size);
    // Written out, not spread: of a spread V8 makes a hidden class for each object, 250 bytes an entry.
    if (digest !== undefined) return { name, kind, size, offset, digest };
    return bytes === undefined ? { name, kind, size, offset } : { name, kind, size, offset, bytes };
  });
  return { entries, size: at + TAR_END };
}

function document(name: string, bytes: Buffer): Sized & { readonly bytes: Buffer } {
  return { name, kind: 'document', size: bytes.length, bytes };
}

/** Bytes of a list of these names, `B3SUMS` or `SHA256SUMS`: 64 hex digits, two spaces, the name, a line feed. */
function listSize(entries: readonly Sized[]): number {
  return entries.reduce((sum, e) => sum + 64 + 2 + e.name.length + 1, 0);
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
export function sortArtifacts(artifacts: readonly Artifact[]): Artifact[] {
  const rank = { image: 0, chart: 1, file: 2, referrer: 3 };
  return [...artifacts].sort(
    (a, b) => rank[a.kind] - rank[b.kind] || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
}

/**
 * Lays out a bundle: every entry's place is known before the first layer is fetched. A pure function of the lock and of
 * the graphs that the lock names (design, "The bundle").
 * @throws OCI_MANIFEST_INVALID when two manifests disagree about a blob's size
 */
export function planBundle(
  lock: { readonly value: Lock; readonly bytes: Buffer },
  artifacts: readonly Artifact[],
): BundlePlan {
  const sorted = sortArtifacts(artifacts);
  const blobs: Sized[] = orderedBlobs(sorted).map(({ descriptor, rank }) => ({
    name: blobName(descriptor.digest),
    kind: rank === 0 ? 'manifest' : rank === 1 ? 'config' : 'blob',
    size: descriptor.size,
    digest: descriptor.digest,
  }));
  const facts = { lock: digestOf(lock.bytes), entries: DOCUMENTS.length + blobs.length + 1 };
  const first = [
    document('oci-layout', OCI_LAYOUT),
    document('index.json', indexJson(sorted)),
    document('versions.lock', lock.bytes),
  ];
  const about = (size: number): Sized & { readonly bytes: Buffer } =>
    document('sealift.json', sealiftJson(lock.value, { ...facts, size }));
  const assemble = (info: Sized, sums: Sized): ReturnType<typeof place> => {
    const listed = [...first, info, sums, ...blobs];
    return place([...listed, { name: B3SUMS, kind: 'sums', size: listSize(listed) }]);
  };
  // What has a fixed width has its length before its content is known.
  const unknown = about(0);
  const sumsSize = listSize([...first, unknown, ...blobs]);
  const { size } = assemble(unknown, { name: 'SHA256SUMS', kind: 'document', size: sumsSize });
  const info = about(size);
  const sums = [
    ...[...first, info].map((d) => `${hexOf(digestOf(d.bytes))}  ${d.name}\n`),
    ...blobs.map((b) => `${b.digest === undefined ? '' : hexOf(b.digest)}  ${b.name}\n`),
  ];
  const { entries } = assemble(info, document('SHA256SUMS', Buffer.from(sums.join(''))));
  const identity = entries.map((e) => `${e.bytes === undefined ? e.size : digestOf(e.bytes)} ${e.name}\n`);
  return {
    entries,
    size,
    id: digestOf(identity.join('')),
    blobs: new Map(entries.flatMap((e) => (e.digest === undefined ? [] : [[e.digest, e]]))),
  };
}

/** The text of `B3SUMS` for a plan whose hashes (64 hex digits by entry name) are all known. */
export function b3sumsText(plan: BundlePlan, hashes: ReadonlyMap<string, string>): Buffer {
  const lines = plan.entries
    .filter((e) => e.name !== B3SUMS)
    .map((e) => {
      const hash = hashes.get(e.name);
      if (hash === undefined) throw new SealiftError('INTERNAL', `no BLAKE3 of ${e.name}`);
      return `${hash}  ${e.name}\n`;
    });
  return Buffer.from(lines.join(''));
}
