/**
 * The few protobuf messages of containerd's API that a load and a mirror need, by field number (registry.md 3.1:
 * `api/services/{content,images,leases,version}/v1/*.proto`, `api/types/descriptor.proto`).
 * A field with its default value is not written, as proto3 does; unknown fields are skipped.
 */
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

export type Labels = ReadonlyMap<string, string>;

/** `containerd.services.content.v1.Info`, without its times. */
export interface ContentInfo {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly labels: Labels;
}

/** `containerd.services.images.v1.Image`, without its times and the target's annotations. */
export interface ImageRecord {
  readonly name: string;
  readonly labels: Labels;
  readonly target: { readonly mediaType: string; readonly digest: string; readonly size: number };
}

/** `WriteContentRequest.action`: STAT = 0, WRITE = 1, COMMIT = 2. */
export type WriteAction = 'stat' | 'write' | 'commit';

const ACTIONS: readonly WriteAction[] = ['stat', 'write', 'commit'];

/** `containerd.services.content.v1.WriteContentRequest`. Offsets and sizes in bytes. */
export interface WriteRequest {
  readonly action: WriteAction;
  /** Needed in the first message of a stream. */
  readonly ref?: string;
  readonly total?: number;
  readonly expected?: string;
  readonly offset?: number;
  readonly data?: Uint8Array;
  readonly labels?: Labels;
}

/** `containerd.services.content.v1.WriteContentResponse`, without its times. */
export interface WriteResponse {
  readonly action: WriteAction | undefined;
  readonly offset: number;
  readonly total: number;
  readonly digest: string;
}

function putString(writer: BinaryWriter, field: number, value: string): void {
  if (value !== '') writer.tag(field, WireType.LengthDelimited).string(value);
}

function putNumber(writer: BinaryWriter, field: number, value: number): void {
  if (value !== 0) writer.tag(field, WireType.Varint).int64(value);
}

function putMessage(writer: BinaryWriter, field: number, fill: (inner: BinaryWriter) => void): void {
  writer.tag(field, WireType.LengthDelimited).fork();
  fill(writer);
  writer.join();
}

/** A `map<string, string>`: repeated messages with the key as 1 and the value as 2. */
function putLabels(writer: BinaryWriter, field: number, labels: Labels): void {
  for (const [key, value] of labels) {
    putMessage(writer, field, (entry) => {
      putString(entry, 1, key);
      putString(entry, 2, value);
    });
  }
}

/** `google.protobuf.FieldMask`: paths = 1. */
function putMask(writer: BinaryWriter, field: number, paths: readonly string[]): void {
  putMessage(writer, field, (mask) => {
    for (const path of paths) mask.tag(1, WireType.LengthDelimited).string(path);
  });
}

