/** A source registry with images, a chart and a file, and a folder with a manifest that asks for all of them. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type RegistryOptions, type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { chartArchive } from '../support/charts.ts';
import { type FleetImage, pushFleet } from '../support/fleet.ts';

export interface Site {
  readonly dir: string;
  readonly source: RunningRegistry;
  readonly images: readonly FleetImage[];
  readonly manifest: string;
  writeManifest(text: string): Promise<void>;
  path(name: string): string;
  close(): Promise<void>;
}

function manifestText(host: string, images: readonly FleetImage[]): string {
  return [
    'apiVersion: sealift/v1',
    'name: astrago',
    'version: "2026.11"',
    'platforms: [linux/amd64]',
    'images:',
    ...images.map((i) => `  - ${host}/${i.name}:${i.tag}`),
    'charts:',
    `  - {name: demo, version: 1.2.3, repo: "http://${host}/charts"}`,
    'files:',
    `  - {url: "http://${host}/files/tool", name: bin/tool, mode: "0755"}`,
    '',
  ].join('\n');
}

/** Opens a site; small images so that a whole job takes a moment. */
export async function openSite(options: Partial<RegistryOptions> = {}): Promise<Site> {
  const dir = await mkdtemp(join(tmpdir(), 'sealift-cli-'));
  const source = await startRegistry({ storage: 'memory', ...options });
  const images = await pushFleet(source.host, {
    images: 2,
    layerSizes: [4096],
    baseSize: 8192,
    kinds: ['oci', 'docker'],
  });
  await source.addChart('demo-1.2.3.tgz', await chartArchive());
  source.addFile('tool', '#!/bin/sh\necho tool\n');
  const manifest = manifestText(source.host, images);
  const writeManifest = (text: string): Promise<void> => writeFile(join(dir, 'sealift.yaml'), text);
  await writeManifest(manifest);
  return {
    dir,
    source,
    images,
    manifest,
    writeManifest,
    path: (name) => join(dir, name),
    close: async () => {
      await source.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
