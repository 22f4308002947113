/** Manifests of a pack: each is asked for once, and lies in a file until it is written. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished, vi } from 'vitest';
import { MEDIA } from '../../src/core/media.ts';
import { Spool } from '../../src/io/spool.ts';
import { digestOf } from '../../src/io/verify.ts';
import { lock } from '../../src/ops/lock.ts';
import { ManifestSpool } from '../../src/ops/manifest-spool.ts';
import { pack } from '../../src/ops/pack.ts';
import { type Answer, startServer, testContext } from '../io/server.ts';

const TEXTS = ['one', 'two, longer', '', 'three'].map((text) => Buffer.from(text));

async function openSpool(): Promise<ManifestSpool> {
  const spool = await ManifestSpool.open(testContext());
  onTestFinished(() => spool.close());
  return spool;
}

it('gives back each manifest that was put, also where some are put twice at once', async () => {
  const spool = await openSpool();
  await Promise.all(TEXTS.flatMap((b) => [b, b, b]).map((b) => spool.put(digestOf(b), b)));
  for (const bytes of TEXTS) expect(await spool.read(digestOf(bytes))).toEqual(bytes);
  expect(await spool.read(digestOf('never put'))).toBeUndefined();
});

it('gives nothing where the disk gives back something else', async () => {
  const spool = await openSpool();
  const bytes = Buffer.from('right');
  await spool.put(digestOf(bytes), bytes);
  const read = vi.spyOn(Spool.prototype, 'read').mockImplementation(async function* () {
    yield Buffer.from('wrong');
  });
  onTestFinished(() => read.mockRestore());
  expect(await spool.read(digestOf(bytes))).toBeUndefined();
});

/** Three names of one image on one host. @returns who was asked for its manifest in a pack; `lacking` answers 404 then */
async function askedInPack(lacking: readonly string[]): Promise<string[]> {
  const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64' }));
  const described = { mediaType: MEDIA.ociConfig, digest: digestOf(config), size: config.length };
  const manifest = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociManifest, config: described, layers: [] }),
  );
  const asked: string[] = [];
  let isPack = false;
  const answer: Answer = async ({ url = '' }, response) => {
    const [, name = '', reference = ''] = /^\/v2\/(\w)\/(?:manifests|blobs)\/(.*)$/.exec(url) ?? [];
    if (url === '/v2/') return response.end();
    if (reference === digestOf(config)) return response.end(config);
    if (!['1', digestOf(manifest)].includes(reference)) return response.writeHead(404).end();
    if (isPack) asked.push(name);
    // The others have time to ask meanwhile.
    await new Promise((done) => setTimeout(done, 50));
    if (isPack && lacking.includes(name)) return response.writeHead(404).end();
    return response.writeHead(200, { 'content-type': MEDIA.ociManifest }).end(manifest);
  };
  const servers = await Promise.all([1, 2, 3].map(() => startServer(answer)));
  const dir = await mkdtemp(join(tmpdir(), 'sealift-manifests-'));
  onTestFinished(() => rm(dir, { recursive: true }));
  const manifestPath = join(dir, 'sealift.yaml');
  const hosts = servers.map(({ host }) => host).sort();
  const refs = ['a', 'b', 'c'].map((name, i) => `${hosts[i]}/${name}:1`).join(', ');
  await writeFile(manifestPath, `apiVersion: sealift/v1\nname: n\nversion: "1"\nimages: [${refs}]\n`);
  await lock({ manifestPath }, testContext());
  isPack = true;
  const outcome: unknown = await pack({ manifestPath, out: join(dir, 'out.tar') }, testContext()).catch(
    (error: unknown) => error,
  );
  expect(outcome).toMatchObject(lacking.length === 0 ? { outcome: 'packed' } : { code: 'CONTENT_NOT_FOUND' });
  return asked;
}

it('asks once for a manifest that several images have, and elsewhere only where it lacks', async () => {
  expect(await askedInPack([])).toEqual(['a']);
  expect(await askedInPack(['a'])).toEqual(['a', 'b']);
});
