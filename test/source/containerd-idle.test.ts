import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import { openContainerd } from '../../src/oci/containerd/store.ts';
import type { ImagePlace } from '../../src/oci/image-store.ts';
import { failureOf, gather } from '../io/server.ts';
import { type Fake, startFake } from '../target/containerd-fake.ts';

/** The real limits are minutes; here silence is over soon. */
vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  return { ...real, LIMITS: { ...real.LIMITS, idleMs: 250 } };
});

const BYTES = Buffer.alloc(10_000, 'layer');
const LAYER = { mediaType: 'x', digest: digestOf(BYTES), size: BYTES.length };
const { signal } = new AbortController();

let fake: Fake;
let place: ImagePlace;

beforeEach(async () => {
  fake = await startFake();
  fake.blobs.set(LAYER.digest, { bytes: BYTES, labels: new Map() });
  fake.images.set('a.test/a:1', { ...LAYER, labels: new Map() });
  place = await openContainerd({ socket: fake.socket, namespace: 'k8s.io' }, { signal });
});

afterEach(async () => {
  await place.close();
  await fake.stop();
});

/** Far more than come until silence is over; yet it ends, so that a reader that waits for all of them is told. */
function* forEver(bytes: Buffer): Generator<Buffer> {
  for (let i = 0; i < 200_000; i += 1) yield bytes;
}

describe('a containerd that answers a read', () => {
  it('with empty pieces for ever counts as silent, and another place may be asked', async () => {
    fake.read = () => forEver(Buffer.alloc(0));
    let begun = false;
    const read = async (): Promise<void> => {
      for await (const _ of place.open(LAYER, { signal })) begun = true;
    };
    expect(await failureOf(read())).toMatchObject({
      code: 'NETWORK_TIMEOUT',
      message: expect.stringContaining('only 0 bytes came'),
      hint: expect.stringContaining('check its load'),
      side: 'source',
    });
    expect(begun).toBe(false);
  });

  it('with some bytes and then empty pieces for ever breaks off, so that the rest is asked for elsewhere', async () => {
    fake.read = function* (bytes) {
      yield bytes.subarray(0, 5000);
      yield* forEver(Buffer.alloc(0));
    };
    expect(await failureOf(gather(place.open(LAYER, { signal })))).toMatchObject({
      code: 'NETWORK_TIMEOUT',
      message: expect.stringContaining('only 0 bytes came'),
      side: 'source',
    });
  });

  it('is not held to its reader, who may take longer', async () => {
    fake.read = function* (bytes) {
      for (let at = 0; at < bytes.length; at += 100) yield bytes.subarray(at, at + 100);
    };
    const chunks: Uint8Array[] = [];
    const clock = vi.spyOn(performance, 'now');
    let passed = 0;
    clock.mockImplementation(() => passed);
    try {
      for await (const chunk of place.open(LAYER, { signal })) {
        chunks.push(chunk);
        passed += 1000;
      }
    } finally {
      clock.mockRestore();
    }
    expect(Buffer.concat(chunks).equals(BYTES)).toBe(true);
  });
});
