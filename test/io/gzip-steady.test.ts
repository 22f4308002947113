import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { gzipSteady, STEADY_GZIP } from '../../src/io/gzip-steady.ts';
import { digestOf } from '../../src/io/verify.ts';
import { gather } from './server.ts';

/** Bytes that can be compressed a little and are the same everywhere. */
function content(size: number): Buffer {
  const words: string[] = [];
  for (let i = 0, length = 0; length < size; i += 1) {
    const word = createHash('sha256')
      .update(String(i % 5000))
      .digest('hex')
      .slice(0, 4 + (i % 20));
    words.push(word);
    length += word.length;
  }
  return Buffer.from(words.join('').slice(0, size));
}

async function* cut(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

describe('gzip for layers', () => {
  it.each([
    [0, 'sha256:59869db34853933b239f1e2219cf7d431da006aa919635478511fabbfc8849d2'],
    [1, 'sha256:e9592ab30cdab4ccf2a960575c810bfc84a0a0853f78af75e91dd6e1c46f1b22'],
    [65_536, 'sha256:368d2e390ec5ccee9194ca31d5d4e4facd0a129e221e0c48c87290cb797d01d3'],
    [65_537, 'sha256:9a69ad5b1450e4d4b8c3071c75e3d919596541222b6db9195d7aec808be0a04d'],
    [1_000_000, 'sha256:16a11484880ee2a04a4dbba1acd68da7bb30ac688e2da1f843b5e749c3ec84d5'],
  ])('of %i bytes has always had the same bytes: locks hold their digest', async (size, digest) => {
    expect(STEADY_GZIP).toBe('gzip by fflate 0.8.3, level 6');
    const bytes = content(size);
    const made = await gather(gzipSteady(cut(bytes, 10_000)));
    expect(digestOf(made)).toBe(digest);
    expect(gunzipSync(made).equals(bytes)).toBe(true);
  });

  it('does not depend on how its content is cut, and is read by zlib', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 300 }),
        fc.integer({ min: 1, max: 2000 }),
        fc.integer({ min: 1, max: 200_000 }),
        async (seed, times, size) => {
          const bytes = Buffer.concat(
            Array.from({ length: times }, (_, i) => Buffer.from([...seed, i % 251])),
          );
          const made = await gather(gzipSteady(cut(bytes, size)));
          expect(gunzipSync(made).equals(bytes)).toBe(true);
          expect(made.equals(await gather(gzipSteady(cut(bytes, 65_536))))).toBe(true);
        },
      ),
      { numRuns: 30 },
    );
  });

  it('gives what it has while there is more to come: it holds one window, not the layer', async () => {
    let taken = 0;
    const endless = async function* (): AsyncGenerator<Uint8Array> {
      for (;;) {
        taken += 65_536;
        yield content(65_536);
      }
    };
    let made = 0;
    for await (const chunk of gzipSteady(endless())) {
      made += chunk.length;
      if (made > 100_000) break;
    }
    expect(taken).toBeLessThan(4_000_000);
  });
});
