import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
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
