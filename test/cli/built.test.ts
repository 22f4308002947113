import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { ensureBuilt, ROOT, runProgram } from './program.ts';

beforeAll(ensureBuilt, 180_000);

const PROGRAM = join(ROOT, 'dist/program');

/** The text of every file of the program that a run loads. */
async function loadedBy(...args: string[]): Promise<string> {
  const { stderr } = await runProgram(args, { env: { NODE_DEBUG: 'esm' } });
  const names = new Set([...stderr.matchAll(/dist\/program\/([\w.-]+\.js)/g)].map((m) => m[1] ?? ''));
  expect(names).toContain('main.js');
  return [...names].map((name) => readFileSync(join(PROGRAM, name), 'utf8')).join('\n');
}

describe('the built program', () => {
  it('loads for verify neither the network nor a YAML parser', async () => {
    const text = await loadedBy('verify', join(ROOT, 'no-such-bundle.tar'));
    expect(text).toContain('// src/ops/verify.ts');
    expect(text).toContain('node_modules/zod/');
    expect(text).not.toMatch(
      /^\/\/ (?:src\/io\/http\.ts|src\/oci\/containerd\/|.*node_modules\/(?:undici|yaml|semver)\/)/m,
    );
  });

  it('loads for a load neither the targets that nobody named nor their libraries', async () => {
    const absent = join(ROOT, 'no-such-bundle.tar');
    const registry = await loadedBy('load', absent, '--registry', 'localhost:1');
    expect(registry).toContain('// src/ops/load.ts');
    expect(registry).not.toMatch(
      /^\/\/ (?:src\/target\/containerd\/|.*node_modules\/(?:undici|yaml|semver)\/)/m,
    );
  });

  it('begins a thread for verify of a large file, and ends as ever when nobody needs it', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'sealift-early-'));
    onTestFinished(() => rm(dir, { recursive: true }));
    const large = join(dir, 'verify');
    await writeFile(large, '');
    await truncate(large, 64 * 1024 * 1024);
    const ran = await runProgram(['verify', large], { env: { NODE_DEBUG: 'worker' } });
    expect(ran.code).toBe(5);
    expect(ran.stderr.includes('[0] create new worker')).toBe(availableParallelism() > 1);
    const other = await runProgram(['ls', 'verify'], { cwd: dir });
    expect(other.code).toBe(5);
  });

  it('has every thread beside what starts it', () => {
    const sources = readdirSync(join(ROOT, 'src'), { recursive: true }).map(String);
    const threads = sources.filter((path) => path.endsWith('-thread.ts')).map((p) => p.split('/').at(-1));
    expect(threads).toContain('hash-thread.ts');
    for (const name of threads) expect(readdirSync(PROGRAM)).toContain(name?.replace(/ts$/, 'js'));
  });

  it('carries the licence of every library that is in it', () => {
    const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(
      readFileSync(join(ROOT, 'package.json'), 'utf8'),
    );
    const notices = readFileSync(join(PROGRAM, 'LICENSES.txt'), 'utf8');
    for (const [name, version] of Object.entries(dependencies)) {
      const isInside = !name.startsWith('@napi-rs/');
      expect(notices.includes(`${name} ${version} (`), name).toBe(isInside);
    }
  });
});
