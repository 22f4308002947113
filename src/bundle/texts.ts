import { createHash } from 'node:crypto';
import { ANNOTATION } from '../core/descriptor.ts';
import { type Digest, digestOfHex } from '../core/digest.ts';
import { KIB } from '../core/limits.ts';
import type { Sequence } from '../core/packed-list.ts';
import type { Lock } from '../lock/schema.ts';
import type { BaseBundle, NamedRoot } from './contents.ts';

/** Format that this program writes, and the lowest that reads it. */
export const FORMAT_VERSION = 1;

/** What stands in a document: known before anything is downloaded, and made anew each time that it is read. */
export interface DocumentText {
  readonly digest: Digest;
  pieces(): Iterable<Buffer>;
}

/** Bytes that are made at once of a text that may be long. */
const PIECE = 64 * KIB;

/** A text in pieces that are worth a call each. */
export function* inPieces(parts: Iterable<string>): Generator<Buffer> {
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
export function* indexJson(roots: Sequence<NamedRoot>): Generator<string> {
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
export interface Document {
  readonly name: string;
  readonly size: number;
  readonly text: DocumentText;
}

export function document(name: string, pieces: () => Iterable<Buffer>): Document {
  const hash = createHash('sha256');
  let size = 0;
  for (const piece of pieces()) {
    hash.update(piece);
    size += piece.length;
  }
  return { name, size, text: { digest: digestOfHex(hash.digest('hex')), pieces } };
}

/** `sealift.json`, fixed keys and widths: `size` has 16 digits, so that it can state the length of the file that it is in. */
export function* sealiftJson(
  lock: Lock,
  facts: { lock: Digest; size: number; entries: number; base: BaseText | undefined },
): Generator<string> {
  const body = {
    formatVersion: FORMAT_VERSION,
    minReader: FORMAT_VERSION,
    name: lock.name,
    version: lock.version,
    lock: facts.lock,
    size: String(facts.size).padStart(16, '0'),
    entries: facts.entries,
  };
  yield `${JSON.stringify(body, null, 2).slice(0, -2)},\n  "base": `;
  if (facts.base === undefined) yield 'null';
  else yield* baseText(facts.base);
  yield '\n}\n';
}

/** What a delta builds on, and what it leaves out. */
interface BaseText {
  readonly of: readonly BaseBundle[];
  leftOut(): Iterable<{ readonly digest: Digest; readonly size: number }>;
}

/** One line for each bundle and each blob: there may be very many. */
function* baseText({ of, leftOut }: BaseText): Generator<string> {
  yield '{\n    "of": [';
  let separator = '\n';
  for (const { name, version, lock } of of) {
    yield `${separator}      ${JSON.stringify({ name, version, lock })}`;
    separator = ',\n';
  }
  yield '\n    ],\n    "leftOut": [';
  separator = '\n';
  for (const { digest, size } of leftOut()) {
    yield `${separator}      ${JSON.stringify({ digest, size })}`;
    separator = ',\n';
  }
  yield '\n    ]\n  }';
}

/** A line of `B3SUMS` or `SHA256SUMS`: 64 hex digits, two spaces, the name, a line feed. */
export function sumLine(hex: string, name: string): string {
  return `${hex}  ${name}\n`;
}
