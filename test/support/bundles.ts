/** Short ways to a locked and packed bundle for tests: a source registry, a manifest, the verbs. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Context, Event } from '../../src/core/events.ts';
import type { ImageLock } from '../../src/lock/schema.ts';
import type { LoadOptions } from '../../src/ops/load.ts';
import { type LockOptions, lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { chartArchive, type demoFiles } from './charts.ts';
import { type FleetImage, pushImage } from './fleet.ts';

/** A context that never waits and keeps what was emitted. */
export function testContext(): Context & { readonly events: Event[]; readonly controller: AbortController } {
  const controller = new AbortController();
  const events: Event[] = [];
  return {
    controller,
    events,
    signal: controller.signal,
    emit: (event) => void events.push(event),
    env: {},
    now: () => Date.parse('2026-11-01T00:00:00Z'),
    random: () => 0,
  };
}

export interface Site {
  readonly dir: string;
  readonly source: RunningRegistry;
  /** Writes files below `dir`. */
  put(path: string, text: string | Uint8Array): Promise<string>;
  addImage(image: FleetImage): Promise<string>;
  addChart(name: string, version: string, files: ReturnType<typeof demoFiles>): Promise<void>;
  /** Writes `<name>/sealift.yaml`, locks and packs it to `<name>/bundle.tar`, and returns the bundle's path. */
  bundle(name: string, manifest: string): Promise<string>;
  close(): Promise<void>;
}

/** A folder and a source registry in memory, both gone after `close`. */
export async function makeSite(): Promise<Site> {
  const dir = await mkdtemp(join(tmpdir(), 'sealift-site-'));
  const source = await startRegistry({ storage: 'memory' });
  const put = async (path: string, text: string | Uint8Array): Promise<string> => {
    const at = join(dir, path);
    await mkdir(dirname(at), { recursive: true });
    await writeFile(at, text);
    return at;
  };
  return {
    dir,
    source,
    put,
    addImage: async (image) => {
      await pushImage(source.host, image);
      return `${source.host}/${image.name}:${image.tag}`;
    },
    addChart: async (name, version, files) => {
      await source.addChart(`${name}-${version}.tgz`, await chartArchive(files, name));
    },
    bundle: async (name, manifest) => {
      const head = `apiVersion: sealift/v1\nname: ${name}\nversion: "1"\n`;
      const manifestPath = await put(`${name}/sealift.yaml`, `${head}${manifest}`);
      await lock({ manifestPath }, testContext());
      const out = join(dir, name, 'bundle.tar');
      await pack({ manifestPath, out }, testContext());
      return out;
    },
    close: async () => {
      await source.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Locks and packs manifests of one site, and keeps what the last run told. */
export interface Runs {
  /** @returns the first image of the lock */
  lock(manifestPath: string, options?: Partial<LockOptions>): Promise<ImageLock | undefined>;
  /** @returns the path of the bundle */
  pack(manifestPath: string): Promise<string>;
  /** The notes of the last run. */
  notes(): string[];
}

export function makeRuns(site: Site): Runs {
  let context = testContext();
  return {
    lock: async (manifestPath, options = {}) => {
      context = testContext();
      return (await lock({ manifestPath, ...options }, context)).lock.images.at(0);
    },
    pack: async (manifestPath) => {
      context = testContext();
      const out = join(site.dir, 'out.tar');
      await pack({ manifestPath, out }, context);
      return out;
    },
    notes: () => context.events.flatMap((e) => (e.type === 'note' ? [e.message] : [])),
  };
}

/** A running embedded registry as a target of `load`. */
export function placeOf(
  registry: { readonly url: string },
  more: Partial<NonNullable<LoadOptions['registries']>[number]> = {},
): NonNullable<LoadOptions['registries']>[number] {
  return { ...parseRegistryUrl(registry.url), naming: 'drop-host', indexPolicy: 'auto', ...more };
}
