import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { toolChoice } from '../../src/cli/tool-flags.ts';
import { run } from '../support/peers.ts';
import { documentOf, ensureBuilt, type Ran, ROOT, runProgram } from './program.ts';
import { openSite, type Site } from './site.ts';

let site: Site;

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite();
  expect((await sealift('lock')).code).toBe(0);
}, 180_000);

afterAll(() => site.close());

const sealift = (...args: string[]): Promise<Ran> => runProgram(args, { cwd: site.dir });

/** A copy of the program beside which nothing was built, as npm installs it. */
async function installed(): Promise<string> {
  const at = site.path('installed');
  for (const name of ['bin', 'package.json', 'dist/program']) {
    await cp(join(ROOT, name), join(at, name), { recursive: true });
  }
  await symlink(join(ROOT, 'node_modules'), join(at, 'node_modules'));
  return join(at, 'bin/sealift.js');
}

describe('pack', () => {
  it('puts the tarball that --tool names beside the bundle, not into it', async () => {
    await writeFile(site.path('tool.tar'), 'tool');
    await mkdir(site.path('out'));
    const packed = await sealift('pack', '-o', 'out/a.tar', '--tool', 'tool.tar');
    expect(packed).toMatchObject({ code: 0 });
    expect(packed.stderr).toContain('\n  tool tool.tar: 4 bytes\n');
    expect((await readdir(site.path('out'))).sort()).toEqual(['a.tar', 'tool.tar', 'tool.tar.sha256']);
    expect((await sealift('pack', '-o', 'b.tar', '--no-tool')).code).toBe(0);
    expect(await readFile(site.path('b.tar'))).toEqual(await readFile(site.path('out/a.tar')));

    const again = await sealift('pack', '-o', 'out/a.tar', '--tool', 'tool.tar', '--json');
    expect(again.stderr).toContain('\n  tool tool.tar: was beside it already\n');
    expect(documentOf(again).tools).toMatchObject([{ outcome: 'present', size: 4 }]);
  });

  it('puts it beside a bundle that is a folder', async () => {
    await mkdir(site.path('media'));
    await writeFile(site.path('tool.tar'), 'tool');
    expect((await sealift('pack', '-o', 'media/b/', '--tool', 'tool.tar')).code).toBe(0);
    expect((await readdir(site.path('media'))).sort()).toEqual(['b', 'tool.tar', 'tool.tar.sha256']);
    expect((await sealift('verify', 'media/b')).code).toBe(0);
  });

  it('tells a wrong --tool before it packs anything', async () => {
    const ran = await sealift('pack', '-o', 'c.tar', '--tool', 'absent.tar.gz');
    expect(ran.code).toBe(2);
    expect(ran.stderr).toContain('error[FILE_NOT_FOUND]: absent.tar.gz: no such file\nhint: ');
    expect(await readdir(site.dir)).not.toContain('c.tar');
  });

  it('cannot put anything beside a stream', async () => {
    const ran = await sealift('pack', '-o', '-', '--tool', 'tool.tar');
    expect(ran).toMatchObject({ code: 2, stdout: '' });
    expect(ran.stderr).toContain('error[USAGE]: --tool: ');
  });

  it('puts none beside a repair unless it is named', () => {
    expect(toolChoice({})).toHaveProperty('program');
    expect(toolChoice({ repair: 'repair.json' })).toBeUndefined();
    expect(toolChoice({ repair: 'repair.json', tool: ['t.tar.gz'] })).toEqual({ files: ['t.tar.gz'] });
    expect(toolChoice({ tool: false })).toBeUndefined();
  });

  it('succeeds where there is none, and says in one line how to get it', async () => {
    const bin = await installed();
    const pack = (...args: string[]) =>
      run(process.execPath, [bin, 'pack', '-o', 'd.tar', ...args], { cwd: site.dir });
    const { stderr } = await pack();
    expect(stderr.split('\n').filter((line) => line.includes('--tool FILE'))).toEqual([
      'note: no sealift beside the bundle: name its tarball with --tool FILE (`npm run dist` makes it), or say --no-tool',
    ]);
    expect((await pack('--no-tool')).stderr).not.toContain('--tool FILE');
  });
});
