import { describe, expect, it } from 'vitest';
import { heldBlob, PassingBlob } from '../../src/bundle/passing-blob.ts';
import { EMPTY_DIGEST } from '../../src/core/digest.ts';
import { SealiftError } from '../../src/core/errors.ts';
import { collect } from '../../src/io/verify.ts';

const PIECE = 1024 * 1024;
const SIZE = 40 * PIECE;
const WINDOW = 16 * PIECE;
const descriptor = { mediaType: '', digest: EMPTY_DIGEST, size: SIZE };
const { signal } = new AbortController();

/** Gives numbered pieces and counts how far it was read. */
function source(failsAt = Number.POSITIVE_INFINITY): { next(): Promise<Buffer | undefined>; given: number } {
  return {
    given: 0,
    async next() {
      if (this.given >= failsAt) throw new SealiftError('BUNDLE_TRUNCATED', 'ended', { side: 'source' });
      if (this.given >= SIZE) return undefined;
      const piece = Buffer.alloc(PIECE, this.given / PIECE);
      this.given += PIECE;
      return piece;
    },
  };
}

/** Reads to the end, or until it has so many bytes; then it may stop for ever. */
async function read(view: ReturnType<PassingBlob['view']>, until = SIZE, offset = 0): Promise<number> {
  let at = offset;
  for await (const bytes of view.open(descriptor, { signal, offset })) {
    if (bytes[0] !== Math.floor(at / PIECE)) throw new Error(`other bytes at ${at}`);
    at += bytes.length;
    if (at >= until) break;
  }
  return at;
}

const turn = (): Promise<void> => new Promise((go) => setImmediate(go));

describe('a blob that passes', () => {
  it('reaches all at once, read once', async () => {
    const from = source();
    const blob = new PassingBlob(descriptor, from);
    const views = [blob.view(), blob.view(), blob.view()];
    expect(await Promise.all(views.map((view) => read(view)))).toEqual([SIZE, SIZE, SIZE]);
    expect(from.given).toBe(SIZE);
  });

  it('waits for one who has not begun, and lets others work while two wait for a third', async () => {
    const from = source();
    const blob = new PassingBlob(descriptor, from);
    const [a, b, late] = [blob.view(), blob.view(), blob.view()];
    const both = Promise.all([read(a), read(b)]);
    for (let i = 0; i < 200; i++) await turn();
    expect(from.given).toBe(WINDOW);
    expect(await Promise.all([read(late), both])).toEqual([SIZE, [SIZE, SIZE]]);
  });

  it('goes on without one who has settled', async () => {
    const blob = new PassingBlob(descriptor, source());
    const [a, gone] = [blob.view(), blob.view()];
    const whole = read(a);
    await read(gone, 2 * PIECE);
    gone.close();
    expect(await whole).toBe(SIZE);
  });

  it('can be begun again while its beginning is held, and says so at once when it is not', async () => {
    const blob = new PassingBlob(descriptor, source());
    const view = blob.view();
    await read(view, WINDOW / 2);
    expect(view.has(0)).toBe(true);
    await read(view, SIZE);
    expect(view.has(0)).toBe(false);
    await expect(read(view)).rejects.toMatchObject({ code: 'TARGET_FAILED', side: 'destination' });
    expect(await read(view, SIZE, SIZE - 2 * PIECE)).toBe(SIZE);
  });

  it('can be begun again after a few bytes, however far another one is', async () => {
    const blob = new PassingBlob(descriptor, source());
    const [fast, slow] = [blob.view(), blob.view()];
    const first = read(fast);
    await read(slow, 8 * PIECE);
    for (let i = 0; i < 200; i++) await turn();
    expect(slow.has(0)).toBe(true);
    expect(await Promise.all([read(slow), first])).toEqual([SIZE, SIZE]);
  });

  it('fails for all with what its source fails with', async () => {
    const blob = new PassingBlob(descriptor, source(5 * PIECE));
    const views = [blob.view(), blob.view()];
    for (const done of await Promise.allSettled(views.map((view) => read(view)))) {
      expect(done).toMatchObject({
        status: 'rejected',
        reason: { code: 'BUNDLE_TRUNCATED', side: 'source' },
      });
    }
    expect(views[0]?.has(0)).toBe(false);
  });

  it('ends only when nobody reads its source any more', async () => {
    const reads: (() => void)[] = [];
    const next = async (): Promise<Buffer> => {
      await new Promise<void>((go) => reads.push(go));
      return Buffer.alloc(PIECE);
    };
    const blob = new PassingBlob(descriptor, { next });
    const view = blob.view();
    const bytes = view.open(descriptor, { signal });
    // As a pipeline that breaks: it does not wait for what it has asked for.
    const asked = bytes.next();
    view.close();
    let ended = false;
    const end = blob.end().then(() => {
      ended = true;
    });
    for (let i = 0; i < 10; i++) await turn();
    expect([reads.length, ended]).toEqual([1, false]);
    reads[0]?.();
    await end;
    expect((await asked).done).toBe(false);
  });

  it('ends with what its source failed with, also when nobody waits for it any more', async () => {
    const blob = new PassingBlob(descriptor, source(0));
    const view = blob.view();
    const asked = view.open(descriptor, { signal }).next();
    view.close();
    await expect(blob.end()).rejects.toMatchObject({ code: 'BUNDLE_TRUNCATED' });
    await expect(asked).rejects.toMatchObject({ code: 'BUNDLE_TRUNCATED' });
  });

  it('holds very small pieces together, for one who is behind too', async () => {
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251));
    const small = { ...descriptor, size: bytes.length };
    let at = 0;
    const next = async (): Promise<Buffer | undefined> => {
      const piece = bytes.subarray(at, at + 3);
      at += piece.length;
      return piece.length === 0 ? undefined : piece;
    };
    const blob = new PassingBlob(small, { next });
    const [ahead, behind] = [blob.view(), blob.view()];
    const first = await collect(ahead.open(small, { signal }), { limit: bytes.length, what: 'ahead' });
    const pieces: Uint8Array[] = [];
    for await (const piece of behind.open(small, { signal, offset: 7 })) pieces.push(piece);
    expect(first.equals(bytes)).toBe(true);
    expect(Buffer.concat(pieces).equals(bytes.subarray(7))).toBe(true);
    expect(pieces.length).toBeLessThan(5);
  });

  it('lets go of one who waits when the work is stopped', async () => {
    const blob = new PassingBlob(descriptor, source());
    const [a] = [blob.view(), blob.view()];
    const stop = new AbortController();
    const waiting = (async () => {
      for await (const _ of a.open(descriptor, { signal: stop.signal }));
    })();
    for (let i = 0; i < 100; i++) await turn();
    stop.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('in memory can be opened from any byte as often as wanted', async () => {
    const blob = heldBlob(Buffer.from('abc'));
    for (const [offset, expected] of [
      [0, 'abc'],
      [2, 'c'],
      [3, ''],
    ] as const) {
      const bytes = await collect(blob.open(descriptor, { signal, offset }), { limit: 9, what: 'abc' });
      expect(bytes.toString()).toBe(expected);
    }
  });
});
