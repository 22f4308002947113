import type { Descriptor } from '../../core/descriptor.ts';
import type { Digest } from '../../core/digest.ts';
import { errorOf, type Fault, fault } from '../../core/errors.ts';
import { formatReference, imageName, type Reference } from '../../core/reference.ts';
import { mapBounded } from '../../io/pool.ts';
import type { ContainerdClient } from '../../oci/containerd/client.ts';
import { statusOf } from '../../oci/containerd/failure.ts';
import { STATUS } from '../../oci/containerd/grpc.ts';
import type { ContentInfo, ImageRecord, Labels } from '../../oci/containerd/wire.ts';
import type { NodeKind } from '../../oci/graph.ts';
import type { Entry, ImageItem } from '../target.ts';
import { hasLabels, missingGcLabels, missingSourceLabels, recordLabels } from './labels.ts';

/** Questions that are asked at the same time. */
const ASKING = 8;

/** One image: its entry and the records that must point at it. */
export interface Work {
  readonly item: ImageItem;
  readonly entry: Entry;
  readonly records: { readonly record: ImageRecord; isThere: boolean; needed: boolean }[];
}

/** One blob, manifest or index, with everyone who wants it. */
export interface Piece {
  readonly descriptor: Descriptor;
  readonly kind: NodeKind;
  /** The carried children, in the manifest's order; of all items when they carry different parts of one index. */
  readonly children: Descriptor[];
  /** The images that it belongs to: their repositories are its source labels. */
  readonly references: Reference[];
  readonly wantedBy: Work[];
  /** What the namespace has under its digest. */
  found: ContentInfo | undefined;
}

export interface Plan {
  readonly works: readonly Work[];
  /** Children before parents. */
  readonly pieces: readonly Piece[];
}

/** The names under which an image is found: with its tag where it has one, and always with its digest (registry.md 3.2 point 6). */
export function recordNames(item: ImageItem): readonly string[] {
  const { host, repository } = item.reference;
  const byDigest = formatReference({ host, repository, digest: item.root.digest });
  return item.reference.tag === undefined ? [byDigest] : [imageName(item.reference), byDigest];
}

/** The labels that a piece must get beside those that are there. */
export function missingLabels(piece: Piece, there: Labels): Map<string, string> {
  return new Map([
    ...missingGcLabels(piece.children, there),
    ...missingSourceLabels(piece.references, there),
  ]);
}

/**
 * Asks the namespace for its content and its image records, one question each; writes nothing.
 * @throws TARGET_NAME_COLLISION when two images would get one record
 */
export async function planImages(
  client: ContainerdClient,
  items: readonly ImageItem[],
  options: { readonly pin: boolean; readonly signal: AbortSignal },
): Promise<Plan> {
  const works = items.map((item) => workOf(item, recordLabels(options)));
  refuseCollisions(works);
  const pieces = piecesOf(works);
  await findPieces(client, pieces, options.signal);
  const there = await findRecords(client, works, options.signal);
  for (const work of works) {
    compareRecords(work, there);
    const added = work.records.filter(({ isThere }) => !isThere).map(({ record }) => record.name);
    work.entry.added = { names: added, manifests: [] };
  }
  decide(works, pieces.values());
  return { works, pieces: [...pieces.values()] };
}

function workOf(item: ImageItem, labels: Labels): Work {
  const { mediaType, digest, size } = item.root;
  const names = recordNames(item);
  return {
    item,
    entry: {
      item,
      as: names[0] ?? digest,
      state: 'present',
      presentBytes: 0,
      writeBytes: 0,
      notes: [],
    },
    records: names.map((name) => ({
      record: { name, labels, target: { mediaType, digest, size } },
      isThere: false,
      needed: true,
    })),
  };
}

function refuseCollisions(works: readonly Work[]): void {
  const owners = new Map<string, Work>();
  const faults: Fault[] = [];
  for (const work of works) {
    for (const { record } of work.records) {
      const owner = owners.get(record.name);
      if (owner !== undefined && owner.item.root.digest !== record.target.digest) {
        faults.push(
          fault(
            'TARGET_NAME_COLLISION',
            `${record.name}: both ${owner.item.root.digest} and ${record.target.digest} would get this name`,
            { hint: 'load only one of them with --only' },
          ),
        );
      }
      owners.set(record.name, work);
    }
  }
  if (faults.length > 0) throw errorOf(faults, 'images with one name and different content');
}

function piecesOf(works: readonly Work[]): Map<Digest, Piece> {
  const pieces = new Map<Digest, Piece>();
  for (const work of works) {
    for (const { descriptor, kind, children } of work.item.graph.nodes.values()) {
      const piece = pieces.get(descriptor.digest);
      if (piece === undefined) {
        pieces.set(descriptor.digest, {
          descriptor,
          kind,
          children: [...children],
          references: [work.item.reference],
          wantedBy: [work],
          found: undefined,
        });
        continue;
      }
      const known = new Set(piece.children.map((child) => child.digest));
      piece.children.push(...children.filter((child) => !known.has(child.digest)));
      piece.references.push(work.item.reference);
      piece.wantedBy.push(work);
    }
  }
  return pieces;
}

async function findPieces(
  client: ContainerdClient,
  pieces: ReadonlyMap<string, Piece>,
  signal: AbortSignal,
): Promise<void> {
  for await (const info of client.listContent(signal)) {
    const piece = pieces.get(info.digest);
    if (piece !== undefined) piece.found = info;
  }
}

/** The records that have a name of these images. Where all of a namespace are too many for one message, each is asked for. */
async function findRecords(
  client: ContainerdClient,
  works: readonly Work[],
  signal: AbortSignal,
): Promise<Map<string, ImageRecord>> {
  const names = new Set(works.flatMap((work) => work.records.map(({ record }) => record.name)));
  const records = await listed(client, names, signal);
  return new Map(records.map((record) => [record.name, record]));
}

async function listed(
  client: ContainerdClient,
  names: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<ImageRecord[]> {
  try {
    return await client.listImages(signal, (name) => names.has(name));
  } catch (error) {
    if (statusOf(error) !== STATUS.RESOURCE_EXHAUSTED) throw error;
  }
  const found = await mapBounded([...names], { limit: ASKING, signal }, (name, stop) =>
    client.getImage(name, stop),
  );
  return found.filter((record) => record !== undefined);
}

function compareRecords(work: Work, records: ReadonlyMap<string, ImageRecord>): void {
  for (const plan of work.records) {
    const { record } = plan;
    const there = records.get(record.name);
    if (there === undefined) continue;
    plan.isThere = true;
    const { mediaType, digest, size } = there.target;
    const sameTarget =
      digest === record.target.digest && mediaType === record.target.mediaType && size === record.target.size;
    plan.needed = !sameTarget || !hasLabels(there.labels, record.labels);
    if (digest !== record.target.digest) {
      work.entry.notes.push(`${record.name}: ${digest.slice(0, 80)} → ${record.target.digest}`);
    }
  }
}

function decide(works: readonly Work[], pieces: Iterable<Piece>): void {
  for (const work of works) {
    if (work.records.some((plan) => plan.needed)) work.entry.state = 'write';
  }
  for (const piece of pieces) {
    const [first] = piece.wantedBy;
    if (first !== undefined) {
      const bytes = piece.found === undefined ? 'writeBytes' : 'presentBytes';
      first.entry[bytes] += piece.descriptor.size;
    }
    if (piece.found !== undefined && missingLabels(piece, piece.found.labels).size === 0) continue;
    for (const work of piece.wantedBy) work.entry.state = 'write';
  }
}
