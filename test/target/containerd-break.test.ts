/** A containerd whose connection breaks when blobs are there and only some of the names. */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect as connectTo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { recordNames } from '../../src/target/containerd/plan.ts';
import { type Bench, loadOn } from './containerd-bench.ts';
import { type Fake, startFake } from './containerd-fake.ts';
import { createContext, createStore, makeImage, type Store } from './containerd-fixture.ts';

let fake: Fake;
let store: Store;

beforeEach(async () => {
  fake = await startFake();
  store = createStore();
});
afterEach(() => fake.stop());

/** A way to the fake that can break: then nobody listens there any more. */
async function breakable(): Promise<{ readonly bench: Bench; readonly cut: () => void }> {
  const dir = mkdtempSync(join(tmpdir(), 'break-'));
  const socket = join(dir, 's');
  const open = new Set<Socket>();
  const way = createServer((near) => {
    const far = connectTo({ path: fake.socket });
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one);
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  await new Promise<void>((done) => way.listen({ path: socket }, done));
  const cut = (): void => {
    for (const one of open) one.destroy();
    way.close();
  };
  onTestFinished(() => {
    cut();
    rmSync(dir, { recursive: true });
  });
  return { bench: { fake: { ...fake, socket }, store, context: createContext() }, cut };
}

describe('a connection that breaks between two names', () => {
  it('fails exactly the images of which a name lacks, and a second load adds those names alone', async () => {
    const numbers = Array.from({ length: 20 }, (_, n) => n);
    const items = await Promise.all(numbers.map((n) => makeImage(store, `a.test/image-${n}:1`)));
    const { bench, cut } = await breakable();
    let isCut = false;
    fake.hook = ({ method }) => {
      // Eight are written at once: several images are whole by then, and several have only their first name.
      if (!isCut && method === 'Images/Create' && fake.images.size === 29) {
        isCut = true;
        cut();
      }
      return isCut ? status.UNAVAILABLE : undefined;
    };
    const run = await loadOn(bench, items);
    const { images } = fake;
    const isWhole = (i: number): boolean =>
      recordNames(items[i] ?? never()).every((name) => images.has(name));
    const states = run.entries.map((e) => e.state);
    expect(new Set(states)).toEqual(new Set(['written', 'failed']));
    for (const [i, { state, fault }] of run.entries.entries()) {
      // What was answered is written; of what was asked last nobody knows.
      if (state === 'written') expect([isWhole(i), fault]).toEqual([true, undefined]);
      else
        expect(fault).toMatchObject({ code: 'TARGET_UNREACHABLE', hint: expect.stringContaining('again') });
    }
    expect(images.size).toBeLessThan(2 * items.length);
    expect(fake.leases.size, 'what was sent stays for the next load').toBe(1);

    const lacked = items.flatMap((item) => recordNames(item).filter((name) => !images.has(name)));
    fake.hook = () => undefined;
    fake.calls.length = 0;
    store.opened.length = 0;
    const again = await loadOn({ fake, store, context: createContext() }, items);
    expect(again.entries.filter(({ state }) => state === 'failed')).toEqual([]);
    expect(items.every((_, i) => isWhole(i))).toBe(true);
    expect(store.opened).toEqual([]);
    expect(fake.writes().filter((method) => method === 'Images/Create')).toHaveLength(lacked.length);
  });
});

function never(): never {
  throw new Error('no such image');
}
