/** Every limit of what is read on the closed side is crossed once: the least value that lets good input pass, and one less. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { LIMITS } from '../../src/core/limits.ts';
import { tarHeader } from '../../src/io/tar.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, packSite, type Site } from '../bundle/site.ts';
import { changedHeader, joined, partsOf } from '../bundle/tar-parts.ts';
import { partOf } from '../fuzz/tars.ts';
import { layoutFiles, savedFiles, writeFolder } from '../support/archives.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';
import { makeFleet } from '../support/fleet.ts';

/** The limits, so that a test can set them. */
vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  return { ...real, LIMITS: { ...real.LIMITS } };
});

type Name = keyof typeof LIMITS;
const REAL = { ...LIMITS };

function setLimit(name: Name, value: number): void {
  Object.assign(LIMITS, REAL, { [name]: value });
}

/** Everything that is said of what is at a path; nothing when it is accepted. */
async function saidOf(path: string): Promise<readonly string[]> {
  try {
    return (await verify({ bundle: path, deep: true }, contextOf())).faults.map((f) => f.message);
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    return [error.message, ...error.faults.map((f) => f.message)];
  }
}

/** The least value of a limit with which a path is accepted. */
async function leastFor(path: string, name: Name): Promise<number> {
  let [refused, accepted] = [-1, REAL[name]];
  while (accepted - refused > 1) {
    const middle = Math.floor((refused + accepted) / 2);
    setLimit(name, middle);
    if ((await saidOf(path)).length === 0) accepted = middle;
    else refused = middle;
  }
  return accepted;
}

let site: Site;

beforeAll(async () => {
  site = await openSite({
    fleet: { images: 2, layerSizes: [600], baseSize: 700, kinds: ['attested', 'nested'] },
  });
  const inner = await chartArchive(demoFiles('inner'), 'inner');
  const chart = {
    ...demoFiles('web'),
    'values.yaml': 'x: 1\n'.repeat(2_000),
    'charts/inner-1.2.3.tgz': inner,
  };
  await site.source.addChart('web-1.2.3.tgz', await chartArchive(chart, 'web'));
  await rm(site.lockPath);
  await site.lockFor();
  const good = await packSite(site);
  await writeFolder(site.path('folder'), new Map(partsOf(good).map((p) => [p.name, p.body])));

  const [image] = makeFleet({ images: 1, layerSizes: [600], baseSize: 700, kinds: ['oci'] });
  if (image === undefined) throw new Error('no image');
  const saved = [...savedFiles(image, ['app:1']).files].map(([name, body]) => partOf(name, body));
  const pax = partOf('pax', Buffer.from('16 comment=abcd\n'));
  const comment = { ...pax, header: changedHeader(pax.header, { 156: 'x' }) };
  await writeFile(site.path('saved.tar'), joined([comment, ...saved]));
  await writeFile(site.path('saved.tar.gz'), gzipSync(joined(saved)));
  const layout = layoutFiles([image], () => ({ 'org.opencontainers.image.ref.name': 'a.example/app:1' }));
  await writeFile(site.path('layout.tar'), joined([...layout].map(([name, body]) => partOf(name, body))));
  await mkdir(site.path('archives'));
  for (const name of ['layout.tar', 'saved.tar', 'saved.tar.gz'])
    await writeFile(join(site.path('archives'), name), await readFile(site.path(name)));
});

afterEach(() => Object.assign(LIMITS, REAL));
afterAll(() => site.close());

/** What is read, and the limits that it meets. */
const CROSSED: readonly (readonly [path: string, limits: readonly Name[]])[] = [
  ['good.tar', ['bundleEntries', 'bundleDocument', 'lockText', 'lockLine', 'yamlDepth']],
  ['good.tar', ['manifest', 'indexChildren', 'indexDepth', 'layersPerManifest']],
  ['good.tar', ['chartArchive', 'chartUnpacked', 'chartFiles', 'chartYaml', 'chartDepth']],
  ['folder', ['bundleEntries', 'bundleDocument', 'manifest']],
  ['saved.tar', ['bundleEntries', 'tarMeta', 'tarNames', 'manifest', 'config']],
  ['saved.tar', ['indexChildren', 'layersPerManifest', 'savedLayers']],
  ['saved.tar.gz', ['archiveUnpacked', 'tarNames']],
  ['layout.tar', ['bundleEntries', 'bundleDocument', 'tarNames', 'manifest', 'indexChildren']],
  ['archives', ['imageListFiles']],
];

describe('a limit of what is read', () => {
  for (const [path, names] of CROSSED) {
    for (const name of names) {
      it(`${name} of ${path}: refuses the first that is too much, and is named`, async () => {
        const at = site.path(path);
        expect(await saidOf(at)).toEqual([]);
        const least = await leastFor(at, name);
        expect(least).toBeGreaterThan(0);
        setLimit(name, least);
        expect(await saidOf(at)).toEqual([]);
        setLimit(name, least - 1);
        const number = new RegExp(`(?<!\\d)${least - 1}(?!\\d)`);
        expect((await saidOf(at)).join('\n')).toMatch(number);
      });
    }
  }

  it('bounds what is said of bad headers too', async () => {
    const [first] = partsOf(await packSite(site, 'again.tar'));
    if (first === undefined) throw new Error('no entry');
    const signature = {
      ...partOf('B3SUMS.minisig', Buffer.alloc(0)),
      header: tarHeader('B3SUMS.minisig', 0),
    };
    const at = site.path('signatures.tar');
    await writeFile(at, joined([first, ...Array.from({ length: 60 }, () => signature)]));
    expect((await saidOf(at)).join('\n')).toContain('B3SUMS.minisig is not behind B3SUMS');
    setLimit('bundleEntries', 50);
    expect((await saidOf(at)).join('\n')).toContain('more than 50 bad headers');
  });
});
