import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { type ErrorCode, type Fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { Reference } from '../core/reference.ts';
import type { BlobIntake, ContentReader } from '../oci/content.ts';
import type { Graph } from '../oci/graph.ts';
import type { SpaceNeed } from './space.ts';

interface ItemBase {
  /** The name in the lock: an image's name, `chart-1.2.3`, a file's name. Unique among items of its kind. */
  readonly name: string;
  /** The carried content: root manifest or index, children before parents. */
  readonly graph: Graph;
  /** What is carried for the root. */
  readonly root: Descriptor;
}

/** A signature, attestation or other manifest about an image. */
export interface ReferrerItem {
  readonly root: Descriptor;
  readonly graph: Graph;
  /** What it is about: a manifest or index of the image, or another referrer. */
  readonly subject: Digest;
  /** cosign's tag under which it is found; without one its own `subject` leads to it. */
  readonly tag?: string;
}

export interface ImageItem extends ItemBase {
  readonly kind: 'image';
  readonly reference: Reference;
  /** Whether content that the root index names is not carried. */
  readonly sparse: boolean;
  /** What travels with it; default nothing. */
  readonly referrers?: readonly ReferrerItem[];
  /** The image whose bytes these are under another name, and why they are not what a registry had (`ImageLock`). */
  readonly replacedBy?: string | undefined;
  readonly recompressed?: string | undefined;
}

export interface ChartItem extends ItemBase {
  readonly kind: 'chart';
  readonly chartName: string;
  readonly version: string;
  /** The archive's blob inside `graph`. */
  readonly archive: Descriptor;
  /** Hash of the unpacked tree (helm.md section 6). */
  readonly tree: Digest;
}

export interface FileItem extends ItemBase {
  readonly kind: 'file';
  /** The file's own blob inside `graph`. */
  readonly content: Descriptor;
  /** Permission bits, for example 0o755. */
  readonly mode: number;
}

/** A wheel or source archive of a Python project; its name is that of its file. */
export interface PackageItem extends ItemBase {
  readonly kind: 'package';
  /** Normalised (PEP 503). */
  readonly project: string;
  readonly version: string;
  /** The file's own blob inside `graph`. */
  readonly content: Descriptor;
  /** As its index says (PEP 345 `Requires-Python`). */
  readonly requiresPython?: string;
}

/** One thing that is loaded. */
export type Item = ImageItem | ChartItem | FileItem | PackageItem;

/**
 * What to do where a target has something else under a name: `fail` tells it and goes on with the others, `keep` leaves
 * what is there and is content, `replace` writes over it.
 */
export type OnConflict = 'fail' | 'keep' | 'replace';

/** What was not on a target before, and may be taken back. */
export interface Addition {
  /** Names in the target's own terms: tags of a repository, image records, paths, addresses. */
  readonly names: string[];
  /** Manifests that a repository of a registry lacked. */
  readonly manifests: Digest[];
}

/** What happens, or would happen, to one item on one target. Stages update `state` and `fault`. */
export interface Entry {
  readonly item: Item;
  /** Its name there: `host/repo:tag`, an image record, a path. */
  readonly as: string;
  /**
   * `present`: nothing to do. `kept`: something else is there and stays (`OnConflict`). `write`: something is missing.
   * `written`, `failed`: after the stages.
   */
  state: 'present' | 'kept' | 'write' | 'written' | 'failed';
  /**
   * The digest (`algorithm:hex`) of what is under its name, or was until this run replaced it: of something else, or of
   * the same where only parts of it lack.
   */
  found?: string;
  /** By which content it is known there, where that is not the item's own: the tree of a chart. */
  content?: Digest;
  /** What this run adds, where that is not just `as` (see additionOf). */
  added?: Addition;
  /** Bytes of its content that the target already has, and that would be sent. A blob that several items share counts once, for the first. */
  presentBytes: number;
  writeBytes: number;
  /** The digest under which it is found there when that is not the bundle's own (a filtered index, a single manifest). */
  pushedDigest?: Digest;
  fault?: Fault;
  notes: string[];
}

/** Totals of what was really sent and what was there already. */
export interface Tally {
  blobsWritten: number;
  blobsPresent: number;
  blobsMounted: number;
  bytesWritten: number;
  manifestsWritten: number;
  manifestsPresent: number;
}

/**
 * A planned load of one target. The stages run in order, each on all targets before the next on any. A stage records an
 * item's failure in its entry and goes on with the others; it throws only when the bundle itself is bad (a source error)
 * or the run is stopped.
 */
export interface TargetRun {
  readonly entries: readonly Entry[];
  readonly tally: Tally;
  /** What will be written on a disk of this machine; absent where a target is no folder. */
  space?(): SpaceNeed;
  /** Removes what stopped loads left of these entries, where that would take up room. The target is held, and will be written to. */
  clear?(): Promise<void>;
  /**
   * The blobs among those that are not at hand which this run would have to read: what a delta leaves out and the target
   * lacks. May ask the target; writes nothing.
   */
  needs(isAbsent: (digest: Digest) => boolean): Promise<Iterable<Digest>>;
  /** Blobs (configs, layers, archives), or the temp files and folders that stand for them. Nothing that a user of the target would see. */
  writeBlobs(): Promise<void>;
  /**
   * Instead of `writeBlobs` where content comes by itself, in its own order: what takes each blob as it passes. Only they
   * read blobs then, and nothing that has a name in a registry's or containerd's eyes is written before `writeManifests`.
   */
  intake(): Promise<BlobIntake>;
  /** Manifests, then indexes. */
  writeManifests(): Promise<void>;
  /** Tags, image records, trees, files: what makes it visible. */
  commit(): Promise<void>;
  /**
   * Always called last: releases leases, removes temp files. Never throws.
   * @param end.isBad the content itself was bad: nothing that was sent is worth keeping for another run
   */
  close(end?: { readonly isBad: boolean }): Promise<void>;
}

export interface TargetOptions {
  readonly context: Context;
  /** Verified content of the bundle. */
  readonly source: ContentReader;
  /** Whether `source` has only manifests, because blobs pass by themselves (`TargetRun.intake`); default false. */
  readonly passing?: boolean;
  /** Of a bundle that leaves something out: whether a blob is nowhere at hand. */
  readonly isAbsent?: (digest: Digest) => boolean;
}

/** A place that a bundle is loaded into. */
export interface Target {
  readonly kind: 'registry' | 'containerd' | 'chart-tree' | 'files' | 'helm' | 'raw' | 'pypi';
  /** For people and for the receipt: `registry 10.0.0.1:5000/prefix`, `containerd /run/x.sock k8s.io`. */
  readonly name: string;
  /** What a flag of `load` would say; without one, what stands in the name behind the kind. */
  readonly address?: string;
  /** Of a target that is a folder: its path. */
  readonly folder?: string;
  /** What is written has its name at once, before everything has arrived: servers of packages know no other way. */
  readonly isSeenAtOnce?: boolean;
  /** What several targets are of: they take a blob that passes one after the other, because the first brings it for all. */
  readonly store?: string;
  accepts(item: Item): boolean;
  /**
   * Asks what is there. Writes nothing.
   * @throws TARGET_UNREACHABLE, TARGET_CONFLICT, TARGET_NAME_COLLISION for faults that forbid any write
   */
  plan(items: readonly Item[], options: TargetOptions): Promise<TargetRun>;
}

export function emptyTally(): Tally {
  return {
    blobsWritten: 0,
    blobsPresent: 0,
    blobsMounted: 0,
    bytesWritten: 0,
    manifestsWritten: 0,
    manifestsPresent: 0,
  };
}

/** An entry at its beginning: to be written, nothing known yet. */
export function newEntry<T extends Item>(item: T, as: string): Entry & { readonly item: T } {
  return { item, as, state: 'write', presentBytes: 0, writeBytes: 0, notes: [] };
}

/** What an entry adds to its target, or would add once it is written; undefined for nothing. */
export function additionOf(entry: Entry): Addition | undefined {
  // What failed may have come all the same: it is asked for again before anything is taken back.
  if (entry.state === 'failed') return entry.added;
  if (entry.state !== 'write' && entry.state !== 'written') return undefined;
  return entry.added ?? (entry.found === undefined ? { names: [entry.as], manifests: [] } : undefined);
}

/** A fault of the bundle, not of the target: everything stops. */
export function isSourceFault(error: unknown): boolean {
  return error instanceof SealiftError && error.side === 'source' && error.code.startsWith('BUNDLE_');
}

/** What the next item would meet as well. */
const WHOLE_TARGET: ReadonlySet<ErrorCode> = new Set([
  'TARGET_UNREACHABLE',
  'TARGET_READ_ONLY',
  'TARGET_FULL',
]);

/**
 * Records what went wrong with one item, so that the others go on. Faults of the bundle, of the whole target, stops and
 * bugs are thrown on.
 */
export function failEntry(entry: Entry, error: unknown): void {
  if (isAbort(error) || isSourceFault(error) || !(error instanceof SealiftError)) throw error;
  if (WHOLE_TARGET.has(error.code)) throw error;
  entry.state = 'failed';
  entry.fault ??= faultOf(error);
}
