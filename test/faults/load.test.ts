import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { always, inTurn, type Seen, type WireFault } from '../support/fault-proxy.ts';
import { ANSWERS, REFUSALS, UPLOADS } from './faults.ts';
import { expectClear, type FaultSite, openFaultSite } from './site.ts';

/** The real limits are minutes; here silence is over soon, and nobody is waited for. */
vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  return { ...real, LIMITS: { ...real.LIMITS, idleMs: 150, headersMs: 300, retryAfterMs: 20 } };
});

/** No case may take longer; a hang is a failure. */
const timeout = 20_000;

let site: FaultSite;

beforeAll(async () => {
  site = await openFaultSite({ images: 1 });
});
afterAll(() => site.close());
beforeEach(() => site.emptyTarget());

type Matches = (seen: Seen) => boolean;

/** Requests that carry a token: the first of all goes without, and its 401 is no fault. */
function asked(method: string, path: RegExp): Matches {
  return (seen) =>
    seen.method === method &&
    path.test(seen.url.split('?')[0] ?? '') &&
    seen.headers.authorization !== undefined;
}

/** The largest upload: a layer. */
function layerPut(seen: Seen): boolean {
  return asked('PUT', /\/blobs\/uploads\//)(seen) && Number(seen.headers['content-length']) > 100_000;
}

const PLACES: Readonly<Record<string, Matches>> = {
  'HEAD of a blob': asked('HEAD', /\/blobs\/sha256:/),
  'HEAD of a manifest': asked('HEAD', /\/manifests\//),
  'POST of an upload': asked('POST', /\/blobs\/uploads\/$/),
  'PUT of a layer': layerPut,
  'PUT of a manifest': asked('PUT', /\/manifests\/sha256:/),
  'PUT of a tag': asked('PUT', /\/manifests\/(?!sha256:)/),
};

/** Runs a load with the fault; then, where it failed, one without. The target is the same in the end. */
async function loadThrough(decide: FaultSite['target']['decide'], must: 'end' | 'end or tell' | 'tell') {
  const before = site.target.done.length;
  site.target.decide = decide;
  const first = await site.load();
  site.target.decide = () => undefined;
  expect(site.target.done.length).toBeGreaterThan(before);
  await site.checkSecrets(first, join(site.dir, 'receipt'));
  if (first.error !== undefined) expectClear(first.error);
  if (must === 'end') expect(first.error).toBeUndefined();
  if (must === 'tell') expect(first.error).toBeDefined();
  await site.checkTarget(first.error === undefined);
  if (first.error === undefined) return;
  expect((await site.load()).error).toBeUndefined();
  await site.checkTarget(true);
}

function withSelf(faults: readonly WireFault[]): WireFault[] {
  return faults.map((fault) =>
    fault.kind === 'answer' && fault.headers?.location === '{self}'
      ? { ...fault, headers: { location: '/v2/loop' } }
      : fault,
  );
}

describe('a load over a hostile network', () => {
  for (const [where, matches] of Object.entries(PLACES)) {
    const isHead = where.startsWith('HEAD');
    // Absence is what HEAD is asked for; a refused size is answered with chunks; a HEAD that fails is asked as GET.
    const soft = (name: string): boolean =>
      isHead || (where === 'PUT of a layer' && /404|413/.test(name)) || name.includes('circle');
    for (const fault of [...REFUSALS, ...ANSWERS.filter((f) => !isHead && f.name !== 'a wrong byte')]) {
      it(`${where}: ${fault.name}, once`, { timeout }, async () => {
        await loadThrough(inTurn(matches, withSelf(fault.faults(5))), fault.heals ? 'end' : 'end or tell');
      });
    }
    for (const fault of REFUSALS) {
      it(`${where}: ${fault.name}, every time`, { timeout }, async () => {
        const [first] = withSelf(fault.faults(0));
        if (first === undefined) throw new Error('no fault');
        await loadThrough(always(matches, first), soft(fault.name) ? 'end or tell' : 'tell');
      });
    }
  }

  for (const fault of UPLOADS) {
    for (const [start, at] of Object.entries({ first: 0, middle: 100_000, last: 190_000 })) {
      it(`PUT of a layer: ${fault.name} at the ${start} bytes, once`, { timeout }, async () => {
        await loadThrough(inTurn(layerPut, fault.faults(at)), fault.heals ? 'end' : 'end or tell');
      });
    }
    it(`PUT of a layer: ${fault.name}, every time`, { timeout }, async () => {
      const [first] = fault.faults(100_000);
      if (first === undefined) throw new Error('no fault');
      await loadThrough(always(layerPut, first), 'end or tell');
    });
  }

  const headOf = (path: RegExp, fault: WireFault) => always(asked('HEAD', path), fault);
  const other = `sha256:${'0'.repeat(64)}`;
  const lies: Readonly<Record<string, [RegExp, WireFault]>> = {
    'a blob that is not there': [/\/blobs\//, { kind: 'rewrite', status: 200, headers: {} }],
    'a manifest that is not there, without a digest': [
      /\/manifests\//,
      { kind: 'rewrite', status: 200, headers: { 'docker-content-digest': null } },
    ],
    'a blob of another length': [/\/blobs\//, { kind: 'rewrite', headers: { 'content-length': '3' } }],
    'nothing of what is there': [/\/blobs\//, { kind: 'rewrite', status: 404, headers: {} }],
  };
  for (const [name, [path, fault]] of Object.entries(lies)) {
    it(`a HEAD that lies: ${name}`, { timeout }, async () => {
      await loadThrough(headOf(path, fault), 'end');
    });
  }

  it('a HEAD that lies: a manifest with another digest', { timeout }, async () => {
    // A manifest is asked for only where its name is there already.
    expect((await site.load()).error).toBeUndefined();
    const fault = { kind: 'rewrite', status: 200, headers: { 'docker-content-digest': other } } as const;
    await loadThrough(headOf(/\/manifests\/sha256/, fault), 'end');
  });

  it('a HEAD that lies: a tag with another digest', { timeout }, async () => {
    const fault = { kind: 'rewrite', headers: { 'docker-content-digest': other } } as const;
    await loadThrough(headOf(/\/manifests\/(?!sha256)/, fault), 'end or tell');
  });
});
