import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Context, Event } from '../../src/core/events.ts';
import { diff } from '../../src/ops/diff.ts';
import { type LoadOptions, load } from '../../src/ops/load.ts';
import { checkLockFile, lock } from '../../src/ops/lock.ts';
import { ls } from '../../src/ops/ls.ts';
import { pack } from '../../src/ops/pack.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { verify } from '../../src/ops/verify.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { chartArchive, demoFiles, writeChart } from '../support/charts.ts';
import { type FleetImage, makeFleet, pushImage } from '../support/fleet.ts';

let dir: string;
let source: RunningRegistry;
let target: RunningRegistry;
let events: Event[];

function context(): Context {
  return {
    signal: new AbortController().signal,
    emit: (event) => events.push(event),
    env: {},
    now: () => Date.parse('2026-11-01T00:00:00Z'),
    random: () => 0,
  };
}

function registry(at: RunningRegistry, prefix = ''): NonNullable<LoadOptions['registries']>[number] {
  const { host, config } = parseRegistryUrl(at.url);
  return { host, config, prefix, naming: 'drop-host', indexPolicy: 'auto' };
}

async function writeManifest(images: readonly FleetImage[]): Promise<string> {
  const path = join(dir, 'sealift.yaml');
  const refs = images.map((i) => `  - ${source.host}/${i.name}:${i.tag}`);
  const text = [
    'apiVersion: sealift/v1',
    'name: site',
    'version: 1.10',
    'platforms: [linux/amd64, linux/arm64]',
    'images:',
    ...refs,
    'charts:',
    `  - {name: web, version: 1.2.3, repo: "${source.url}/charts"}`,
    '  - {path: own}',
    'files:',
    `  - {url: "${source.url}/files/tool", name: bin/tool, mode: "0755"}`,
    '  - {path: notes, name: notes}',
    '',
  ];
  await writeFile(path, text.join('\n'));
  return path;
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-main-'));
  events = [];
  source = await startRegistry({ storage: 'memory' });
  target = await startRegistry({ storage: 'memory' });
  await source.addChart('web-1.2.3.tgz', await chartArchive(demoFiles('web', '1.2.3'), 'web'));
  await source.addChart('db-0.4.0.tgz', await chartArchive(demoFiles('db', '0.4.0'), 'db'));
  source.addFile('tool', 'a tool\n');
  const needs = `dependencies:\n  - {name: db, version: ^0.4.0, repository: "${source.url}/charts"}\n`;
  const own = demoFiles('own', '0.1.0');
  await writeChart(join(dir, 'own'), { ...own, 'Chart.yaml': `${own['Chart.yaml']}${needs}` });
  await mkdir(join(dir, 'notes'));
  await writeFile(join(dir, 'notes', 'a.txt'), 'note a\n');
});

afterEach(async () => {
  await source.close();
  await target.close();
  await rm(dir, { recursive: true, force: true });
});

describe('the main job', () => {
  it('locks, packs, verifies, lists, loads and loads again without sending anything', async () => {
    const images = makeFleet({ images: 4, platforms: ['linux/amd64', 'linux/arm64'], seed: 7 });
    for (const image of images) await pushImage(source.host, image);
    const manifestPath = await writeManifest(images);

    const locked = await lock({ manifestPath }, context());
    expect(locked.written).toBe(true);
    expect(locked.lock.images).toHaveLength(4);
    expect(locked.lock.charts.map((c) => c.name)).toEqual(['db', 'own', 'web']);
    expect(locked.lock.files.map((f) => f.name)).toEqual(['bin/tool', 'notes/a.txt']);
    expect((await lock({ manifestPath }, context())).written).toBe(false);
    expect((await checkLockFile({ manifestPath, online: true }, context())).faults).toEqual([]);

    const out = join(dir, 'out', 'site.tar');
    const packed = await pack({ manifestPath, out }, context());
    expect(packed.outcome).toBe('packed');
    expect((await readFile(out)).length).toBe(packed.size);
    const again = await pack({ manifestPath, out }, context());
    expect([again.outcome, again.compared]).toEqual(['present', 'headers']);

    const checked = await verify({ bundle: out, lockPath: locked.path }, context());
    expect(checked.faults).toEqual([]);
    expect(checked.chain).toBe('lock');

    const listed = await ls(out, context());
    expect(listed.artifacts).toHaveLength(9);
    expect((await diff(out, locked.path, context())).equal).toBe(true);

    const options: LoadOptions = {
      bundle: out,
      registries: [registry(target, 'mirror')],
      chartTrees: [join(dir, 'charts', 'external')],
      files: [join(dir, 'site-files')],
    };
    const loaded = await load(options, context());
    expect(
      loaded.targets.flatMap((t) => [t.fault, ...t.entries.map((e) => e.fault)]).filter((f) => f !== null),
    ).toEqual([]);
    expect(loaded.failed).toBe(0);
    expect(await readFile(join(dir, 'site-files', 'bin', 'tool'), 'utf8')).toBe('a tool\n');
    expect(await readFile(join(dir, 'charts', 'external', 'versions.lock'), 'utf8')).toBe(
      await readFile(locked.path, 'utf8'),
    );
    const sent = target.requests.length;
    const second = await load(options, context());
    expect(second.failed).toBe(0);
    expect(second.targets.flatMap((t) => t.entries).every((e) => e.state === 'present')).toBe(true);
    const writes = target.requests.slice(sent).filter((r) => r.method !== 'GET' && r.method !== 'HEAD');
    expect(writes).toEqual([]);
  });
});
