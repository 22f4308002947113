import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import type { Event } from '../../src/core/events.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { failureOf } from '../io/server.ts';
import { testContext } from '../support/bundles.ts';
import { makeFleet, pushImage } from '../support/fleet.ts';
import { startProxy } from '../support/proxy.ts';

/** The real limits are minutes and hours; here a wait is long above 15 ms. */
vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  return { ...real, LIMITS: { ...real.LIMITS, briefWaitMs: 15, limitProbeMs: 20 } };
});

interface Hub {
  readonly running: RunningRegistry;
  /** Pulls that are left; a GET of a manifest takes one. */
  left: number;
  /** Answers 429 so often when nothing is left, then gives 100 again. */
  refusals: number;
  gets: number;
  /** The first request for a manifest. */
  first: string;
}

const WINDOW = 'w=21600';

/** A registry that counts as Docker Hub does. */
async function startHub(): Promise<Hub> {
  const intercept = (request: IncomingMessage, response: ServerResponse): boolean => {
    if (request.url?.includes('/manifests/') !== true || request.method === 'PUT') return false;
    const isPull = request.method === 'GET';
    if (isPull) hub.gets += 1;
    hub.first ||= request.method ?? '';
    const isRefused = isPull && hub.left === 0;
    if (isPull && hub.left > 0) hub.left -= 1;
    response.setHeader('ratelimit-limit', `100;${WINDOW}`);
    response.setHeader('ratelimit-remaining', `${hub.left};${WINDOW}`);
    response.setHeader('docker-ratelimit-source', '203.0.113.7');
    if (!isRefused) return false;
    hub.refusals -= 1;
    if (hub.refusals <= 0) hub.left = 100;
    response.writeHead(429, { 'retry-after': '0.03' }).end('{"errors":[{"code":"TOOMANYREQUESTS"}]}');
    return true;
  };
  const running = await startRegistry({ storage: 'memory', intercept });
  onTestFinished(() => running.close());
  const hub: Hub = { running, left: 100, refusals: 0, gets: 0, first: '' };
  return hub;
}

/** A hub with two images of two platforms, a manifest that names them, and the way to it: docker.io through a proxy. */
async function site(registries = '  docker.io: {plainHttp: true}\n') {
  const dir = await mkdtemp(join(tmpdir(), 'sealift-pulls-'));
  onTestFinished(() => rm(dir, { recursive: true }));
  const hub = await startHub();
  const fleet = makeFleet({ images: 2, kinds: ['oci'], platforms: ['linux/amd64', 'linux/arm64'], seed: 3 });
  for (const [i, image] of fleet.entries()) {
    await pushImage(hub.running.host, { ...image, name: `library/app${i}`, tag: '1' });
  }
  const proxy = await startProxy({ hosts: { 'registry-1.docker.io': hub.running.host } });
  const manifestPath = join(dir, 'sealift.yaml');
  await writeFile(
    manifestPath,
    `apiVersion: sealift/v1\nname: hub\nversion: 1\nimages: [app0:1, app1:1]\nregistries:\n${registries}`,
  );
  hub.gets = 0;
  hub.first = '';
  const context = () => ({ ...testContext(), env: { HTTP_PROXY: proxy.url } });
  return { hub, manifestPath, out: join(dir, 'bundle.tar'), context };
}

/** An index and two manifests for each of two images. */
const PACK_PULLS = 6;

