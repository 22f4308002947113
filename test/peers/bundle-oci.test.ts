import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBundle } from '../../src/bundle/reader.ts';
import { parseBundlePlace } from '../../src/ops/bundle-place.ts';
import { pull } from '../../src/ops/pull.ts';
import { push } from '../../src/ops/push.ts';
import { someBytes } from '../io/server.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';
import { peer, type Registry, run, startRegistry } from '../support/peers.ts';

/** A bundle goes through real registries, and the ORAS library (scripts/oras) fetches it without Sealift. */

const CHUNK = 3_000_000;

let site: Site;
let bundle: string;
let whole: string;
const registries: Registry[] = [];

async function sha256Of(paths: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const path of paths) for await (const piece of createReadStream(path)) hash.update(piece);
  return hash.digest('hex');
}

beforeAll(async () => {
  site = await makeSite();
  site.source.addFile('weights', someBytes(14_000_000));
  bundle = await site.bundle(
    'astrago',
    `files: [{url: "http://${site.source.host}/files/weights", name: weights.bin}]\n`,
  );
  whole = await sha256Of([bundle]);
  for (const program of ['docker-registry', 'registry3'] as const) {
    registries.push(await startRegistry({ program }));
  }
});

afterAll(async () => {
  await Promise.all([site?.close(), ...registries.map((r) => r.stop())]);
});

describe.each([
  ['distribution 2.8', 0],
  ['distribution 3', 1],
] as const)('%s', (_, at) => {
  const url = (): string => registries[at]?.url ?? '';

  it('takes a bundle, knows it the second time, and gives it back', async () => {
    const to = parseBundlePlace(`oci://${url()}/bundles/astrago:v1`);
    const pushed = await push({ bundle, to, chunkSize: CHUNK }, testContext());
    expect(pushed).toMatchObject({ outcome: 'pushed', sent: { chunks: 5 } });
    const again = await push({ bundle, to, chunkSize: CHUNK }, testContext());
    expect(again).toMatchObject({ outcome: 'present', digest: pushed.digest });
    const out = join(site.dir, `pulled-${at}.tar`);
    const from = parseBundlePlace(`oci://${url()}/bundles/astrago@${pushed.digest}`);
    expect(await pull({ from, out }, testContext())).toMatchObject({ outcome: 'pulled' });
    expect(await sha256Of([out])).toBe(whole);
  });

  it('lets the ORAS client make volumes of it, which cat joins and Sealift reads', async () => {
    const folder = join(site.dir, `oras-${at}`);
    await run(peer('oras'), ['pull', `${url()}/bundles/astrago:v1`, folder]);
    const names = (await readdir(folder)).sort();
    expect(names).toEqual([1, 2, 3, 4, 5].map((n) => `astrago-1.tar.00${n}`));
    const paths = names.map((name) => join(folder, name));
    expect(await sha256Of(paths)).toBe(whole);
    const { signal } = testContext();
    const opened = await openBundle(paths[0] ?? '', { signal });
    await opened.close();
    expect(opened.faults).toEqual([]);
  });

  it('lets the ORAS client copy it as the artifact that it is', async () => {
    const layout = join(site.dir, `layout-${at}`);
    const copied = await run(peer('oras'), ['copy', `${url()}/bundles/astrago:v1`, layout]);
    const digest = copied.stdout.trim();
    const bytes = await readFile(join(layout, 'blobs', 'sha256', digest.slice(7)), 'utf8');
    expect(JSON.parse(bytes)).toMatchObject({ artifactType: 'application/vnd.dev.sealift.bundle.v1' });
  });
});
