/** verify and ls of a bundle that comes through a pipe: what they say of the file, in one reading. */
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import type { Fault } from '../../src/core/errors.ts';
import { createBlake3 } from '../../src/io/blake3.ts';
import { parseLock } from '../../src/lock/read.ts';
import { ls } from '../../src/ops/ls.ts';
import { pack } from '../../src/ops/pack.ts';
import { type VerifyOptions, verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, packSite } from '../bundle/site.ts';
import { joined, type Part, partsOf } from '../bundle/tar-parts.ts';

const site = await openSite();
const good = await packSite(site);
afterAll(() => site.close());

function pipe(bytes: Buffer, piece = 4096): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece);
    })(),
    { objectMode: false },
  );
}

function verifyPipe(bytes: Buffer, more: Partial<VerifyOptions> = {}): ReturnType<typeof verify> {
  return verify({ bundle: '-', input: pipe(bytes), ...more }, contextOf());
}

/** The bundle with the content of some entries changed in one byte. */
function withFlipped(names: readonly string[], of = partsOf(good)): Buffer {
  const parts = of.map((part) => {
    if (!names.includes(part.name)) return part;
    const body = Buffer.from(part.body);
    body[body.length >> 1] = (body[body.length >> 1] ?? 0) ^ 1;
    return { ...part, body };
  });
  return joined(parts);
}

/** The bundle with something else of the same length in its lock, and all that follows from the lock. */
function withOtherLock(from: string, to: string): Part[] {
  const parts = partsOf(good);
  const replace = (name: string, words: readonly (readonly [from: string, to: string])[]): void => {
    const at = parts.findIndex((part) => part.name === name);
    const part = parts[at];
    if (part === undefined) throw new Error(`no ${name}`);
    let text = part.body.toString('latin1');
    for (const [word, other] of words) text = text.replaceAll(word, other);
    parts[at] = { ...part, body: Buffer.from(text, 'latin1') };
  };
  const sums = (name: string, hash: (bytes: Buffer) => string): readonly [string, string] => {
    const bodyIn = (all: readonly Part[]): Buffer =>
      all.find((p) => p.name === name)?.body ?? Buffer.alloc(0);
    return [hash(bodyIn(partsOf(good))), hash(bodyIn(parts))];
  };
  replace('versions.lock', [[from, to]]);
  replace('sealift.json', [sums('versions.lock', sha256)]);
  replace('SHA256SUMS', [sums('versions.lock', sha256), sums('sealift.json', sha256)]);
  const listed = ['versions.lock', 'sealift.json', 'SHA256SUMS'];
  replace(
    'B3SUMS',
    listed.map((name) => sums(name, blake3)),
  );
  return parts;
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
const blake3 = (bytes: Buffer): string => createBlake3().update(bytes).digest('hex');
const entriesOf = (faults: readonly Fault[]): unknown[] => faults.map((f) => f.details?.entry);

describe('a bundle through a pipe', () => {
  it.each<[string, Partial<VerifyOptions>]>([
    ['by BLAKE3', {}],
    ['by SHA-256', { deep: true }],
    ['with a lock from elsewhere', { lockPath: site.lockPath }],
  ])('is verified %s as its file is', async (_, how) => {
    const { path, ...found } = await verifyPipe(good.bytes, how);
    const { path: __, ...same } = await verify({ bundle: good.path, ...how }, contextOf());
    expect(found).toEqual(same);
    expect(path).toBe('stdin');
  });

  it('is listed as its file is, and read to its end', async () => {
    const input = pipe(good.bytes);
    const { path, ...listed } = await ls('-', contextOf(), input);
    const { path: _, ...same } = await ls(good.path, contextOf());
    expect(listed).toEqual(same);
    expect(path).toBe('stdin');
    expect(input.readableEnded).toBe(true);
  });

  it.each([true, false])('has all its damaged blobs told, once each (deep: %s)', async (deep) => {
    const blobs = good.entries.filter((e) => e.kind === 'blob' || e.kind === 'config').map((e) => e.name);
    const wrong = blobs.filter((_, i) => i % 2 === 0);
    const { faults } = await verifyPipe(withFlipped(wrong), { deep });
    expect(new Set(faults.map((f) => f.code))).toEqual(new Set(['BUNDLE_CHECKSUM_MISMATCH']));
    expect(entriesOf(faults).sort()).toEqual([...wrong].sort());
  });

  it('has the tree of a chart compared, from a file and from a pipe, unless its archive is damaged', async () => {
    const { charts } = parseLock(await readFile(site.lockPath), 'versions.lock');
    const { archive = '', tree = '' } = charts[0]?.integrity ?? {};
    const wrong = withOtherLock(tree, `${tree.slice(0, -4)}0bad`);
    const path = site.path('tree.tar');
    await writeFile(path, joined(wrong));
    for (const how of [{ bundle: path }, { bundle: '-', input: pipe(joined(wrong)) }]) {
      const { faults } = await verify(how, contextOf());
      expect(faults.map((f) => f.code)).toEqual(['BUNDLE_TREE_MISMATCH']);
    }
    const name = `blobs/sha256/${archive.slice('sha256:'.length)}`;
    const { faults } = await verifyPipe(withFlipped([name], wrong));
    expect(faults.map((f) => f.code)).toEqual(['BUNDLE_CHECKSUM_MISMATCH']);
  });

  it.each([1, 3, 20])('that ends after %i twentieths is told as cut', async (twentieths) => {
    const length = Math.floor((good.bytes.length * twentieths) / 20) - 700;
    await expect(verifyPipe(good.bytes.subarray(0, length))).rejects.toMatchObject({
      code: 'BUNDLE_TRUNCATED',
    });
    const listed = ls('-', contextOf(), pipe(good.bytes.subarray(0, length)));
    await expect(listed).rejects.toMatchObject({ code: 'BUNDLE_TRUNCATED' });
  });

  it('is read alone, and not from a terminal', async () => {
    const terminal = Object.assign(pipe(good.bytes), { isTTY: true });
    for (const work of [
      verifyPipe(good.bytes, { others: [good.path] }),
      verify({ bundle: '-', input: terminal }, contextOf()),
      ls(['-', good.path], contextOf(), pipe(good.bytes)),
      verifyPipe(good.bytes, { requestPath: site.path('r.json') }),
    ]) {
      await expect(work).rejects.toMatchObject({ code: 'USAGE' });
    }
  });

  it('may be a delta: it is whole by itself', async () => {
    const out = site.path('delta.tar');
    await pack({ manifestPath: site.manifestPath, out, since: [good.path] }, contextOf());
    const { path: _, ...found } = await verifyPipe(await readFile(out), { deep: true });
    const { path: __, ...same } = await verify({ bundle: out, deep: true }, contextOf());
    expect(found).toEqual(same);
  });
});
