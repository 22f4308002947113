import { readdir, readFile, writeFile } from 'node:fs/promises';
import { type IncomingMessage, request, type ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { parseBytes } from '../../src/cli/byte-size.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { SEED, seeded } from '../bundle/site.ts';
import { selfSigned } from '../io/certificate.ts';
import { someBytes } from '../io/server.ts';
import { makeSite, type Site } from '../support/bundles.ts';
import { documentOf, ensureBuilt, runProgram, startProgram } from './program.ts';

const CHUNK = 1_000_000;
const FILE_SIZE = 9_500_000;

let site: Site;
let bundle: string;
let bytes: Buffer;
let registry: RunningRegistry;
let place: string;
let intercept: (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;

beforeAll(async () => {
  await ensureBuilt();
  site = await makeSite();
  site.source.addFile('weights', someBytes(FILE_SIZE));
  bundle = await site.bundle(
    'astrago',
    `files: [{url: "http://${site.source.host}/files/weights", name: weights.bin}]\n`,
  );
  bytes = await readFile(bundle);
  intercept = () => false;
  registry = await startRegistry({
    storage: 'memory',
    intercept: (request, response) => intercept(request, response),
  });
  place = `oci://${registry.host}/bundles/astrago`;
}, 180_000);

afterEach(() => {
  intercept = () => false;
});

afterAll(async () => {
  await registry.close();
  await site.close();
});

function pushTo(tag: string, ...flags: string[]): string[] {
  return ['push', bundle, `${place}:${tag}`, '--chunk-size', '1MB', ...flags];
}

describe('push and pull', () => {
  it('print the place by digest, and the next command of each leads to the next', async () => {
    const pushed = await runProgram(pushTo('v1'));
    expect(pushed.code, pushed.stderr).toBe(0);
    expect(pushed.stdout).toMatch(/^oci:\/\/\S+\/bundles\/astrago@sha256:[0-9a-f]{64}\n$/);
    const exact = pushed.stdout.trim();
    expect(pushed.stderr).toContain(`next: sealift pull ${exact} -o astrago-1.tar`);
    const out = join(site.dir, 'pulled.tar');
    const pulled = await runProgram(['pull', exact, '-o', out]);
    expect(pulled.code, pulled.stderr).toBe(0);
    expect(pulled.stderr).toContain(`next: sealift verify ${out}`);
    expect((await readFile(out)).equals(bytes)).toBe(true);
    const again = await runProgram(['pull', exact, '-o', out, '--json']);
    expect(documentOf(again)).toMatchObject({ command: 'pull', outcome: 'present', volumes: null });
    const volumes = await runProgram(['pull', exact, '-o', `${join(site.dir, 'stick')}/`]);
    const first = join(site.dir, 'stick', 'astrago-1.tar.001');
    expect(volumes.stderr).toContain(`next: sealift verify ${first}`);
    expect(await runProgram(['verify', first])).toMatchObject({ code: 0 });
  });

  it('take the signature of a bundle along', async () => {
    const path = (name: string): string => join(site.dir, name);
    const key = await runProgram(['keygen', '--no-password', '-o', path('ci')], { cwd: site.dir });
    expect(key.code, key.stderr).toBe(0);
    await writeFile(path('signed.tar'), bytes);
    expect((await runProgram(['sign', path('signed.tar'), '--key', path('ci.key')])).code).toBe(0);
    const signed = await readFile(path('signed.tar'));
    expect(signed.length).toBeGreaterThan(bytes.length);
    const pushed = await runProgram(['push', path('signed.tar'), `${place}:signed`, '--chunk-size', '1MB']);
    expect(pushed.code, pushed.stderr).toBe(0);
    expect((await runProgram(['pull', `${place}:signed`, '-o', `${path('signed')}/`])).code).toBe(0);
    const volume = path('signed/astrago-1.tar.001');
    const verified = await runProgram(['verify', volume, '--key', path('ci.pub')]);
    expect(verified.code, verified.stderr).toBe(0);
  });

  it('trust the CA that they are given, and no other certificate', async () => {
    const { key, cert } = selfSigned();
    const server = createServer({ key, cert }, (asked, answer) => {
      const options = { host: '127.0.0.1', port: registry.host.split(':')[1], headers: asked.headers };
      const inner = request({ ...options, method: asked.method, path: asked.url }, (got) => {
        answer.writeHead(got.statusCode ?? 500, got.headers);
        got.pipe(answer);
      });
      asked.pipe(inner);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    const ca = await site.put('ca.pem', cert);
    expect((await runProgram(pushTo('tls'))).code).toBe(0);
    const pull = ['pull', `https://127.0.0.1:${port}/bundles/astrago:tls`];
    const refused = await runProgram([...pull, '-o', join(site.dir, 'tls-none.tar')]);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('TLS failed')]);
    for (const flags of [['--ca-file', ca], ['--insecure']]) {
      const out = join(site.dir, `tls${flags.length}.tar`);
      const ran = await runProgram([...pull, '-o', out, ...flags]);
      expect(ran.code, ran.stderr).toBe(0);
      expect((await readFile(out)).equals(bytes)).toBe(true);
    }
    await new Promise((resolve) => server.close(resolve));
  });

  it('tell bad places and sizes as bad usage, and what is not there as a failure', async () => {
    const cases: readonly (readonly [args: readonly string[], code: number, says: string])[] = [
      [['push', bundle, 'registry.example/a:1'], 2, 'it does not begin with oci://'],
      [['pull', `${place}:v1`, '-o', '-'], 2, '-o -: a pull is not written to stdout'],
      [['push', bundle, place], 2, 'a bundle is pushed under a tag'],
      [pushTo('v1', '--chunk-size', 'much'), 2, '--chunk-size: "much" is no number of bytes'],
      [['pull', place], 2, '--output'],
      [['pull', `${place}:none`, '-o', join(site.dir, 'none.tar')], 1, 'bundles/astrago:none'],
    ];
    for (const [args, code, says] of cases) {
      const ran = await runProgram(args);
      expect([ran.code, ran.stderr]).toEqual([code, expect.stringContaining(says)]);
    }
  });

  it(`that were killed at any moment end with the same bytes (seed ${SEED})`, async () => {
    // A repository of its own: in the other one all chunks are there.
    const other = `oci://${registry.host}/bundles/killed:v1`;
    const args = ['push', bundle, other, '--chunk-size', '1MB'];
    const random = seeded(SEED);
    const pick = (below: number): number => Math.floor(random() * below);
    const count = Math.ceil(bytes.length / CHUNK);
    const codes: (number | null)[] = [];
    for (let kill = 0; kill < 8; kill += 1) {
      const { child, ended } = startProgram([...args, '--progress', 'none']);
      let left = pick(count);
      intercept = (asked) => {
        const isUpload = asked.method === 'PUT' && asked.url?.includes('/blobs/uploads/') === true;
        if (isUpload && left-- === 0) asked.once('data', () => child.kill('SIGKILL'));
        return false;
      };
      codes.push((await ended).code);
      intercept = () => false;
    }
    expect(codes).toContain(null);
    const pushed = await runProgram([...args, '--json']);
    expect(pushed.code, pushed.stderr).toBe(0);
    const out = join(site.dir, 'killed', 'b.tar');
    let killed = 0;
    for (let kill = 0; kill < 12; kill += 1) {
      const { child, ended } = startProgram(['pull', other, '-o', out, '--progress', 'none']);
      let left = pick(bytes.length / 4);
      intercept = (asked, response) => {
        if (asked.method !== 'GET' || asked.url?.includes('/blobs/') !== true) return false;
        const write = response.write.bind(response);
        response.write = ((chunk: Buffer, ...rest: []) => {
          left -= chunk.length;
          if (left <= 0) child.kill('SIGKILL');
          return write(chunk, ...rest);
        }) as typeof response.write;
        return false;
      };
      const { code } = await ended;
      intercept = () => false;
      if (code === null) killed += 1;
      if (code === 0) break;
      expect(await readdir(join(site.dir, 'killed')).catch(() => [])).not.toContain('b.tar');
    }
    const ran = await runProgram(['pull', other, '-o', out, '--json']);
    expect(ran.code, ran.stderr).toBe(0);
    expect(killed).toBeGreaterThan(0);
    expect((await readFile(out)).equals(bytes)).toBe(true);
    expect(await readdir(join(site.dir, 'killed'))).toEqual(['b.tar']);
  }, 120_000);
});

describe('a number of bytes', () => {
  it('is read with units of 1000 and of 1024', () => {
    const texts = ['1', '4294966784', '64MB', '64 MiB', '1.5G', '2g', '512KiB', '1tib'];
    expect(texts.map((text) => parseBytes(text, '--x'))).toEqual([
      1,
      4_294_966_784,
      64_000_000,
      64 * 1024 ** 2,
      1_500_000_000,
      2_000_000_000,
      524_288,
      1024 ** 4,
    ]);
    for (const text of ['', '0', '-1', '1e3', '0x10', '1.2.3', 'MB', '9999999999999999 TB', '1 mb 2']) {
      expect(() => parseBytes(text, '--x'), text).toThrow(expect.objectContaining({ code: 'USAGE' }));
    }
  });
});