function bytesOf(fill: (writer: BinaryWriter) => void): Buffer {
  const writer = new BinaryWriter();
  fill(writer);
  const bytes = writer.finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** `google.protobuf.Empty`. */
export function encodeEmpty(): Buffer {
  return Buffer.alloc(0);
}

/** Every request that is one string with field number 1: InfoRequest, AbortRequest, GetImageRequest. */
export function encodeName(name: string): Buffer {
  return bytesOf((w) => putString(w, 1, name));
}

/** `content.v1.UpdateRequest`: info = 1 { digest = 1, labels = 5 }, update_mask = 2 with one `labels.<key>` for each label. */
export function encodeUpdateLabels(digest: string, labels: Labels): Buffer {
  return bytesOf((w) => {
    putMessage(w, 1, (info) => {
      putString(info, 1, digest);
      putLabels(info, 5, labels);
    });
    putMask(
      w,
      2,
      [...labels.keys()].map((key) => `labels.${key}`),
    );
  });
}

/** `content.v1.WriteContentRequest`, in parts: the data is not copied. */
export function encodeWrite(request: WriteRequest): Uint8Array[] {
  const { data } = request;
  const hasData = data !== undefined && data.length > 0;
  const before = bytesOf((w) => {
    putNumber(w, 1, ACTIONS.indexOf(request.action));
    putString(w, 2, request.ref ?? '');
    putNumber(w, 3, request.total ?? 0);
    putString(w, 4, request.expected ?? '');
    putNumber(w, 5, request.offset ?? 0);
    if (hasData) w.tag(6, WireType.LengthDelimited).uint32(data.length);
  });
  const after = bytesOf((w) => putLabels(w, 7, request.labels ?? new Map()));
  return hasData ? [before, data, after] : [before, after];
}

/** `content.v1.ReadContentRequest`: digest = 1, offset = 2 (bytes); without a size (3) to the end. */
export function encodeRead(request: { readonly digest: string; readonly offset: number }): Buffer {
  return bytesOf((w) => {
    putString(w, 1, request.digest);
    putNumber(w, 2, request.offset);
  });
}

/** `leases.v1.CreateRequest`: labels = 3; without an id (1) the server makes one. */
export function encodeCreateLease(labels: Labels): Buffer {
  return bytesOf((w) => putLabels(w, 3, labels));
}

/** `leases.v1.DeleteRequest`: id = 1, sync = 2. */
export function encodeDeleteLease(id: string, options: { readonly sync: boolean }): Buffer {
  return bytesOf((w) => {
    putString(w, 1, id);
    if (options.sync) w.tag(2, WireType.Varint).bool(true);
  });
}

/** `leases.v1.AddResourceRequest`: id = 1, resource = 2 { id = 1, type = 2 }; the type of a blob is `content`. */
export function encodeAddContent(lease: string, digest: string): Buffer {
  return bytesOf((w) => {
    putString(w, 1, lease);
    putMessage(w, 2, (resource) => {
      putString(resource, 1, digest);
      putString(resource, 2, 'content');
    });
  });
}

function putImage(writer: BinaryWriter, record: ImageRecord): void {
  putMessage(writer, 1, (image) => {
    putString(image, 1, record.name);
    putLabels(image, 2, record.labels);
    putMessage(image, 3, (target) => {
      putString(target, 1, record.target.mediaType);
      putString(target, 2, record.target.digest);
      putNumber(target, 3, record.target.size);
    });
  });
}

/** `images.v1.CreateImageRequest`: image = 1 { name = 1, labels = 2, target = 3 { media_type = 1, digest = 2, size = 3 } }. */
export function encodeCreateImage(record: ImageRecord): Buffer {
  return bytesOf((w) => putImage(w, record));
}

/**
 * `images.v1.UpdateImageRequest`: image = 1, update_mask = 2: the target, unless only labels are set, and each of the labels,
 * so that others stay.
 */
export function encodeUpdateImage(record: ImageRecord, only?: 'labels'): Buffer {
  const target = only === 'labels' ? [] : ['target'];
  return bytesOf((w) => {
    putImage(w, record);
    putMask(w, 2, [...target, ...[...record.labels.keys()].map((key) => `labels.${key}`)]);
  });
}

export const text = (field: number): number => (field << 3) | WireType.LengthDelimited;
export const number = (field: number): number => (field << 3) | WireType.Varint;

/** Walks one message. `take` gets each field's tag (number and wire type) and says whether it read the value. */
export function scan(bytes: Uint8Array, take: (tag: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (!take((field << 3) | wireType, reader)) reader.skip(wireType, field);
  }
}

export function size(reader: BinaryReader): number {
  const value = Number(reader.int64());
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} is not a size`);
  return value;
}

export function addLabel(labels: Map<string, string>, entry: Uint8Array): void {
  let key = '';
  let value = '';
  scan(entry, (tag, r) => {
    if (tag === text(1)) key = r.string();
    else if (tag === text(2)) value = r.string();
    else return false;
    return true;
  });
  labels.set(key, value);
}

/** Each message inside a response, field 1. */
export function* innerOnes(bytes: Uint8Array): Generator<Uint8Array> {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (((field << 3) | wireType) === text(1)) yield reader.bytes();
    else reader.skip(wireType, field);
  }
}

/** The message inside a response, field 1; empty when there is none. */
function inner(bytes: Uint8Array): Uint8Array {
  let found: Uint8Array = new Uint8Array(0);
  for (const one of innerOnes(bytes)) found = one;
  return found;
}

/** A response of which only field 1, a string, matters: VersionResponse. */
export function decodeName(bytes: Uint8Array): string {
  return new TextDecoder().decode(inner(bytes));
}

/** `leases.v1.CreateResponse`: lease = 1 { id = 1 }. */
export function decodeLease(bytes: Uint8Array): string {
  return decodeName(inner(bytes));
}

/** `content.v1.InfoResponse` and `UpdateResponse`: info = 1 { digest = 1, size = 2, labels = 5 }. */
export function decodeInfo(bytes: Uint8Array): ContentInfo {
  return infoOf(inner(bytes));
}

/** `content.v1.ListContentResponse`: info = 1, repeated, as in InfoResponse. One by one: a message may hold very many. */
export function* decodeInfos(bytes: Uint8Array): Generator<ContentInfo> {
  for (const info of innerOnes(bytes)) yield infoOf(info);
}

function infoOf(bytes: Uint8Array): ContentInfo {
  let digest = '';
  let length = 0;
  const labels = new Map<string, string>();
  scan(bytes, (tag, r) => {
    if (tag === text(1)) digest = r.string();
    else if (tag === number(2)) length = size(r);
    else if (tag === text(5)) addLabel(labels, r.bytes());
    else return false;
    return true;
  });
  return { digest, size: length, labels };
}

/** `introspection.v1.PluginsResponse`: plugins = 1 { exports = 5 }, repeated: the first root that one of them has, or ''. */
export function decodeRoot(bytes: Uint8Array): string {
  for (const plugin of innerOnes(bytes)) {
    const exported = new Map<string, string>();
    scan(plugin, (tag, r) => {
      if (tag !== text(5)) return false;
      addLabel(exported, r.bytes());
      return true;
    });
    const root = exported.get('root');
    if (root !== undefined) return root;
  }
  return '';
}

/** `images.v1.GetImageResponse` and the answers to create and update: image = 1. */
export function decodeImage(bytes: Uint8Array): ImageRecord {
  return imageOf(inner(bytes));
}

/** `images.v1.ListImagesResponse`: images = 1, repeated; one by one. */
export function* decodeImages(bytes: Uint8Array): Generator<ImageRecord> {
  for (const image of innerOnes(bytes)) yield imageOf(image);
}

function imageOf(bytes: Uint8Array): ImageRecord {
  let name = '';
  let target = { mediaType: '', digest: '', size: 0 };
  const labels = new Map<string, string>();
  scan(bytes, (tag, r) => {
    if (tag === text(1)) name = r.string();
    else if (tag === text(2)) addLabel(labels, r.bytes());
    else if (tag === text(3)) target = decodeTarget(r.bytes());
    else return false;
    return true;
  });
  return { name, labels, target };
}

function decodeTarget(bytes: Uint8Array): ImageRecord['target'] {
  let mediaType = '';
  let digest = '';
  let length = 0;
  scan(bytes, (tag, r) => {
    if (tag === text(1)) mediaType = r.string();
    else if (tag === text(2)) digest = r.string();
    else if (tag === number(3)) length = size(r);
    else return false;
    return true;
  });
  return { mediaType, digest, size: length };
}

/** The `data` (2) of a `content.v1.ReadContentResponse`. Where it belongs (offset = 1) is told by its place in the stream. */
export function decodeRead(bytes: Uint8Array): Uint8Array {
  let data: Uint8Array = new Uint8Array(0);
  scan(bytes, (tag, r) => {
    if (tag !== text(2)) return false;
    data = r.bytes();
    return true;
  });
  return data;
}

/** `content.v1.WriteContentResponse`: action = 1, offset = 4, total = 5, digest = 6. */
export function decodeWrite(bytes: Uint8Array): WriteResponse {
  let action = 0;
  let offset = 0;
  let total = 0;
  let digest = '';
  scan(bytes, (tag, r) => {
    if (tag === number(1)) action = r.int32();
    else if (tag === number(4)) offset = size(r);
    else if (tag === number(5)) total = size(r);
    else if (tag === text(6)) digest = r.string();
    else return false;
    return true;
  });
  return { action: ACTIONS[action], offset, total, digest };
}
