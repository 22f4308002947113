/** The built program receives on several threads: the same bundle as on one, also over cuts and after a stop. */
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { threadsFor } from '../../src/io/cores.ts';
import { openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { ensureBuilt, startProgram } from '../cli/program.ts';
import { bytesOnDisk } from './interrupted.ts';

const MIB = 1024 * 1024;
const LAYERS = [24 * MIB, 20 * MIB, 16 * MIB, 12 * MIB];

beforeAll(ensureBuilt, 180_000);

async function largeSite(
  options: Parameters<typeof openSite>[0] = {},
): Promise<{ site: Site; good: Packed }> {
  const site = await openSite({ fleet: { images: 1, layerSizes: LAYERS, sharedBases: 0 }, ...options });
  onTestFinished(() => site.close());
  return { site, good: await packSite(site) };
}

function startPack(site: Site, out: string): ReturnType<typeof startProgram> {
  return startProgram(['pack', '-f', site.manifestPath, '-o', out, '--progress', 'none'], { cwd: site.dir });
}

describe('a pack on several threads', () => {
  it('is worth it for what these tests pack', () => {
    const bytes = LAYERS.reduce((sum, n) => sum + n, 0);
    expect(threadsFor(bytes)).toBe(Math.min(availableParallelism(), 4));
  });

  it('writes the bundle that one thread writes, over answers that break in the middle', async () => {
    let cuts = 0;
    const { site, good } = await largeSite({
      registry: {
        intercept: async (request, response) => {
          if (!request.url?.includes('/blobs/') || request.headers.range !== undefined || cuts >= 3)
            return false;
          cuts += 1;
          const socket = response.socket;
          const write = response.write.bind(response);
          let sent = 0;
          response.write = (chunk: Uint8Array, ...then: never[]) => {
            sent += chunk.length;
            const more = write(chunk, ...then);
            if (sent > 3 * MIB) socket?.end();
            return more;
          };
          return false;
        },
      },
    });
    cuts = 0;
    const before = site.source.requests.length;
    const out = site.path('threads.tar');
    const { code, stderr } = await startPack(site, out).ended;
    expect([code, stderr]).toEqual([0, expect.any(String)]);
    const continued = site.source.requests.slice(before).filter((r) => /^bytes=\d+-$/.test(r.range));
    // A config ends before it can be cut.
    expect([cuts, continued.length >= 2]).toEqual([3, true]);
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
  }, 60_000);

  it('goes on after Ctrl-C with what came, and says how to', async () => {
    const { site, good } = await largeSite();
    const out = site.path('stopped.tar');
    const { child, ended } = startPack(site, out);
    while ((await bytesOnDisk(`${out}.partial`)) < 8 * MIB && child.exitCode === null) await wait(1);
    child.kill('SIGINT');
    const { code } = await ended;
    const before = site.source.requests.length;
    const again = await startPack(site, out).ended;
    expect([code === 130 || code === 0, again.code]).toEqual([true, 0]);
    expect((await readFile(out)).equals(good.bytes)).toBe(true);
    const sent = site.source.requests.slice(before).reduce((sum, r) => sum + r.bytes, 0);
    expect(sent).toBeLessThan(good.bytes.length);
  }, 60_000);
});
