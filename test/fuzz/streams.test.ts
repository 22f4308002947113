import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { load } from '../../src/ops/load.ts';
import { verify } from '../../src/ops/verify.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, packSite, placeOf } from '../bundle/site.ts';
import { hostileBundle, type Origin, originOf } from './bundles.ts';
import { type Chance, chanceOf } from './chance.ts';
import { expectHonest } from './honest.ts';
import { fuzz, HOUR, openRoom, type Room } from './room.ts';

vi.mock('node:fs', async (original) => (await import('./watch.ts')).watchedPlain(await original()));
vi.mock('node:fs/promises', async (original) =>
  (await import('./watch.ts')).watchedPromises(await original()),
);

let room: Room;
let origins: Origin[];
let server: Server;
/** What the server has. */
let served = Buffer.alloc(0) as Buffer;
let address = '';

beforeAll(async () => {
  origins = [];
  for (const kinds of [['oci'], ['attested', 'docker']] as const) {
    const fleet = { images: kinds.length, layerSizes: [600], baseSize: 700, kinds: [...kinds] };
    const site = await openSite({ fleet });
    origins.push(originOf(await packSite(site)));
    await site.close();
  }
  room = openRoom();
  server = createServer(answer);
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hostile.tar`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  room.close();
});

/** Answers with the part that is asked for. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const [, from = '0', to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  const part = served.subarray(Number(from), Number(to) + 1);
  if (request.url?.endsWith('.tar') !== true || to === undefined) response.writeHead(404).end();
  else if (part.length === 0) response.writeHead(416, { 'content-range': `bytes */${served.length}` }).end();
  else {
    const range = `bytes ${from}-${Number(from) + part.length - 1}/${served.length}`;
    response.writeHead(206, { 'content-range': range, 'content-length': part.length }).end(part);
  }
}

/** A pipe that gives bytes in pieces of any size, and may break. */
function pipeOf(bytes: Buffer, chance: Chance): Readable {
  const size = chance.of([1 + chance.below(40), 511, 512, 10_007, 65_536]);
  const until = chance.once(12) ? chance.below(bytes.length + 1) : Number.POSITIVE_INFINITY;
  const pieces = function* () {
    for (let at = 0; at < bytes.length; at += size) {
      if (at >= until) throw Object.assign(new Error('read EIO'), { code: 'EIO' });
      yield bytes.subarray(at, at + size);
    }
  };
  return Readable.from(pieces(), { objectMode: false });
}

/** Files, not folders. */
function filesBelow(dir: string): string[] {
  const found = existsSync(dir) ? readdirSync(dir, { recursive: true, withFileTypes: true }) : [];
  return found.flatMap((d) => (d.isDirectory() ? [] : [join(d.parentPath, d.name)]));
}

/** Manifests that a registry was sent: before these nothing can be seen there. */
function manifestsSent({ requests }: RunningRegistry): number {
  return requests.filter(({ method, path }) => method === 'PUT' && path.includes('/manifests/')).length;
}

describe('the reader of pipes, and that of files on servers', () => {
  it(
    'takes exactly what the reader of files takes, and shows nothing of the rest',
    { timeout: HOUR },
    async () => {
      const path = room.path('in', 'hostile.tar');
      const out = room.path('in', 'out');
      let isWhole = true;
      /** The bundle was right; a target may still refuse something in it. */
      let isTaken = false;
      let sent = 0;
      const make = (seed: number) => {
        rmSync(out, { recursive: true, force: true });
        const chance = chanceOf(seed);
        const bytes = chance.once(20) ? chance.of(origins).bytes : hostileBundle(origins, chance);
        writeFileSync(path, bytes);
        const input = pipeOf(bytes, chance);
        isWhole = true;
        input.once('error', () => {
          isWhole = false;
        });
        const isRegistry = chance.once(4);
        const folders = { chartTrees: [join(out, 'charts')], files: [join(out, 'files')] };
        if (chance.once(4)) {
          served = bytes;
          sent = 0;
          return async () => (await verify({ bundle: address, deep: true }, contextOf())).faults;
        }
        return async () => {
          const registry = isRegistry ? await startRegistry({ storage: 'memory' }) : undefined;
          try {
            const registries = registry === undefined ? [] : [placeOf(registry)];
            const result = await load({ bundle: '-', input, ...folders, registries }, contextOf());
            isTaken = true;
            return result.targets.flatMap((t) =>
              [t.fault ?? [], ...t.entries.map((e) => e.fault ?? [])].flat(),
            );
          } finally {
            sent = registry === undefined ? 0 : manifestsSent(registry);
            await registry?.close();
          }
        };
      };
      const refused = async (seed: number): Promise<void> => {
        if (isTaken) return;
        expect([filesBelow(out), sent], `seed ${seed}`).toEqual([[], 0]);
        if (!isWhole) return;
        const found = await verify({ bundle: path, deep: true }, contextOf()).catch(() => undefined);
        if (found === undefined || found.format !== 'bundle' || found.leftOut !== null) return;
        expect(found.faults, `seed ${seed}: a file is taken, a pipe not`).not.toEqual([]);
      };
      const accepted = async (seed: number): Promise<void> => {
        // A lock may name no chart, or no file.
        const made = existsSync(out) ? readdirSync(out) : [];
        expect(made.filter((name) => name !== 'charts' && name !== 'files')).toEqual([]);
        await expectHonest(path, origins, `seed ${seed}`);
        expect((await verify({ bundle: path, deep: true }, contextOf())).faults, `seed ${seed}`).toEqual([]);
      };
      expect(await fuzz('pipes', { room, share: 0.03, make, accepted, refused })).toBeGreaterThan(0);
    },
  );
});
