/** A bundle as content, from which one is written whose lists and digests all agree, whatever the content says. */
import { createHash } from 'node:crypto';
import type { Digest } from '../../src/core/digest.ts';
import { createBlake3 } from '../../src/io/blake3.ts';
import { TAR_END, tarPadding } from '../../src/io/tar.ts';
import { digestOf } from '../../src/io/verify.ts';
import { parseLock } from '../../src/lock/read.ts';
import type { Lock } from '../../src/lock/schema.ts';
import { lockBytes } from '../../src/lock/write.ts';
import type { Packed } from '../bundle/site.ts';
import type { Part } from '../bundle/tar-parts.ts';
import type { Json } from './json.ts';
import { partOf } from './tars.ts';

interface Blob {
  readonly bytes: Buffer;
  /** Where it stands: manifests, configs, all others. */
  readonly rank: number;
}

export interface Model {
  lock: Buffer;
  index: Buffer;
  info: Buffer;
  readonly layout: Buffer;
  readonly blobs: Map<Digest, Blob>;
}

const RANKS: Readonly<Record<string, number>> = { manifest: 0, config: 1, blob: 2 };

/** The content of a bundle. */
export function modelOf({ bytes, entries }: Packed): Model {
  const blobs = new Map<Digest, Blob>();
  const documents = new Map<string, Buffer>();
  for (const { name, kind, digest, offset, size } of entries) {
    const body = bytes.subarray(offset, offset + size);
    if (digest === undefined) documents.set(name, body);
    else blobs.set(digest, { bytes: body, rank: RANKS[kind] ?? 2 });
  }
  const of = (name: string): Buffer => documents.get(name) ?? Buffer.alloc(0);
  return {
    lock: of('versions.lock'),
    index: of('index.json'),
    info: of('sealift.json'),
    layout: of('oci-layout'),
    blobs,
  };
}

export function copyOf(model: Model): Model {
  return { ...model, blobs: new Map(model.blobs) };
}

/** Names of manifests and indexes. */
export function manifestsOf(model: Model): Digest[] {
  return [...model.blobs].flatMap(([digest, { rank }]) => (rank === 0 ? [digest] : []));
}

/** Every place that names a digest names another one, with another size beside it. */
function renamed(value: Json, from: Digest, to: { readonly digest: Digest; readonly size: number }): Json {
  if (value === from) return to.digest;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((v) => renamed(v, from, to));
  const names = Object.values(value).includes(from) || Object.values(value).some((v) => holds(v, from));
  const made = Object.entries(value).map(([key, v]): [string, Json] => [
    key,
    key === 'size' && names && typeof v === 'number' ? to.size : renamed(v, from, to),
  ]);
  return Object.fromEntries(made);
}

/** A chart's size stands beside `integrity`, in which its digest is. */
function holds(value: Json, digest: Digest): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && value.archive === digest;
}

/** The lock as plain data. */
export function plainLock(bytes: Buffer): Json {
  const lock = parseLock(bytes, 'versions.lock');
  return JSON.parse(JSON.stringify({ ...lock, images: Array.from(lock.images) }));
}

/** The text of a lock that may be none. @throws whatever the writer of real locks makes of it */
export function lockText(plain: Json): Buffer {
  return lockBytes(plain as unknown as Lock);
}

function tryAgain(bytes: Buffer, change: (value: Json) => Json, write: (value: Json) => Buffer): Buffer {
  try {
    return write(change(JSON.parse(bytes.toString())));
  } catch (error) {
    if (error instanceof SyntaxError) return bytes;
    throw error;
  }
}

/** Puts other bytes in the place of a blob; what names it names these, and so on up to the lock. */
export function replaceBlob(model: Model, from: Digest, bytes: Buffer): void {
  const to = { digest: digestOf(bytes), size: bytes.length };
  const old = model.blobs.get(from);
  if (old === undefined || to.digest === from) return;
  model.blobs.delete(from);
  model.blobs.set(to.digest, { bytes, rank: old.rank });
  const change = (value: Json): Json => renamed(value, from, to);
  const write = (value: Json): Buffer => Buffer.from(JSON.stringify(value));
  for (const digest of manifestsOf(model)) {
    const parent = model.blobs.get(digest)?.bytes;
    if (parent === undefined || digest === to.digest || !parent.includes(from)) continue;
    replaceBlob(model, digest, tryAgain(parent, change, write));
  }
  if (model.lock.includes(from)) model.lock = lockText(change(plainLock(model.lock)));
  model.index = tryAgain(model.index, change, (value) => Buffer.from(`${JSON.stringify(value)}\n`));
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function blake3(bytes: Buffer): string {
  return createBlake3().update(bytes).digest('hex');
}

function listOf(parts: readonly Part[], hash: (bytes: Buffer) => string): Buffer {
  return Buffer.from(parts.map((p) => `${hash(p.body)}  ${p.name}\n`).join(''));
}

/** `sealift.json` with the facts of this bundle; as it is when it is no JSON any more. */
function infoOf(
  info: Buffer,
  facts: { readonly lock: Buffer; readonly size: number; readonly entries: number },
): Buffer {
  const text = info
    .toString()
    .replace(/"lock": "sha256:[0-9a-f]{64}"/, `"lock": "${digestOf(facts.lock)}"`)
    .replace(/"size": "\d{16}"/, `"size": "${String(facts.size).padStart(16, '0')}"`)
    .replace(/"entries": \d+/, `"entries": ${facts.entries}`);
  return Buffer.from(text);
}

/** The entries of a bundle of this content. */
export function partsOfModel(model: Model): Part[] {
  const blobs = [...model.blobs].sort(([a, x], [b, y]) => x.rank - y.rank || (a < b ? -1 : 1));
  const before = [
    partOf('oci-layout', model.layout),
    partOf('index.json', model.index),
    partOf('versions.lock', model.lock),
  ];
  const content = blobs.map(([digest, { bytes }]) => partOf(`blobs/sha256/${digest.slice(7)}`, bytes));
  const entries = before.length + content.length + 3;
  const widthOf = (names: number): number => 66 * names;
  const names = [...before, ...content].reduce((sum, p) => sum + p.name.length + 1, 'sealift.json\n'.length);
  const sums = widthOf(entries - 2) + names;
  const b3sums = widthOf(entries - 1) + names + 'SHA256SUMS\n'.length;
  const span = (size: number): number => 512 + size + tarPadding(size);
  const first = infoOf(model.info, { lock: model.lock, size: 0, entries });
  const size = [...before, ...content].reduce(
    (sum, p) => sum + span(p.body.length),
    TAR_END + span(sums) + span(b3sums) + span(first.length),
  );
  const info = partOf('sealift.json', infoOf(model.info, { lock: model.lock, size, entries }));
  const listed = [...before, info];
  const list = partOf('SHA256SUMS', listOf([...listed, ...content], sha256));
  const all = [...listed, list, ...content];
  return [...all, partOf('B3SUMS', listOf(all, blake3))];
}
