/**
 * The messages by which a containerd tells of its own state: plugins, namespaces, leases, unfinished content, containers, and
 * CRI's settings (`api/services/{introspection,namespaces,leases,content,containers}/v1/*.proto`; CRI `runtime/v1/api.proto`).
 */
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { addLabel, innerOnes, type Labels, number, scan, size, text } from './wire.ts';

/** `introspection.v1.Plugin`, as much as a check reads. */
export interface Plugin {
  /** `io.containerd.snapshotter.v1`. */
  readonly type: string;
  readonly id: string;
  /** `os/architecture[/variant]`. */
  readonly platforms: readonly string[];
  /** What it tells of itself: `root`, `policy` and others. */
  readonly exports: Labels;
  /** It could not start. */
  readonly isBroken: boolean;
}

export interface Named {
  readonly name: string;
  readonly labels: Labels;
}

export interface Lease {
  readonly id: string;
  /** Seconds since the epoch. */
  readonly created: number;
  readonly labels: Labels;
}

export interface Resource {
  readonly id: string;
  readonly type: string;
}

/** `content.v1.Status`: bytes that came, and those that are expected (0: not told). */
export interface Ingest {
  readonly ref: string;
  readonly offset: number;
  readonly total: number;
}

export interface Container {
  readonly id: string;
  readonly labels: Labels;
  /** The name of its image as it was given. */
  readonly image: string;
}

/** The elements of an answer that is one list, field 1. */
export function* listed<T>(bytes: Uint8Array, decode: (element: Uint8Array) => T): Generator<T> {
  for (const element of innerOnes(bytes)) yield decode(element);
}

/** `runtime.v1.StatusRequest`: verbose = 1. */
export function encodeVerbose(): Buffer {
  return Buffer.from(new BinaryWriter().tag(1, WireType.Varint).bool(true).finish());
}

/** `runtime.v1.StatusResponse`: info = 2, a map of texts. */
export function decodeCriInfo(bytes: Uint8Array): Map<string, string> {
  const info = new Map<string, string>();
  scan(bytes, (tag, r) => {
    if (tag !== text(2)) return false;
    addLabel(info, r.bytes());
    return true;
  });
  return info;
}

/** Texts by field and labels by field of one message; each list has the order of the message. */
function fieldsOf(
  bytes: Uint8Array,
  labelsAt: number,
): { readonly texts: ReadonlyMap<number, readonly Uint8Array[]>; readonly labels: Labels } {
  const texts = new Map<number, Uint8Array[]>();
  const labels = new Map<string, string>();
  scan(bytes, (tag, r) => {
    if (tag === text(labelsAt)) addLabel(labels, r.bytes());
    else if ((tag & 7) === WireType.LengthDelimited) {
      const field = tag >>> 3;
      texts.set(field, [...(texts.get(field) ?? []), r.bytes()]);
    } else return false;
    return true;
  });
  return { texts, labels };
}

const said = (of: Uint8Array | undefined): string => new TextDecoder().decode(of ?? new Uint8Array(0));

/** `types.Platform`: os = 1, architecture = 2, variant = 3. */
function platformOf(bytes: Uint8Array): string {
  const { texts } = fieldsOf(bytes, 0);
  const parts = [1, 2, 3].map((field) => said(texts.get(field)?.[0]));
  return parts.filter((part) => part !== '').join('/');
}

/** `introspection.v1.Plugin`: type = 1, id = 2, platforms = 4, exports = 5, init_err = 7. */
export function decodePlugin(bytes: Uint8Array): Plugin {
  const { texts, labels } = fieldsOf(bytes, 5);
  return {
    type: said(texts.get(1)?.[0]),
    id: said(texts.get(2)?.[0]),
    platforms: (texts.get(4) ?? []).map(platformOf),
    exports: labels,
    isBroken: texts.has(7),
  };
}

/** `namespaces.v1.Namespace`: name = 1, labels = 2. */
export function decodeNamespace(bytes: Uint8Array): Named {
  const { texts, labels } = fieldsOf(bytes, 2);
  return { name: said(texts.get(1)?.[0]), labels };
}

/** `google.protobuf.Timestamp`: seconds = 1. */
function secondsOf(bytes: Uint8Array | undefined): number {
  let seconds = 0;
  scan(bytes ?? new Uint8Array(0), (tag, r) => {
    if (tag !== number(1)) return false;
    seconds = Number(r.int64());
    return true;
  });
  return seconds;
}

/** `leases.v1.Lease`: id = 1, created_at = 2, labels = 3. */
export function decodeLeaseState(bytes: Uint8Array): Lease {
  const { texts, labels } = fieldsOf(bytes, 3);
  return { id: said(texts.get(1)?.[0]), created: secondsOf(texts.get(2)?.[0]), labels };
}

/** `leases.v1.Resource`: id = 1, type = 2. */
export function decodeResource(bytes: Uint8Array): Resource {
  const { texts } = fieldsOf(bytes, 0);
  return { id: said(texts.get(1)?.[0]), type: said(texts.get(2)?.[0]) };
}

/** `content.v1.Status`: ref = 3, offset = 4, total = 5. */
export function decodeIngest(bytes: Uint8Array): Ingest {
  let ref = '';
  let offset = 0;
  let total = 0;
  scan(bytes, (tag, r) => {
    if (tag === text(3)) ref = r.string();
    else if (tag === number(4)) offset = size(r);
    else if (tag === number(5)) total = size(r);
    else return false;
    return true;
  });
  return { ref, offset, total };
}

/** `containers.v1.Container`: id = 1, labels = 2, image = 3. Its specification is passed over. */
export function decodeContainer(bytes: Uint8Array): Container {
  let id = '';
  let image = '';
  const labels = new Map<string, string>();
  scan(bytes, (tag, r) => {
    if (tag === text(1)) id = r.string();
    else if (tag === text(2)) addLabel(labels, r.bytes());
    else if (tag === text(3)) image = r.string();
    else return false;
    return true;
  });
  return { id, labels, image };
}
