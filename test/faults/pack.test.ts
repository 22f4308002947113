import { mkdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startServer } from '../io/server.ts';
import { always, inTurn, type Seen } from '../support/fault-proxy.ts';
import { ANSWERS, type Case, REFUSALS } from './faults.ts';
import { expectClear, type FaultSite, openFaultSite } from './site.ts';

/** The real limits are minutes; here silence is over soon, and nobody is waited for. */
vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  return { ...real, LIMITS: { ...real.LIMITS, idleMs: 150, headersMs: 300, retryAfterMs: 20 } };
});

/** No case may take longer; a hang is a failure. */
const timeout = 20_000;

let site: FaultSite;
let count = 0;

beforeAll(async () => {
  site = await openFaultSite({ images: 1 });
});
afterAll(() => site.close());

interface Place {
  readonly matches: (seen: Seen) => boolean;
  readonly size: number;
}

function requestsOf(digest: string, size: number): Place {
  const isIt = (seen: Seen): boolean => seen.method === 'GET' && seen.url.endsWith(digest);
  // The first request of all goes without a token; its 401 is no fault.
  return { size, matches: (seen) => isIt(seen) && seen.headers.authorization !== undefined };
}

/** The places where it goes wrong. */
const PLACES: Readonly<Record<string, () => Place>> = {
  'a manifest': () => {
    const [first] = imageOf().manifests;
    if (first === undefined) throw new Error('no manifest');
    return requestsOf(first.digest, first.bytes.length);
  },
  'a config': () => {
    const found = [...imageOf().blobs].find(([, blob]) => blob.mediaType.includes('config'));
    return requestsOf(found?.[0] ?? '', found?.[1].size ?? 0);
  },
  'a layer': () => {
    const [first] = [...imageOf().blobs].sort(([, a], [, b]) => b.size - a.size);
    return requestsOf(first?.[0] ?? '', first?.[1].size ?? 0);
  },
};

function imageOf() {
  const [image] = site.images;
  if (image === undefined) throw new Error('no image');
  return image;
}

/** Runs a pack with the fault; then, where it failed, one without. The bundle is the same in the end. */
async function packThrough(decide: FaultSite['source']['decide'], must: 'end' | 'end or tell' | 'tell') {
  const out = join(site.dir, `case-${++count}`, 'bundle.tar');
  await mkdir(dirname(out));
  const before = site.source.done.length;
  site.source.decide = decide;
  const first = await site.pack(out);
  site.source.decide = () => undefined;
  expect(site.source.done.length).toBeGreaterThan(before);
  await site.checkSecrets(first, dirname(out));
  if (first.error !== undefined) expectClear(first.error);
  if (must === 'end') expect(first.error).toBeUndefined();
  if (must === 'tell') expect(first.error).toBeDefined();
  if (first.error !== undefined) expect((await site.pack(out)).error).toBeUndefined();
  expect((await readFile(out)).equals(site.bytes)).toBe(true);
  await rm(dirname(out), { recursive: true });
}

function withSelf(faults: ReturnType<Case['faults']>, path: string): ReturnType<Case['faults']> {
  return faults.map((fault) =>
    fault.kind === 'answer' && fault.headers?.location === '{self}'
      ? { ...fault, headers: { location: path } }
      : fault,
  );
}

describe('a pack over a hostile network', () => {
  for (const [where, placeOf] of Object.entries(PLACES)) {
    const starts = where === 'a layer' ? ['first', 'middle', 'last'] : ['middle'];
    const cases = [
      ...REFUSALS.map((fault) => ({ fault, start: 'any' })),
      ...ANSWERS.flatMap((fault) => starts.map((start) => ({ fault, start }))),
    ];
    for (const { fault, start } of cases) {
      const at = start === 'any' ? '' : ` at the ${start} byte`;
      const faultsFor = () => {
        const place = placeOf();
        const byte = start === 'first' ? 0 : start === 'last' ? place.size - 1 : place.size >> 1;
        const path = `/loop?${place.size}`;
        return { place, faults: withSelf(fault.faults(byte), path) };
      };

      it(`${where}: ${fault.name}${at}, once`, { timeout }, async () => {
        const { place, faults } = faultsFor();
        await packThrough(inTurn(place.matches, faults), fault.heals ? 'end' : 'end or tell');
      });

      if (start === 'first' || start === 'last') continue;
      it(`${where}: ${fault.name}${at}, every time`, { timeout }, async () => {
        const { place, faults } = faultsFor();
        const last = faults.at(-1);
        if (last === undefined) throw new Error('no fault');
        const must = fault.harmless === true ? 'end' : start === 'any' ? 'tell' : 'end or tell';
        await packThrough(always(place.matches, last), must);
      });
    }
  }

  it('a redirect to another origin gets no login, and its content is verified', { timeout }, async () => {
    const place = PLACES['a layer']?.();
    const elsewhere = await startServer((_, response) => response.end(Buffer.alloc(place?.size ?? 0)));
    const headers = { location: `${elsewhere.url}/blob?X-Amz-Signature=hunter2-of-the-faults` };
    const fault = { kind: 'answer', status: 307, headers } as const;
    await packThrough(inTurn(place?.matches ?? (() => false), [fault]), 'end');
    expect(elsewhere.asked).toHaveLength(1);
    expect(elsewhere.asked[0]?.headers.authorization).toBeUndefined();
  });
});
