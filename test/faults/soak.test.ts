import { mkdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import type { FaultProxy, WireFault } from '../support/fault-proxy.ts';
import { dealFaults, kindOf, randomFrom } from './random-faults.ts';
import { expectClear, type FaultSite, type Outcome, openFaultSite } from './site.ts';

/** The real limits are minutes; here silence is over soon, and nobody is waited for. */
vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  return { ...real, LIMITS: { ...real.LIMITS, idleMs: 150, headersMs: 300, retryAfterMs: 20 } };
});

/**
 * The same faults are dealt for the same seed. Which request gets which differs a little from run to run, because many
 * are under way at once.
 */
const SEED = Number(process.env.SEALIFT_SOAK_SEED ?? 20_261_121);
const FAULTS = 200;
const IN_PACK = 100;
/** No run may take longer, in milliseconds; a hang is a failure. */
const RUN_MS = 20_000;
/** Somebody who starts the same command again more often than this has given up. */
const RUNS = 150;

let site: FaultSite;
/** Another origin that redirects lead to: it answers everything with wrong bytes, and notes every login that it gets. */
const logins: string[] = [];
const elsewhere = createServer((request, response) => {
  if (request.headers.authorization !== undefined) logins.push(request.headers.authorization);
  request.resume();
  response.end(Buffer.alloc(5_000));
});

beforeAll(async () => {
  await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
  site = await openFaultSite({ images: 12, layerSizes: [60_000, 9_000], baseSize: 200_000 });
});
afterAll(async () => {
  elsewhere.closeAllConnections();
  elsewhere.close();
  await site.close();
});

async function inTime<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`a run hangs: seed ${SEED}`)), RUN_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Starts a run again and again until one does what it should; each that does not must say clearly why. */
async function untilDone(run: () => Promise<Outcome>, path: string): Promise<number> {
  for (let runs = 1; ; runs++) {
    expect(runs, `seed ${SEED}`).toBeLessThan(RUNS);
    const outcome = await inTime(run());
    await site.checkSecrets(outcome, path);
    if (outcome.error === undefined) return runs;
    expectClear(outcome.error);
  }
}

function sizesOf(): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const { tag, index, manifests, blobs } of site.images) {
    sizes.set(tag, index.bytes.length);
    for (const m of [index, ...manifests]) sizes.set(m.digest, m.bytes.length);
    for (const [digest, blob] of blobs) sizes.set(digest, blob.size);
  }
  return sizes;
}

const random = randomFrom(SEED);

function deal(proxy: FaultProxy, count: number, chance: number) {
  const { port } = elsewhere.address() as AddressInfo;
  return dealFaults(proxy, {
    count,
    chance,
    random,
    sizes: sizesOf(),
    elsewhere: `http://127.0.0.1:${port}`,
  });
}

function tallyOf(faults: readonly WireFault[]): Map<string, number> {
  const tally = new Map<string, number>();
  for (const kind of faults.map(kindOf).sort()) tally.set(kind, (tally.get(kind) ?? 0) + 1);
  return tally;
}

/** Every kind that the proxy knows, answers by what they are. */
const KINDS = [
  ...['cut', 'reset', 'stall', 'truncate', 'flip', 'length', 'slow', 'rewrite', 'lost-answer'],
  ...['upload-cut', 'upload-reset', 'upload-stall', 'upload-flip', 'redirect loop', 'redirect elsewhere'],
  ...[401, 403, 404, 408, 413, 429, 500, 502, 503].map((status) => `HTTP ${status}`),
  ...['HTTP 200 page', 'HTTP 503 page'],
];

it(
  '200 random faults over a pack and a load: started again until it is done, everything is as without them',
  {
    timeout: 600_000,
  },
  async () => {
    const out = join(site.dir, 'soak', 'bundle.tar');
    await mkdir(dirname(out));
    const inPack = deal(site.source, IN_PACK, 0.6);
    const packs = await untilDone(() => site.pack(out), dirname(out));
    await inPack.settled();
    expect((await readFile(out)).equals(site.bytes)).toBe(true);

    const inLoad = deal(site.target, FAULTS - inPack.happened.length, 0.6);
    const loads = await untilDone(() => site.load(), join(site.dir, 'receipt'));
    await inLoad.settled();
    await site.checkTarget(true);

    const faults = [...inPack.happened, ...inLoad.happened];
    const tally = tallyOf(faults);
    const shown = [...tally].map(([kind, count]) => `${kind} ${count}`).join(', ');
    console.log(
      `seed ${SEED}: ${faults.length} faults, ${packs} runs of pack, ${loads} runs of load\n${shown}`,
    );
    expect(logins).toEqual([]);
    expect(faults).toHaveLength(FAULTS);
    expect(KINDS.filter((kind) => !tally.has(kind))).toEqual([]);
  },
);
