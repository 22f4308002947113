import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ensureBuilt, ROOT, runProgram } from './program.ts';

beforeAll(ensureBuilt, 180_000);

describe('help', () => {
  it('shows examples first on every command, and only flags that exist', async () => {
    for (const command of [
      '',
      'lock',
      'pack',
      'verify',
      'ls',
      'diff',
      'load',
      'unload',
      'site',
      'site check',
      'site fix',
      'serve',
      'push',
      'pull',
      'login',
      'logout',
    ]) {
      const words = command === '' ? [] : command.split(' ');
      const ran = await runProgram([...words, '--help']);
      expect(ran, command).toMatchObject({ code: 0, stderr: '' });
      expect(ran.stdout.startsWith(`Examples:\n  sealift ${command}`), command).toBe(true);
      expect(ran.stdout.indexOf('Usage: sealift')).toBeGreaterThan(0);
      expect(ran.stdout).toContain('--progress <mode>');
      const [shown = '', described = ''] = ran.stdout.split('Usage: ');
      const used = shown
        .split('\n')
        .filter((line) => line.startsWith(`  sealift ${command === '' ? '~' : command}`));
      for (const flag of used.join(' ').match(/\s--[a-z-]+/g) ?? []) expect(described).toContain(flag.trim());
    }
  });

  it('stands in for a missing command, as bad usage', async () => {
    const ran = await runProgram([]);
    expect(ran).toMatchObject({ code: 2, stdout: '' });
    expect(ran.stderr).toContain('Usage: sealift [options] [command]');
    expect(await runProgram(['help', 'load'])).toMatchObject({ code: 0 });
  });

  it('tells the version of package.json, loading no verb for it', async () => {
    const { version }: { version: string } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    const ran = await runProgram(['--version'], { env: { NODE_DEBUG: 'module' } });
    expect(ran).toMatchObject({ code: 0, stdout: `${version}\n` });
    const loaded = [...ran.stderr.matchAll(/: load "(.*?)" for/g)].map((m) => m[1]).join('\n');
    expect(loaded).toContain('dist/program/main.js');
    expect(loaded).not.toMatch(/node_modules|undici|log-update|program\/(?:verify|load|pack|lock)-/);
  });
});