describe('pulls that Docker Hub counts (registry.md 1.3)', () => {
  it('[1.3-hub-headers, 1.3-hub-cost] are told before the first one, with what is left, by a request that is not counted', async () => {
    const { hub, manifestPath, out, context } = await site();
    const [locking, packing] = [context(), context()];
    await lock({ manifestPath }, locking);
    expect(locking.events.find((e) => e.type === 'note')).toEqual({
      type: 'note',
      message: 'docker.io: 2 pulls needed, 100 of 100 in 6 h are left for this address',
    });
    expect([hub.gets, hub.first]).toEqual([2, 'HEAD']);
    await pack({ manifestPath, out }, packing);
    expect(packing.events.find((e) => e.type === 'note')).toMatchObject({
      message: 'docker.io: 6 pulls needed, 98 of 100 in 6 h are left for this address',
    });
    expect(hub.gets).toBe(2 + PACK_PULLS);
  });

  it('are not told where there is nothing to ask for', async () => {
    const { hub, manifestPath, out, context } = await site();
    await lock({ manifestPath }, context());
    await pack({ manifestPath, out }, context());
    hub.first = '';
    const again = context();
    await lock({ manifestPath }, again);
    await pack({ manifestPath, out }, again);
    expect([hub.first, again.events.filter((e) => e.type === 'note')]).toEqual(['', []]);
  });

  it('that are too few are warned of, waited for with a countdown, and then the pack is whole', async () => {
    const { hub, manifestPath, out, context } = await site();
    await lock({ manifestPath }, context());
    Object.assign(hub, { left: 3, refusals: 5 });
    const packing = { ...context(), now: Date.now };
    expect((await pack({ manifestPath, out }, packing)).outcome).toBe('packed');
    const warning = packing.events.find((e) => e.type === 'warning');
    expect(warning).toMatchObject({ fault: { code: 'REGISTRY_RATE_LIMITED' } });
    expect(JSON.stringify(warning)).toContain('6 pulls needed, 3 of 100 in 6 h are left');
    expect(JSON.stringify(warning)).toContain('sealift login docker.io');
    expect(packing.events.find((e) => e.type === 'pause')).toMatchObject({ host: 'registry-1.docker.io' });
  });

  it('that are too few fail before the first one with --no-wait, with the time of the end', async () => {
    const { hub, manifestPath, out, context } = await site();
    await lock({ manifestPath }, context());
    Object.assign(hub, { left: 3, gets: 0 });
    const failure = (await failureOf(pack({ manifestPath, out, noWait: true }, context()))) as SealiftError;
    expect(failure).toMatchObject({
      code: 'REGISTRY_RATE_LIMITED',
      details: { needed: 6, remaining: 3, resetAt: '2026-11-01T06:00:00.000Z' },
    });
    expect(failure.message).toContain('2026-11-01T06:00:00Z');
    expect(failure.hint).toContain('sealift login docker.io');
    expect(hub.gets).toBe(0);
  });

  it('[1.3-hub-429] that run out on the way fail at once with --no-wait', async () => {
    const { hub, manifestPath, context } = await site();
    Object.assign(hub, { left: 0, refusals: 99 });
    const probe = context();
    const failing = failureOf(lock({ manifestPath, noWait: true }, probe));
    expect(await failing).toMatchObject({ code: 'REGISTRY_RATE_LIMITED' });
    expect(hub.gets).toBe(0);
    // Another client takes what the probe saw as left.
    hub.left = 2;
    const emit = (event: Event): void => {
      if (event.type === 'note') hub.left = 0;
    };
    const racing = { ...probe, emit };
    const failure = (await failureOf(lock({ manifestPath, noWait: true }, racing))) as SealiftError;
    expect(failure).toMatchObject({ code: 'REGISTRY_RATE_LIMITED' });
    expect(JSON.stringify(failure.faults)).toContain('the limit ends at 2026-11-01T00:00:00Z');
    expect(failure.hint).toContain('sealift login docker.io');
    expect(hub.gets).toBe(2);
  });

  it('are not asked about where a mirror is asked first', async () => {
    const mirror = await startHub();
    const { manifestPath, context } = await site(
      `  docker.io: {plainHttp: true, mirrors: ["http://${mirror.running.host}"]}\n`,
    );
    const locking = context();
    await lock({ manifestPath }, locking);
    expect(mirror.gets).toBe(2);
    expect(JSON.stringify(locking.events)).not.toContain('pulls needed');
  });
});
