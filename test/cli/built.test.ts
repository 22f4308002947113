import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cp, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Script } from 'node:vm';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { ensureBuilt, ROOT, runProgram } from './program.ts';

beforeAll(ensureBuilt, 180_000);

const PROGRAM = join(ROOT, 'dist/program');

/** What comes before the program (bin/start.js). */
interface Start {
  settleEngine(): void;
  scriptOf(file: string): { readonly script: Script };
  keepCompiled(one: { readonly script: Script }): void;
}

/** The text of every file of the program that a run loads. */
async function loadedBy(...args: string[]): Promise<string> {
  const { stderr } = await runProgram(args, { env: { NODE_DEBUG: 'module' } });
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

  it('loads for --version no reader of documents', async () => {
    const text = await loadedBy('--version');
    expect(text).not.toMatch(/^\/\/ (?:src\/lock\/read\.ts|.*node_modules\/zod\/)/m);
  });

  it('loads for a load neither the targets that nobody named nor their libraries', async () => {
    const absent = join(ROOT, 'no-such-bundle.tar');
    const registry = await loadedBy('load', absent, '--registry', 'localhost:1');
    expect(registry).toContain('// src/ops/load.ts');
    expect(registry).not.toMatch(
      /^\/\/ (?:src\/target\/containerd\/|.*node_modules\/(?:undici|yaml|semver)\/)/m,
    );
  });

  it.each([
    ['--version'],
    ['ls', 'no-such-bundle.tar'],
    ['load', 'no-such-bundle.tar', '--registry', 'localhost:1'],
  ])('has Node load nothing that %s does not need', async (...args) => {
    const dir = await mkdtemp(join(tmpdir(), 'sealift-rare-'));
    onTestFinished(() => rm(dir, { recursive: true }));
    const [hook, list] = [join(dir, 'hook.cjs'), join(dir, 'list')];
    const write = `require('node:fs').writeFileSync(${JSON.stringify(list)}, process.moduleLoadList.join('\\n'))`;
    await writeFile(hook, `process.on('exit', () => ${write});`);
    await runProgram(args, { cwd: dir, env: { NODE_OPTIONS: `--require=${hook}` } });
    const loaded = readFileSync(list, 'utf8').split('\n');
    expect(loaded).toContain('NativeModule vm');
    const rare = ['child_process', 'https', 'readline', 'tls', 'worker_threads'];
    expect(rare.filter((name) => loaded.includes(`NativeModule ${name}`))).toEqual([]);
  });

  it('begins a thread for verify of a large file, and ends as ever when nobody needs it', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'sealift-early-'));
    onTestFinished(() => rm(dir, { recursive: true }));
    const large = join(dir, 'verify');
    await writeFile(large, '');
    const begins = async (mib: number, ...words: readonly string[]): Promise<boolean> => {
      await truncate(large, mib * 1024 * 1024);
      const ran = await runProgram(['verify', large, ...words], { env: { NODE_DEBUG: 'worker' } });
      expect(ran.code).toBe(5);
      return ran.stderr.includes('[0] create new worker');
    };
    const canBegin = availableParallelism() > 1;
    expect([await begins(200), await begins(100), await begins(100, '--deep')]).toEqual([
      canBegin,
      false,
      canBegin,
    ]);
    const other = await runProgram(['ls', 'verify'], { cwd: dir });
    expect(other.code).toBe(5);
  });

  it('does all by itself where the system allows no more threads', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'sealift-alone-'));
    onTestFinished(() => rm(dir, { recursive: true }));
    const preload = join(dir, 'no-threads.cjs');
    await writeFile(
      preload,
      `require('node:worker_threads').Worker = class {
        constructor() {
          process.stderr.write('no thread\\n');
          throw Object.assign(new Error('EAGAIN'), { code: 'ERR_WORKER_INIT_FAILED' });
        }
      };`,
    );
    const large = join(dir, 'large.bin');
    await writeFile(large, '');
    await truncate(large, 144 * 1024 * 1024);
    const manifest = `apiVersion: sealift/v1\nname: n\nversion: "1"\nfiles:\n  - {path: large.bin, name: large.bin}\n`;
    await writeFile(join(dir, 'sealift.yaml'), manifest);
    const options = { cwd: dir, env: { NODE_OPTIONS: `--require ${preload}` } };
    for (const words of [
      ['lock'],
      ['pack', '-o', 'a.tar'],
      ['verify', 'a.tar'],
      ['verify', 'a.tar', '--deep'],
    ]) {
      const { code, stderr } = await runProgram(words, options);
      expect([words, code, stderr]).toEqual([words, 0, expect.any(String)]);
      expect(stderr.includes('no thread')).toBe(availableParallelism() > 1 && words[0] !== 'lock');
    }
  });

  it('has every thread beside what starts it', () => {
    const sources = readdirSync(join(ROOT, 'src'), { recursive: true }).map(String);
    const threads = sources.filter((path) => path.endsWith('-thread.ts')).map((p) => p.split('/').at(-1));
    expect(threads).toContain('hash-thread.ts');
    for (const name of threads) expect(readdirSync(PROGRAM)).toContain(name?.replace(/ts$/, 'js'));
  });

  describe('runs what V8 compiled when it was built', () => {
    const { keepCompiled, scriptOf, settleEngine }: Start = createRequire(import.meta.url)(
      '../../bin/start.js',
    );

    /** Whether V8 takes what lies beside a module, in a process that has compiled nothing of it yet. */
    function isTaken(module: string, as: Readonly<Record<string, unknown>> = {}): boolean {
      const script = `for (const [key, value] of Object.entries(JSON.parse(process.argv[2]))) {
          Object.defineProperty(process, key, { value });
        }
        const { scriptOf, settleEngine } = require(${JSON.stringify(join(ROOT, 'bin/start.js'))});
        settleEngine();
        const { script } = scriptOf(process.argv[1]);
        process.stdout.write(String(script.cachedDataRejected === false));`;
      return (
        spawnSync(process.execPath, ['-e', script, module, JSON.stringify(as)], { encoding: 'utf8' })
          .stdout === 'true'
      );
    }

    it('of every file of it', () => {
      const modules = readdirSync(PROGRAM).filter((name) => name.endsWith('.js'));
      expect(modules).toContain('main.js');
      for (const name of modules) expect(readdirSync(PROGRAM)).toContain(`${name}.compiled`);
      expect(isTaken(join(PROGRAM, 'main.js'))).toBe(true);
    });

    it('which names no folder of the machine that built it', () => {
      const names = readdirSync(PROGRAM).filter((name) => name.endsWith('.compiled'));
      expect(names).toContain('main.js.compiled');
      const hasName = (name: string): boolean => readFileSync(join(PROGRAM, name)).includes('dist/program');
      for (const name of names) {
        expect(readFileSync(join(PROGRAM, name)).includes(ROOT), name).toBe(false);
      }
      expect(names.some(hasName)).toBe(true);
    });

    it('but not what another Node, or one for another processor, compiled', () => {
      for (const [key, value] of [
        ['version', 'v20.99.0'],
        ['arch', 'other'],
        ['config', { variables: { v8_enable_pointer_compression: 1 } }],
      ] as const) {
        expect(isTaken(join(PROGRAM, 'main.js'), { [key]: value }), key).toBe(false);
      }
    });

    it('but never code that is damaged, or that is of another text', async () => {
      const dir = await mkdtemp(join(tmpdir(), 'sealift-compiled-'));
      onTestFinished(() => rmSync(dir, { recursive: true }));
      const module = join(dir, 'a.js');
      writeFileSync(module, 'module.exports = () => 1;');
      settleEngine();
      keepCompiled(scriptOf(module));
      const compiled = readFileSync(`${module}.compiled`);
      expect(isTaken(module)).toBe(true);
      for (let at = 0; at < compiled.length; at += 7) {
        const damaged = Buffer.from(compiled);
        damaged[at] = (damaged[at] ?? 0) ^ 1;
        writeFileSync(`${module}.compiled`, damaged);
        expect(scriptOf(module).script.cachedDataRejected).toBeUndefined();
      }
      for (const length of [0, 7, 8, compiled.length - 1]) {
        writeFileSync(`${module}.compiled`, compiled.subarray(0, length));
        expect(scriptOf(module).script.cachedDataRejected).not.toBe(false);
      }
      writeFileSync(`${module}.compiled`, compiled);
      writeFileSync(module, 'module.exports = () => 2;');
      expect(isTaken(module)).toBe(false);
    });
  });

  /** What V8 compiles of the program in another folder, by the names of the files. */
  async function compiledIn(name: string, settings: Readonly<Record<string, string>>) {
    const dir = await mkdtemp(join(tmpdir(), name));
    onTestFinished(() => rm(dir, { recursive: true }));
    const at = join(dir, 'dist/program');
    await cp(PROGRAM, at, { recursive: true, filter: (path) => !path.endsWith('.compiled') });
    await cp(join(ROOT, 'package.json'), join(dir, 'package.json'));
    await symlink(join(ROOT, 'node_modules'), join(dir, 'node_modules'));
    const { NODE_OPTIONS: _, NODE_V8_COVERAGE: __, ...env } = process.env;
    const ran = spawnSync(process.execPath, ['--random-seed=1', join(ROOT, 'scripts/compile.cjs'), at], {
      env: { ...env, ...settings },
      // As the build starts it: what writes to a pipe is other code.
      stdio: ['ignore', 'ignore', 'pipe'],
      encoding: 'utf8',
    });
    expect(ran.status, ran.stderr).toBe(0);
    const names = readdirSync(at).filter((file) => file.endsWith('.compiled'));
    return Object.fromEntries(names.map((file) => [file, readFileSync(join(at, file)).toString('base64')]));
  }

  it('is compiled to the same bytes anywhere, whatever this machine trusts', async () => {
    const here = await compiledIn('sealift-compile-', {});
    const there = await compiledIn('sealift compile elsewhere ', {
      SEALIFT_TRUST: '/nonexistent.pub',
      TZ: 'Asia/Seoul',
    });
    expect(Object.keys(here).length).toBeGreaterThan(30);
    for (const [file, text] of Object.entries(here)) expect(there[file] === text, file).toBe(true);
  }, 60_000);

  it('carries the licence of every library that is in it', () => {
    const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(
      readFileSync(join(ROOT, 'package.json'), 'utf8'),
    );
    const notices = readFileSync(join(PROGRAM, 'LICENSES.txt'), 'utf8');
    for (const [name, version] of Object.entries(dependencies)) {
      const isInside = !name.startsWith('@napi-rs/');
      expect(notices.includes(`${name} ${version} (`), name).toBe(isInside);
    }
    // Each with its text, also the one whose package holds none.
    for (const notice of notices.split(`\n${'-'.repeat(80)}\n`)) {
      expect(notice, notice.slice(0, 60)).toMatch(/copyright/i);
      expect(notice, notice.slice(0, 60)).toMatch(/without warranty|as is/i);
    }
    expect(notices).toMatch(/@bufbuild\/protobuf.*Apache License.*Copyright 2008 Google Inc\./s);
  });
});
