/** A small source with images, a chart and files, its lock, and the bundle that is packed from it. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PlannedEntry } from '../../src/bundle/plan.ts';
import { openBundle } from '../../src/bundle/reader.ts';
import type { Context, Event } from '../../src/core/events.ts';
import { type LoadOptions, load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { type RegistryOptions, type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';
import { type FleetImage, type FleetOptions, pushFleet } from '../support/fleet.ts';

export interface Site {
  readonly dir: string;
  readonly source: RunningRegistry;
  readonly images: readonly FleetImage[];
  readonly manifestPath: string;
  readonly lockPath: string;
  path(...names: string[]): string;
  /** Writes sealift.yaml for these images (default all), one chart and two files, and locks it. */
  lockFor(images?: readonly FleetImage[]): Promise<void>;
  close(): Promise<void>;
}

/** What operations get: a still clock, no environment. Events go to `events` when it is given. */
export function contextOf(
  options: { readonly signal?: AbortSignal; readonly events?: Event[] } = {},
): Context {
  return {
    signal: options.signal ?? new AbortController().signal,
    emit: (event) => options.events?.push(event),
    env: {},
    now: () => Date.parse('2026-11-01T00:00:00Z'),
    random: () => 0,
  };
}

/** The source of a bundle: by default three images of a few KiB that share a layer. Locked, not packed. */
export async function openSite(
  options: { readonly fleet?: FleetOptions; readonly registry?: Partial<RegistryOptions> } = {},
): Promise<Site> {
  const dir = await mkdtemp(join(tmpdir(), 'sealift-site-'));
  const source = await startRegistry({ storage: 'memory', ...options.registry });
  const images = await pushFleet(source.host, {
    images: 3,
    layerSizes: [3000, 1000],
    baseSize: 6000,
    kinds: ['oci', 'docker', 'attested'],
    ...options.fleet,
  });
  await source.addChart('web-1.2.3.tgz', await chartArchive(demoFiles('web', '1.2.3'), 'web'));
  source.addFile('tool', '#!/bin/sh\necho tool\n');
  await writeFile(join(dir, 'notes.txt'), 'read me first\n'.repeat(60));
  const manifestPath = join(dir, 'sealift.yaml');
  const lockFor = async (of: readonly FleetImage[] = images): Promise<void> => {
    const text = [
      'apiVersion: sealift/v1',
      'name: site',
      'version: "2026.11"',
      'platforms: [linux/amd64]',
      'images:',
      ...of.map((i) => `  - ${source.host}/${i.name}:${i.tag}`),
      'charts:',
      `  - {name: web, version: 1.2.3, repo: "${source.url}/charts"}`,
      'files:',
      `  - {url: "${source.url}/files/tool", name: bin/tool, mode: "0755"}`,
      '  - {path: notes.txt, name: notes.txt}',
      '',
    ];
    await writeFile(manifestPath, text.join('\n'));
    await lock({ manifestPath }, contextOf());
  };
  await lockFor();
  return {
    dir,
    source,
    images,
    manifestPath,
    lockPath: join(dir, 'versions.lock'),
    path: (...names) => join(dir, ...names),
    lockFor,
    close: async () => {
      await source.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

export interface Packed {
  readonly path: string;
  /** Of the tar. */
  readonly bytes: Buffer;
  readonly entries: readonly PlannedEntry[];
}

/** Packs a site into `name` and reads the result. */
export async function packSite(site: Site, name = 'good.tar'): Promise<Packed> {
  const path = site.path(name);
  await pack({ manifestPath: site.manifestPath, out: path }, contextOf());
  const bundle = await openBundle(path, { signal: contextOf().signal });
  await bundle.close();
  if (bundle.plan === undefined) throw new Error('a bundle that was opened strictly has a plan');
  return { path, bytes: await readFile(path), entries: [...bundle.plan.entries] };
}

/** A registry as a place to load into. */
export function placeOf(registry: RunningRegistry): NonNullable<LoadOptions['registries']>[number] {
  const { host, config } = parseRegistryUrl(registry.url);
  return { host, config, prefix: '', naming: 'drop-host', indexPolicy: 'auto' };
}

/** Loads into an empty registry. @returns what failed there */
export async function failuresOnEmpty(given: Pick<LoadOptions, 'bundle' | 'others'>): Promise<number> {
  const target = await startRegistry({ storage: 'memory' });
  try {
    return (await load({ ...given, registries: [placeOf(target)] }, contextOf())).failed;
  } finally {
    await target.close();
  }
}

/** Even numbers in [0, 1) from a seed (mulberry32), so that a failing place can be tried again. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The seed of random places: SEALIFT_TEST_SEED, or always the same. */
export const SEED = Number(process.env.SEALIFT_TEST_SEED ?? 20261101);
