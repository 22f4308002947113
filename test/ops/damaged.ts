/** A good bundle, the same with a wrong byte, and targets that must not change. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, expect } from 'vitest';
import type { PlannedEntry } from '../../src/bundle/plan.ts';
import { exitCodeOf, type Fault, SealiftError } from '../../src/core/errors.ts';
import { digestOf } from '../../src/io/verify.ts';
import { type LoadOptions, load } from '../../src/ops/load.ts';
import { type VerifyOptions, verify } from '../../src/ops/verify.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, type Packed, packSite, placeOf, type Site } from '../bundle/site.ts';
import { makeFleet, pushImage } from '../support/fleet.ts';

/** A site and its good bundle for the tests of one file; closed after them. */
export async function openGood(): Promise<{ readonly site: Site; readonly good: Packed }> {
  const site = await openSite();
  afterAll(() => site.close());
  return { site, good: await packSite(site) };
}

export interface Place {
  readonly at: number;
  readonly part: 'header' | 'content' | 'padding' | 'end';
  readonly entry: PlannedEntry | undefined;
}

/** What lies at a byte of the archive. */
export function placeAt(good: Packed, at: number): Place {
  for (const entry of good.entries) {
    const end = entry.offset + entry.size;
    if (at < entry.offset) return { at, part: 'header', entry };
    if (at < end) return { at, part: 'content', entry };
    if (at < Math.ceil(end / 512) * 512) return { at, part: 'padding', entry };
  }
  return { at, part: 'end', entry: undefined };
}

export function describePlace({ at, part, entry }: Place): string {
  return `byte ${at}, ${part} of ${entry?.name ?? 'the archive'}`;
}

/** The bundle with one byte XORed. Returns its path. */
export async function damagedAt(
  site: Site,
  good: Packed,
  flip: { readonly at: number; readonly mask: number },
): Promise<string> {
  const { at, mask } = flip;
  const bytes = Buffer.from(good.bytes);
  bytes[at] = (bytes[at] ?? 0) ^ mask;
  const path = site.path('damaged.tar');
  await writeFile(path, bytes);
  return path;
}

/** What verify finds, whether it reports or throws; anything but a SealiftError goes through. */
export async function faultsOf(options: VerifyOptions): Promise<readonly Fault[]> {
  try {
    return (await verify(options, contextOf())).faults;
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    expect(exitCodeOf(error.code)).toBe(5);
    return error.faults;
  }
}

/** Everything that a user of these targets can see. */
export interface Seen {
  readonly tags: Readonly<Record<string, string>>;
  readonly files: Readonly<Record<string, string>>;
}

async function tagsOf(registry: RunningRegistry): Promise<Record<string, string>> {
  const tags: Record<string, string> = {};
  const { repositories } = (await (await fetch(`${registry.url}/v2/_catalog`)).json()) as {
    repositories: string[];
  };
  for (const repository of repositories) {
    const list = await fetch(`${registry.url}/v2/${repository}/tags/list`);
    const { tags: names } = (await list.json()) as { tags: string[] | null };
    for (const name of names ?? []) {
      const manifest = await fetch(`${registry.url}/v2/${repository}/manifests/${name}`);
      tags[`${repository}:${name}`] = digestOf(Buffer.from(await manifest.arrayBuffer()));
    }
  }
  return tags;
}

async function filesBelow(dir: string): Promise<Record<string, string>> {
  const found = await readdir(dir, { recursive: true, withFileTypes: true });
  const files: Record<string, string> = {};
  for (const d of found) {
    const path = join(d.parentPath, d.name);
    files[path] = d.isFile() ? digestOf(await readFile(path)) : 'folder';
  }
  return files;
}

/** Two registries and two folders, each with something older of the same names. */
export interface Targets {
  options(bundle: string): LoadOptions;
  seen(): Promise<Seen>;
  close(): Promise<void>;
}

export async function openTargets(site: Site, name: string): Promise<Targets> {
  const registries = [await startRegistry({ storage: 'memory' }), await startRegistry({ storage: 'memory' })];
  for (const registry of registries) {
    const [old] = makeFleet({ images: 1, layerSizes: [500], sharedBases: 0, seed: 99 });
    if (old !== undefined) await pushImage(registry.host, old);
  }
  const [trees, files] = [site.path(name, 'trees'), site.path(name, 'files')];
  await mkdir(join(trees, 'web-1.0.0'), { recursive: true });
  await writeFile(join(trees, 'web-1.0.0', 'Chart.yaml'), 'old\n');
  await mkdir(join(files, 'bin'), { recursive: true });
  await writeFile(join(files, 'bin', 'other'), 'old\n');
  return {
    options: (bundle) => ({
      bundle,
      registries: registries.map(placeOf),
      chartTrees: [trees],
      files: [files],
    }),
    seen: async () => ({
      tags: Object.assign({}, ...(await Promise.all(registries.map(tagsOf)))),
      files: { ...(await filesBelow(trees)), ...(await filesBelow(files)) },
    }),
    close: async () => {
      for (const registry of registries) await registry.close();
    },
  };
}

/** A load that must end with exit 5. */
export async function expectRefused(options: LoadOptions, what: string): Promise<SealiftError> {
  const outcome: unknown = await load(options, contextOf()).catch((e: unknown) => e);
  expect(outcome, what).toBeInstanceOf(SealiftError);
  if (!(outcome instanceof SealiftError)) throw new Error('not refused');
  expect(exitCodeOf(outcome.code), `${what}: ${outcome.message}`).toBe(5);
  return outcome;
}
