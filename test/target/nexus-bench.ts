/** A Nexus to load into: the stand-in before the registry in memory, a bundle, and what came of a load. */
import { onTestFinished } from 'vitest';
import type { LoadedEntry, LoadResult } from '../../src/ops/load.ts';
import { load } from '../../src/ops/load.ts';
import { parseRegistryUrl, type RegistryPlace } from '../../src/ops/registry-place.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';
import type { FleetImage } from '../support/fleet.ts';
import {
  dockerRepository,
  type NexusStandIn,
  type StandInOptions,
  type StandInRecord,
  startNexusStandIn,
} from '../support/nexus-stand-in.ts';

export interface Bench {
  readonly nexus: NexusStandIn;
  /** The registry behind. */
  readonly behind: RunningRegistry;
}

/** A stand-in that ends with the test; its repository takes names once unless others are given. */
export async function runNexus(options: StandInOptions = {}): Promise<Bench> {
  const behind = await startRegistry({ storage: 'memory' });
  onTestFinished(() => behind.close());
  const once = dockerRepository('docker-hosted', { writePolicy: 'ALLOW_ONCE', pathEnabled: true });
  const nexus = await startNexusStandIn({ repositories: [once], ...options, upstream: behind.host });
  onTestFinished(() => nexus.close());
  return { nexus, behind };
}

export async function runSite(): Promise<Site> {
  const site = await makeSite();
  onTestFinished(() => site.close());
  return site;
}

/** A bundle of images. @param platforms default all */
export async function bundleOf(
  site: Site,
  images: readonly FleetImage[],
  options: { readonly name?: string; readonly platforms?: string } = {},
): Promise<string> {
  const { name = 'images', platforms = 'all' } = options;
  const refs: string[] = [];
  for (const image of images) refs.push(await site.addImage(image));
  const list = refs.map((ref) => `  - {ref: "${ref}", platforms: ${platforms}}\n`);
  return site.bundle(name, `images:\n${list.join('')}`);
}

export interface Loaded extends LoadResult {
  readonly entries: readonly LoadedEntry[];
  /** What the stand-in was asked for in this load. */
  readonly asked: readonly StandInRecord[];
  readonly events: ReturnType<typeof testContext>['events'];
}

/** Loads into the connector, or into what `more` says. */
export async function loadInto(
  { nexus }: Bench,
  bundle: string,
  more: Partial<RegistryPlace> & { readonly url?: string; readonly env?: Record<string, string> } = {},
): Promise<Loaded> {
  const { url = nexus.connector.url, env = {}, ...rest } = more;
  const at = parseRegistryUrl(url);
  const config = { ...at.config, insecure: true };
  const place = { ...at, naming: 'drop-host', indexPolicy: 'auto', ...rest, config } as const;
  const context = { ...testContext(), env };
  const before = nexus.requests.length;
  const result = await load({ bundle, registries: [place] }, context);
  const entries = result.targets.flatMap((t) => t.entries);
  return { ...result, entries, asked: nexus.requests.slice(before), events: context.events };
}

/** What failed, for a test that expects nothing. */
export function faultsOf(loaded: Loaded): unknown[] {
  return loaded.targets.flatMap((t) => [t.fault, ...t.entries.map((e) => e.fault)]).filter((f) => f !== null);
}

/** Requests that would change something. */
export function writesOf(loaded: Loaded): string[] {
  return loaded.asked
    .filter(({ method }) => method !== 'GET' && method !== 'HEAD')
    .map(({ method, url, status }) => `${method} ${url.split('?')[0]} ${status}`);
}

/** The digest of a name behind the stand-in. */
export async function digestBehind(
  { behind }: Bench,
  repository: string,
  reference: string,
): Promise<string | null> {
  const url = `${behind.url}/v2/${repository}/manifests/${reference}`;
  const response = await fetch(url, { method: 'HEAD', headers: { accept: '*/*' } });
  return response.headers.get('docker-content-digest');
}
