import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EMPTY_DIGEST, EMPTY_JSON_DIGEST } from '../../src/core/digest.ts';
import {
  blake3Of,
  collect,
  digestOf,
  digestStream,
  type Expected,
  Verifier,
  verified,
} from '../../src/io/verify.ts';
import { failureOf, gather } from './server.ts';

const bytes = fc.uint8Array({ maxLength: 400 });
const cuts = fc.array(fc.nat(400), { maxLength: 6 });

/** The data in parts, some of them empty. */
function parts(data: Uint8Array, at: readonly number[]): Uint8Array[] {
  const edges = [0, ...at.map((a) => Math.min(a, data.length)).sort((a, b) => a - b), data.length];
  return edges.slice(1).map((end, i) => data.subarray(edges[i], end));
}

function feed(expected: Expected, chunks: readonly Uint8Array[]): string {
  const verifier = new Verifier(expected, { blake3: true });
  for (const chunk of chunks) verifier.update(chunk);
  return verifier.finish();
}

async function* stream(chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

function code(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error instanceof Error && 'code' in error ? error.code : error;
  }
  return undefined;
}

describe('the verifier (properties)', () => {
  it('takes the right bytes however they are cut, and gives their BLAKE3', () => {
    fc.assert(
      fc.property(bytes, cuts, fc.boolean(), (data, at, sized) => {
        const expected = { digest: digestOf(data), what: 'x', ...(sized ? { size: data.length } : {}) };
        expect(feed(expected, parts(data, at))).toBe(blake3Of(data));
      }),
    );
  });

  it('notices one bit, wherever it is', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 400 }),
        fc.nat(),
        fc.nat(7),
        cuts,
        (data, i, bit, at) => {
          const wrong = Uint8Array.from(data);
          const place = i % data.length;
          wrong[place] = (data[place] ?? 0) ^ (1 << bit);
          const expected = { digest: digestOf(data), size: data.length, what: 'x' };
          expect(code(() => feed(expected, parts(wrong, at)))).toBe('CONTENT_DIGEST_MISMATCH');
        },
      ),
    );
  });

  it('notices too few bytes at the end and too many at once', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 400 }), fc.nat(), cuts, (data, n, at) => {
        const whole = { digest: digestOf(data), size: data.length, what: 'x' };
        const short = data.subarray(0, n % data.length);
        expect(code(() => feed(whole, parts(short, at)))).toBe('CONTENT_SIZE_MISMATCH');
        const verifier = new Verifier({ digest: digestOf(short), size: short.length, what: 'x' });
        expect(code(() => verifier.update(data))).toBe('CONTENT_SIZE_MISMATCH');
      }),
    );
  });

  it('counts what came', () => {
    const verifier = new Verifier({ digest: digestOf('abc'), what: 'x' });
    verifier.update(Buffer.from('ab'));
    expect(verifier.received).toBe(2);
    verifier.update(Buffer.from('c'));
    expect(verifier.finish()).toBe('');
  });

  it('says what was expected and what was found', () => {
    const verifier = new Verifier({ digest: digestOf('abc'), what: 'blob of nginx' });
    verifier.update(Buffer.from('abd'));
    expect(() => verifier.finish()).toThrow(
      `blob of nginx: expected ${digestOf('abc')}, found ${digestOf('abd')}`,
    );
  });
});

describe('a verified stream', () => {
  it('gives the bytes and fails at its end when they are wrong', async () => {
    const data = Buffer.from('some content');
    const good = verified(stream(parts(data, [3, 7])), { digest: digestOf(data), size: 12, what: 'x' });
    expect((await gather(good)).equals(data)).toBe(true);
    const seen: Uint8Array[] = [];
    const work = (async () => {
      for await (const chunk of verified(stream([data]), { digest: digestOf('other'), what: 'x' })) {
        seen.push(chunk);
      }
    })();
    expect(await failureOf(work)).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
    expect(seen).toHaveLength(1);
  });

  it('does not pass on the chunk with one byte too many', async () => {
    const seen: Uint8Array[] = [];
    const expected = { digest: digestOf('abc'), size: 3, what: 'x' };
    const work = (async () => {
      for await (const chunk of verified(stream([Buffer.from('ab'), Buffer.from('cd')]), expected))
        seen.push(chunk);
    })();
    expect(await failureOf(work)).toMatchObject({ code: 'CONTENT_SIZE_MISMATCH' });
    expect(Buffer.concat(seen).toString()).toBe('ab');
  });
});

describe('digests', () => {
  it('of a stream are those of its bytes (property)', async () => {
    await fc.assert(
      fc.asyncProperty(bytes, cuts, async (data, at) => {
        const found = await digestStream(stream(parts(data, at)));
        const hex = createHash('sha256').update(data).digest('hex');
        expect(found).toEqual({ digest: `sha256:${hex}`, size: data.length });
        expect(digestOf(data)).toBe(found.digest);
      }),
    );
  });

  it('of nothing and of {} are the ones that everybody knows', () => {
    expect(digestOf('')).toBe(EMPTY_DIGEST);
    expect(digestOf('{}')).toBe(EMPTY_JSON_DIGEST);
    // The test vector of the BLAKE3 paper for no input.
    expect(blake3Of('')).toBe('af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262');
  });
});

describe('collect', () => {
  it('takes up to the limit and stops at the first byte more, without reading on', async () => {
    const part = Buffer.alloc(10);
    expect(await collect(stream([part, part]), { limit: 20, what: 'x' })).toHaveLength(20);
    let read = 0;
    const endless = (async function* () {
      for (;;) {
        read++;
        yield part;
      }
    })();
    expect(await failureOf(collect(endless, { limit: 25, what: 'x' }))).toMatchObject({
      code: 'CONTENT_TOO_LARGE',
    });
    expect(read).toBe(3);
  });
});
