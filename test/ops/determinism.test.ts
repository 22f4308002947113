/** One lock, one file: on any machine, in any time zone, with any umask, from any folder, in any language. */
import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import { openSite, type Site } from '../bundle/site.ts';
import { ensureBuilt, ROOT } from '../cli/program.ts';
import { demoFiles, writeChart } from '../support/charts.ts';

interface Machine {
  readonly name: string;
  readonly tz: string;
  readonly umask: string;
  readonly lang: string;
  /** The folder that the program is started in, below the site. */
  readonly cwd: string;
  readonly out: string;
}

const MACHINES: readonly Machine[] = [
  { name: 'a', tz: 'UTC', umask: '022', lang: 'C', cwd: 'a', out: 'b.tar' },
  { name: 'b', tz: 'Asia/Seoul', umask: '077', lang: 'ko_KR.UTF-8', cwd: '.', out: 'deep/er/other name.tar' },
  { name: 'c', tz: 'America/St_Johns', umask: '000', lang: 'tr_TR.UTF-8', cwd: 'c/own', out: 'c.tar' },
];

let site: Site;

/** Runs the real program as on another machine. */
async function sealift(machine: Machine, ...args: string[]): Promise<void> {
  const bin = join(ROOT, 'bin/sealift.js');
  const env = {
    PATH: process.env.PATH ?? '',
    HOME: site.dir,
    TZ: machine.tz,
    LANG: machine.lang,
    LC_ALL: machine.lang,
  };
  const script = `umask ${machine.umask} && exec "$0" "$@"`;
  const cwd = site.path(machine.cwd);
  await promisify(execFile)('sh', ['-c', script, process.execPath, bin, ...args], { cwd, env });
}

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite();
  const text = (await readFile(site.manifestPath, 'utf8')).replace('files:', '  - {path: own}\nfiles:');
  for (const [i, { name }] of MACHINES.entries()) {
    const dir = site.path(name);
    await mkdir(dir);
    await writeFile(join(dir, 'sealift.yaml'), text);
    await cp(site.path('notes.txt'), join(dir, 'notes.txt'));
    await writeChart(join(dir, 'own'), demoFiles('own', '0.1.0'));
    // A checkout has its own times and modes.
    await utimes(join(dir, 'own', 'values.yaml'), 1_000_000_000 + i, 1_000_000_000 + i);
    await chmod(join(dir, 'own', 'values.yaml'), 0o600 + i);
  }
}, 180_000);

afterAll(() => site.close());

describe('one lock', () => {
  it('is written with the same bytes everywhere', async () => {
    for (const machine of MACHINES) {
      await sealift(machine, 'lock', '-f', site.path(machine.name, 'sealift.yaml'));
    }
    const locks = await Promise.all(MACHINES.map((m) => readFile(site.path(m.name, 'versions.lock'))));
    expect(new Set(locks.map(digestOf)).size).toBe(1);
    for (const secret of [site.dir, 'Seoul', process.env.HOME ?? '/root']) {
      expect(locks[0]?.toString('utf8')).not.toContain(secret);
    }
  });

  it('gives the same bundle by sha256 everywhere', async () => {
    const digests: string[] = [];
    for (const machine of MACHINES) {
      const out = site.path(machine.name, machine.out);
      await sealift(machine, 'pack', '-f', site.path(machine.name, 'sealift.yaml'), '-o', out);
      digests.push(digestOf(await readFile(out)));
    }
    expect(digests).toEqual(MACHINES.map(() => digests[0]));
  });

  it('gives the same bundle when only the lock is there, without its manifest', async () => {
    const [machine] = MACHINES;
    if (machine === undefined) throw new Error('there is a machine');
    const dir = site.path('only-lock');
    await mkdir(dir);
    await cp(site.path(machine.name, 'versions.lock'), join(dir, 'versions.lock'));
    await cp(site.path('notes.txt'), join(dir, 'notes.txt'));
    await writeChart(join(dir, 'own'), demoFiles('own', '0.1.0'));
    const lock = join(dir, 'versions.lock');
    await sealift(machine, 'pack', '-f', join(dir, 'absent.yaml'), '--lock', lock, '-o', join(dir, 'b.tar'));
    const first = await readFile(site.path(machine.name, machine.out));
    expect((await readFile(join(dir, 'b.tar'))).equals(first)).toBe(true);
  });
});
