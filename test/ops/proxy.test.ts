import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { testContext } from '../support/bundles.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';
import { makeFleet, pushImage } from '../support/fleet.ts';
import { startProxy } from '../support/proxy.ts';

async function registry(): Promise<RunningRegistry> {
  const running = await startRegistry({ storage: 'memory' });
  onTestFinished(() => running.close());
  return running;
}

it('lock, pack and load go through a proxy that wants a login, for images, charts and files', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'sealift-proxied-'));
  onTestFinished(() => rm(dir, { recursive: true }));
  const [source, target] = [await registry(), await registry()];
  const images = makeFleet({ images: 2, platforms: ['linux/amd64'], seed: 5 });
  for (const image of images) await pushImage(source.host, image);
  await source.addChart('web-1.2.3.tgz', await chartArchive(demoFiles('web', '1.2.3'), 'web'));
  source.addFile('tool', 'a tool\n');
  const hosts = { 'source.example:5000': source.host, 'target.example:5000': target.host };
  const proxy = await startProxy({ hosts, login: 'ann:hunter2' });
  const manifestPath = join(dir, 'sealift.yaml');
  const text = [
    'apiVersion: sealift/v1',
    'name: proxied',
    'version: 1',
    'platforms: [linux/amd64]',
    'images:',
    ...images.map((i) => `  - source.example:5000/${i.name}:${i.tag}`),
    'charts:',
    '  - {name: web, version: 1.2.3, repo: "http://source.example:5000/charts"}',
    'files:',
    '  - {url: "http://source.example:5000/files/tool", name: bin/tool}',
    'registries:',
    '  "source.example:5000": {plainHttp: true}',
    '',
  ];
  await writeFile(manifestPath, text.join('\n'));
  const context = { ...testContext(), env: { HTTP_PROXY: proxy.url.replace('//', '//ann:hunter2@') } };
  const out = join(dir, 'bundle.tar');

  expect((await lock({ manifestPath }, context)).lock.images).toHaveLength(2);
  expect((await pack({ manifestPath, out }, context)).outcome).toBe('packed');
  const loaded = await load(
    {
      bundle: out,
      registries: [
        {
          host: 'target.example:5000',
          prefix: '',
          config: { plainHttp: true },
          naming: 'drop-host',
          indexPolicy: 'auto',
        },
      ],
      receiptPath: join(dir, 'receipt.json'),
    },
    context,
  );
  expect(loaded.failed).toBe(0);
  const served = proxy.asked.filter((line) => line.includes('.example:5000/')).length;
  expect(served).toBe(proxy.asked.length);
  expect(proxy.asked.some((line) => line.startsWith('PUT http://target.example:5000/v2/'))).toBe(true);
  const left = [await readFile(join(dir, 'receipt.json'), 'utf8'), JSON.stringify(context.events)].join();
  expect(left).not.toContain('hunter2');
});
