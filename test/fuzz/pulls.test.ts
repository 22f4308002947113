import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { bundleManifest, chunkTitles, splitBytes } from '../../src/bundle/chunks.ts';
import type { Digest } from '../../src/core/digest.ts';
import { digestOf } from '../../src/io/verify.ts';
import { parseBundlePlace } from '../../src/ops/bundle-place.ts';
import { pull } from '../../src/ops/pull.ts';
import { contextOf, openSite, packSite } from '../bundle/site.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, chanceOf } from './chance.ts';
import { changeDocument } from './json.ts';
import { fuzz, HOUR, openRoom, type Room } from './room.ts';

vi.mock('node:fs', async (original) => (await import('./watch.ts')).watchedPlain(await original()));
vi.mock('node:fs/promises', async (original) =>
  (await import('./watch.ts')).watchedPromises(await original()),
);

/** What the server answers to one pull. */
interface Answers {
  readonly manifest: Buffer;
  readonly headers: Readonly<Record<string, string>>;
  /** What becomes of a blob's answer. */
  readonly change: (bytes: Buffer) => Buffer;
  readonly status: number;
}

let room: Room;
let server: Server;
let host = '';
let bundle: Buffer;
let answers: Answers;
const blobs = new Map<string, Buffer>();
const label = { name: 'site', version: '2026.11', lock: `sha256:${'5'.repeat(64)}` as Digest };

beforeAll(async () => {
  const fleet = { images: 1, layerSizes: [600], baseSize: 700, kinds: ['oci' as const] };
  const site = await openSite({ fleet });
  bundle = (await packSite(site)).bytes;
  await site.close();
  room = openRoom();
  server = createServer((request, response) => {
    const path = request.url ?? '';
    if (path.includes('/manifests/')) {
      response.writeHead(answers.status, answers.headers).end(answers.manifest);
      return;
    }
    const bytes = blobs.get(decodeURIComponent(path.slice(path.lastIndexOf('/') + 1)));
    const body = bytes === undefined ? Buffer.from('{}') : answers.change(bytes);
    response.writeHead(bytes === undefined ? 404 : 200, { 'content-length': String(body.length) }).end(body);
  });
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  room.close();
});

/** The manifest of the bundle in chunks of a size; its chunks are there to be fetched. */
function pushed(size: number): Buffer {
  const spans = splitBytes(bundle.length, size);
  const titles = chunkTitles(label, spans.length);
  const chunks = spans.map((span, i) => {
    const bytes = bundle.subarray(span.offset, span.offset + span.size);
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    return { ...span, digest, title: titles[i] ?? '' };
  });
  return bundleManifest(label, chunks).bytes;
}

function answersOf(chance: Chance): Answers {
  const good = pushed(chance.of([4096, 8192, 10_000, 65_536, bundle.length, bundle.length * 2]));
  const manifest = chance.once(6)
    ? changeBytes(good, chance)
    : chance.once(5)
      ? good
      : changeDocument(good, chance);
  const type = 'application/vnd.oci.image.manifest.v1+json';
  const types = [type, type, type, type, 'application/json', 'text/html', 'x'.repeat(5000)];
  const digests = [digestOf(manifest), digestOf(manifest), digestOf(good), 'sha256:x'];
  const digest: Record<string, string> = chance.once(2)
    ? {}
    : { 'docker-content-digest': chance.of(digests) };
  return {
    manifest,
    headers: { 'content-type': chance.of(types), ...digest },
    change: chance.once(5) ? (bytes) => changeBytes(bytes, chance) : (bytes) => bytes,
    status: chance.once(20) ? chance.of([204, 206, 304, 401, 404, 416]) : 200,
  };
}

describe('a pull', () => {
  it(
    'makes a bundle of chunks that are what its manifest says, or ends with our errors',
    { timeout: HOUR },
    async () => {
      const make = (seed: number) => {
        for (const name of readdirSync(room.path('in'))) rmSync(room.path('in', name), { recursive: true });
        const chance = chanceOf(seed);
        answers = answersOf(chance);
        const out = room.path('in', chance.once(2) ? 'out.tar' : 'out/');
        const reference = chance.once(4) ? `@${digestOf(answers.manifest)}` : ':1';
        const from = parseBundlePlace(`oci://${host}/bundles/site${reference}`);
        return async () => {
          await pull({ from, out }, contextOf());
          return [];
        };
      };
      /** Files that a pull made, in order; an interrupted one leaves others beside them. */
      const made = (): string[] =>
        readdirSync(room.path('in'), { recursive: true, withFileTypes: true })
          .filter((d) => !d.isDirectory() && !/\.pull(\.journal)?$/.test(d.name))
          .map((d) => join(d.parentPath, d.name))
          .sort();
      const accepted = (seed: number): void => {
        const body = JSON.parse(answers.manifest.toString()) as { layers: { digest: string }[] };
        const bytes = Buffer.concat(made().map((name) => readFileSync(name)));
        const wanted = Buffer.concat(body.layers.map(({ digest }) => blobs.get(digest) ?? Buffer.alloc(0)));
        expect(bytes.equals(wanted), `seed ${seed}`).toBe(true);
      };
      const refused = (seed: number): void => {
        expect(made(), `seed ${seed}`).toEqual([]);
      };
      expect(await fuzz('pulls', { room, share: 0.02, make, accepted, refused })).toBeGreaterThan(0);
    },
  );
});
