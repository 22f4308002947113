/** Who is asked for a blob that several images have: the first of the lock, whatever manifest comes first. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished, vi } from 'vitest';
import { MEDIA } from '../../src/core/media.ts';
import { digestOf } from '../../src/io/verify.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { type Answer, type Asked, startServer, testContext } from '../io/server.ts';

const SHARED = Buffer.from('the layer that all of them have');
const CONFIG = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64' }));
const describe = (mediaType: string, bytes: Buffer) => ({
  mediaType,
  digest: digestOf(bytes),
  size: bytes.length,
});

/** An image of the shared layer and its own; `embeds` has the shared one in the manifest itself. */
function manifestOf(name: string, embeds: boolean): { manifest: Buffer; own: Buffer } {
  const own = Buffer.from(`the layer of ${name}`);
  const shared = describe(MEDIA.ociLayer, SHARED);
  const layers = [
    { ...shared, ...(embeds ? { data: SHARED.toString('base64') } : {}) },
    describe(MEDIA.ociLayer, own),
  ];
  const config = describe(MEDIA.ociConfig, CONFIG);
  const text = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociManifest, config, layers });
  return { manifest: Buffer.from(text), own };
}

/**
 * Locks three images, and packs them while their manifests come in this order.
 * @returns the repositories that were asked for the shared layer
 */
async function askedFor(order: readonly string[], embedding: readonly string[] = []): Promise<string[]> {
  const images = new Map(['a', 'b', 'c'].map((name) => [name, manifestOf(name, embedding.includes(name))]));
  const answered: string[] = [];
  let isPack = false;
  const answer: Answer = async ({ url = '' }, response) => {
    const [, name = '', kind, reference = ''] = /^\/v2\/(\w)\/(manifests|blobs)\/(.*)$/.exec(url) ?? [];
    const image = images.get(name);
    if (url === '/v2/') return response.end();
    if (image === undefined) return response.writeHead(404).end();
    const { manifest, own } = image;
    if (kind === 'manifests' && ['1', digestOf(manifest)].includes(reference)) {
      const before = order.slice(0, order.indexOf(name));
      if (isPack) {
        await vi.waitFor(() => expect(answered).toEqual(before), { timeout: 5000, interval: 20 });
        response.once('finish', () => answered.push(name));
      }
      return response.writeHead(200, { 'content-type': MEDIA.ociManifest }).end(manifest);
    }
    const blob = [SHARED, CONFIG, own].find((bytes) => digestOf(bytes) === reference);
    return blob === undefined ? response.writeHead(404).end() : response.end(blob);
  };
  // Each has a host of its own, because one host is not asked for all manifests at once. The lock has them by name.
  const servers = await Promise.all([...images.keys()].map(() => startServer(answer)));
  servers.sort((one, other) => (one.host < other.host ? -1 : 1));
  const dir = await mkdtemp(join(tmpdir(), 'sealift-suppliers-'));
  onTestFinished(() => rm(dir, { recursive: true }));
  const manifestPath = join(dir, 'sealift.yaml');
  const refs = [...images.keys()].map((name, i) => `${servers[i]?.host}/${name}:1`).join(', ');
  await writeFile(manifestPath, `apiVersion: sealift/v1\nname: n\nversion: "1"\nimages: [${refs}]\n`);
  await lock({ manifestPath }, testContext());
  isPack = true;
  const before = servers.map(({ asked }) => asked.length);
  await pack({ manifestPath, out: join(dir, 'out.tar') }, testContext());
  const isShared = ({ url }: Asked): boolean => url.endsWith(`/blobs/${digestOf(SHARED)}`);
  const since = servers.flatMap(({ asked }, i) => asked.slice(before[i]));
  return since.flatMap((one) => (isShared(one) ? [one.url.slice(4, 5)] : []));
}

it.each([['a b c'], ['c b a'], ['b c a'], ['c a b']])(
  'a shared blob is asked of the first image of the lock where manifests come as %s',
  async (order) => {
    expect(await askedFor(order.split(' '))).toEqual(['a']);
  },
);

it.each([['a b c'], ['c b a']])(
  'what the first image embeds is asked of nobody, and what another embeds is not taken from it (%s)',
  async (order) => {
    expect(await askedFor(order.split(' '), ['a'])).toEqual([]);
    expect(await askedFor(order.split(' '), ['b', 'c'])).toEqual(['a']);
  },
);
