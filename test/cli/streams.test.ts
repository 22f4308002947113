/** Bundles through pipes: the real program between real readers and writers. */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { pushFleet } from '../support/fleet.ts';
import { ensureBuilt, type Ran, ROOT, runProgram } from './program.ts';
import { openSite, type Site } from './site.ts';

/** More than a pipe and all buffers on the way hold. */
const LAYER = 12_000_000;

let site: Site;
let good: Buffer;

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite();
  const [big] = await pushFleet(site.source.host, {
    images: 1,
    layerSizes: [LAYER],
    kinds: ['oci'],
    seed: 9,
  });
  const line = `  - ${site.source.host}/${big?.name}:${big?.tag}\n`;
  await site.writeManifest(site.manifest.replace('images:\n', `images:\n${line}`));
  await runProgram(['lock'], { cwd: site.dir });
  await runProgram(['pack', '-o', 'good.tar'], { cwd: site.dir });
  good = await readFile(site.path('good.tar'));
});

afterAll(() => site.close());

/** Runs a pipeline of the shell in the site's folder; `$sealift` is the program. The code is that of the last that failed. */
function shell(script: string): Promise<Ran> {
  return new Promise((settle, reject) => {
    const env = {
      PATH: process.env.PATH ?? '',
      HOME: site.dir,
      sealift: `${process.execPath} ${join(ROOT, 'bin/sealift.js')}`,
    };
    const child = spawn('bash', ['-o', 'pipefail', '-c', script], {
      cwd: site.dir,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [out, err]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    child.once('error', reject);
    child.once('close', (code) =>
      settle({ code, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }),
    );
  });
}

describe('pack -o -', () => {
  it('gives the bundle to a pipe and to a file, and says what it did on stderr', async () => {
    const piped = await shell(`$sealift pack -o - | cat > piped.tar`);
    expect([piped.code, piped.stdout]).toEqual([0, '']);
    expect(piped.stderr).toContain('packed to stdout: ');
    expect((await readFile(site.path('piped.tar'))).equals(good)).toBe(true);
    const filed = await shell('$sealift pack -o - > filed.tar');
    expect(filed.code).toBe(0);
    expect((await readFile(site.path('filed.tar'))).equals(good)).toBe(true);
  });

  it('fails with a clear error when the reader ends', async () => {
    const ran = await shell(`$sealift pack -o - | head -c 100000 > head.tar`);
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain('error[OUTPUT_CLOSED]: stdout: the program that reads it has ended\n');
    const checked = await runProgram(['verify', 'head.tar'], { cwd: site.dir });
    expect(checked.code).toBe(5);
  });

  it('ends with exit 130 at a signal while the reader takes nothing', async () => {
    const child = spawn(process.execPath, [join(ROOT, 'bin/sealift.js'), 'pack', '-o', '-'], {
      cwd: site.dir,
      env: { PATH: process.env.PATH ?? '', HOME: site.dir },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    // The first bytes are taken, the others fill the pipe.
    await new Promise<void>((resolve) => child.stdout.once('readable', () => resolve()));
    child.kill('SIGINT');
    const code = await new Promise((resolve) => child.once('exit', resolve));
    child.stdout.destroy();
    expect(code).toBe(130);
  });

  it.each([
    ['--json', 'stdout carries the bundle'],
    ['--verify', 'is not there to be read'],
  ])('refuses %s', async (flag, why) => {
    const ran = await shell(`$sealift pack -o - ${flag} | cat`);
    expect(ran.code).toBe(2);
    expect(ran.stderr).toContain(why);
  });
});

describe('load -', () => {
  let target: RunningRegistry;

  beforeEach(async () => {
    target = await startRegistry({ storage: 'memory' });
  });

  afterEach(() => target.close());

  it('takes what pack -o - gives, and verify has nothing to say of the same bytes', async () => {
    const ran = await shell(
      `$sealift pack -o - | tee tee.tar | $sealift load - --registry ${target.host} --files out --receipt r.json`,
    );
    expect([ran.code, ran.stdout]).toEqual([0, '']);
    expect(ran.stderr).toContain('loaded astrago 2026.11');
    expect((await readFile(site.path('tee.tar'))).equals(good)).toBe(true);
    expect(await readFile(site.path('out/bin/tool'), 'utf8')).toContain('echo tool');
    const receipt = JSON.parse(await readFile(site.path('r.json'), 'utf8'));
    expect(receipt).toMatchObject({ bundle: { name: 'astrago', signedBy: null }, verified: true, failed: 0 });
    const again = await shell(`$sealift load - --registry ${target.host} < good.tar`);
    expect(again.stderr).toContain('everything was there already');
  });

  it('fails with exit 5 when the stream ends early, with nothing visible', async () => {
    const ran = await shell(`head -c 9000000 good.tar | $sealift load - --registry ${target.host}`);
    expect(ran.code).toBe(5);
    expect(ran.stderr).toContain('error[BUNDLE_TRUNCATED]: stdin: ended at byte 9000000');
    expect(await (await fetch(`${target.url}/v2/_catalog`)).json()).toEqual({ repositories: [] });
  });

  it('plans with --dry-run and reads no further', async () => {
    const ran = await shell(
      `(cat good.tar; echo $? >&2) 2>&1 | $sealift load - --dry-run --registry ${target.host}`,
    );
    expect(ran.stdout).toContain('to write');
    expect(ran.stderr).toContain('nothing was written');
  });

  it('ends with exit 130 at a signal while the sender sends nothing', async () => {
    const child = spawn(
      process.execPath,
      [join(ROOT, 'bin/sealift.js'), 'load', '-', '--registry', target.host, '--progress', 'plain'],
      {
        cwd: site.dir,
        env: { PATH: process.env.PATH ?? '', HOME: site.dir },
        stdio: ['pipe', 'ignore', 'pipe'],
      },
    );
    child.stdin.on('error', () => {});
    child.stdin.write(good.subarray(0, 9_000_000));
    await new Promise<void>((resolve) => {
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        if (text.includes('blobs')) resolve();
      });
    });
    child.kill('SIGINT');
    const code = await new Promise((resolve) => child.once('exit', resolve));
    expect(code).toBe(130);
  });
});

describe('a bundle at an address', () => {
  it('is shown without what stands in its query, also in the command that comes next', async () => {
    site.source.addFile('good.tar', good);
    const address = `${site.source.url}/files/good.tar`;
    const target = ['--registry', site.source.host, '--dry-run'];
    const runs: readonly (readonly [string, readonly string[]])[] = [
      ['ls', []],
      ['verify', []],
      ['load', target],
      ['load', [...target, '--json']],
      ['verify', ['--json']],
    ];
    for (const [verb, more] of runs) {
      const ran = await runProgram([verb, `${address}?job_token=hunter2`, ...more], { cwd: site.dir });
      expect([verb, ran.code]).toEqual([verb, 0]);
      expect(ran.stdout + ran.stderr, verb).not.toContain('hunter2');
      if (!more.includes('--json')) expect(ran.stderr, verb).toContain(`'${address}?…'`);
    }
  });

  it.each([['serve'], ['diff'], ['merge']])('is no path for %s', async (verb) => {
    const address = `${site.source.url}/files/good.tar`;
    const ran = await runProgram([verb, 'good.tar', address], { cwd: site.dir });
    expect([ran.code, ran.stderr]).toEqual([2, expect.stringContaining('only ls, verify and load')]);
  });
});
