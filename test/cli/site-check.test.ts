import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ensureBuilt, runProgram } from './program.ts';

beforeAll(ensureBuilt, 180_000);

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'site-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const siteOf = (...targets: readonly string[]): Promise<void> =>
  writeFile(
    join(dir, 'site.yaml'),
    `apiVersion: sealift-site/v1\ntargets:\n${targets.map((t) => `  - {${t}}\n`).join('')}`,
  );
const FILES = 'type: files, name: files, dir: out';
const NODE = 'type: containerd, name: node, socket: none.sock';

describe('sealift site', () => {
  it('check tells what it found, what it did not change, and the next command', async () => {
    await siteOf(FILES);
    const ran = await runProgram(['site', 'check'], { cwd: dir });
    expect(ran.code).toBe(0);
    expect(ran.stdout).toMatch(/^files \(files .*out\)\n {2}info {4}FOLDER: .*\n {2}ok {6}SPACE: /);
    expect(ran.stderr).toContain('1 target: 0 faults, 0 warnings, 1 to know, 1 ok; nothing was changed');
    expect(ran.stderr).toContain('next: sealift load BUNDLE --dry-run');
    expect(await readdir(dir)).toEqual(['site.yaml']);
  });

  it('check ends with 3 and says what to do, also as JSON', async () => {
    await siteOf(FILES, NODE);
    const ran = await runProgram(['site', 'check'], { cwd: dir });
    expect(ran.code).toBe(3);
    expect(ran.stdout).toMatch(/ {2}fault {3}TARGET_UNREACHABLE: .*\n {10}fix: check that containerd runs/);
    expect(ran.stderr).toContain('error[SITE_NOT_READY]: 1 of 2 targets would not take a load: node');
    const json = await runProgram(['site', 'check', '--json'], { cwd: dir });
    expect(json.code).toBe(3);
    expect(JSON.parse(json.stdout)).toMatchObject({
      schemaVersion: 1,
      command: 'site check',
      ok: false,
      counts: { fault: 1 },
      error: { code: 'SITE_NOT_READY' },
    });
    const one = await runProgram(['site', 'check', '--target', 'files'], { cwd: dir });
    expect(one.code).toBe(0);
  });

  it('refuses what it does not know, and where there is no site', async () => {
    expect(await runProgram(['site'], { cwd: dir })).toMatchObject({ code: 2 });
    expect(await runProgram(['site', 'chek'], { cwd: dir })).toMatchObject({ code: 2 });
    const none = await runProgram(['site', 'check'], { cwd: dir });
    expect(none.code).toBe(2);
    expect(none.stderr).toContain('site init');
    await siteOf(NODE);
    const both = await runProgram(['site', 'fix', '--yes', '--dry-run'], { cwd: dir });
    expect(both.code).toBe(2);
    const fix = await runProgram(['site', 'fix'], { cwd: dir });
    expect(fix.code).toBe(1);
    expect(fix.stderr).toContain('error[TARGET_UNREACHABLE]');
  });
});
