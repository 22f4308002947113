/** Bytes of a bundle that go on to somebody who checks their SHA-256 himself. */
import { appendFile, truncate, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { passOn } from '../../src/bundle/pass-on.ts';
import { blake3Of } from '../../src/io/verify.ts';
import { failureOf, someBytes } from '../io/server.ts';
import { openSite, type Site } from './site.ts';

const bytes = someBytes(700_000);
const signal = new AbortController().signal;
let site: Site;
let file: string;

beforeAll(async () => {
  site = await openSite();
  file = site.path('some.bytes');
  await writeFile(file, Buffer.concat([Buffer.alloc(10), bytes]));
});
afterAll(() => site.close());

const range = (length = bytes.length) => ({ file, position: 10, length, what: 'b.tar: blobs/x' });

async function take(chunks: AsyncIterable<Buffer>, into: Buffer[]): Promise<void> {
  for await (const chunk of chunks) into.push(Buffer.from(chunk));
}

describe('passing on', () => {
  it('gives all bytes, in one buffer that is used again', async () => {
    const taken: Buffer[] = [];
    const places = new Set<ArrayBufferLike>();
    for await (const chunk of passOn(range(), { blake3: blake3Of(bytes), chunk: 262_144, signal })) {
      places.add(chunk.buffer);
      taken.push(Buffer.from(chunk));
    }
    expect(Buffer.concat(taken)).toEqual(bytes);
    expect(taken.length).toBeGreaterThan(1);
    expect(places.size).toBe(1);
  });

  it('keeps the last chunk back when any byte is another one', async () => {
    const taken: Buffer[] = [];
    const other = someBytes(bytes.length, 2);
    const failure = await failureOf(
      take(passOn(range(), { blake3: blake3Of(other), chunk: 262_144, signal }), taken),
    );
    expect(failure).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
    expect(Buffer.concat(taken).length).toBeLessThan(bytes.length);
  });

  it('of nothing is checked too', async () => {
    const failure = await failureOf(
      take(passOn(range(0), { blake3: blake3Of('a'), chunk: 262_144, signal }), []),
    );
    expect(failure).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
    const taken: Buffer[] = [];
    await take(passOn(range(0), { blake3: blake3Of(''), chunk: 262_144, signal }), taken);
    expect(taken).toEqual([]);
  });

  it('tells that the file became shorter', async () => {
    await truncate(file, 400_000);
    const failure = await failureOf(
      take(passOn(range(), { blake3: blake3Of(bytes), chunk: 262_144, signal }), []),
    );
    expect(failure).toMatchObject({ code: 'CONTENT_SIZE_MISMATCH' });
    await appendFile(file, bytes.subarray(400_000 - 10));
    await take(passOn(range(), { blake3: blake3Of(bytes), chunk: 262_144, signal }), []);
  });
});
