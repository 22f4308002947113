import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

/** The house (docs/architecture.md): a file may import its own folder and any lower floor. */
const FLOORS: Readonly<Record<string, number>> = {
  core: 0,
  io: 1,
  manifest: 2,
  lock: 2,
  oci: 2,
  trust: 2,
  site: 3,
  helm: 3,
  olm: 3,
  python: 3,
  source: 4,
  bundle: 4,
  target: 4,
  serve: 4,
  report: 4,
  ops: 5,
  cli: 6,
};

/** Verbs of the closed side: nothing that they reach may ask the outside world. */
const FAR_SIDE = [
  'src/ops/verify.ts',
  'src/ops/load.ts',
  'src/ops/serve.ts',
  'src/ops/pull.ts',
  'src/serve/registry.ts',
];

const ROOT = resolve(import.meta.dirname, '..');
const SRC = join(ROOT, 'src');

interface Import {
  readonly from: string;
  /** A path relative to the root for files, the package name otherwise. */
  readonly to: string;
  readonly internal: boolean;
}

function filesBelow(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((d) =>
    d.isDirectory() ? filesBelow(join(dir, d.name)) : d.name.endsWith('.ts') ? [join(dir, d.name)] : [],
  );
}

/** Every import, export-from and dynamic import of a source text. */
function importsOf(text: string): string[] {
  const statement = /^\s*(?:import|export)\s(?:[^'"`;]*?\sfrom\s)?\s*['"]([^'"]+)['"]/gm;
  const dynamic = /\bimport\(\s*['"]([^'"]+)['"]\s*\)/g;
  return [...text.matchAll(statement), ...text.matchAll(dynamic)].map((m) => m[1] ?? '');
}

function readImports(file: string): Import[] {
  const from = relative(ROOT, file);
  return importsOf(readFileSync(file, 'utf8')).map((spec) =>
    spec.startsWith('.')
      ? { from, to: relative(ROOT, resolve(dirname(file), spec)), internal: true }
      : { from, to: spec, internal: false },
  );
}

function folderOf(path: string): string {
  return path.split('/')[1] ?? '';
}

/** What is wrong with one import; undefined when it is allowed. */
function judge({ from, to, internal }: Import): string | undefined {
  if (from === 'src/index.ts') return undefined;
  const own = folderOf(from);
  const floor = FLOORS[own];
  if (floor === undefined) return `${from}: no such room as ${own}/`;
  if (!internal) return floor === 0 ? `${from} imports ${to}: core/ imports nothing` : undefined;
  if (!to.startsWith('src/')) return `${from} imports ${to}, outside src/`;
  const other = folderOf(to);
  const otherFloor = FLOORS[other];
  if (other === own) return undefined;
  if (otherFloor === undefined) return `${from} imports ${to}: no such room`;
  return otherFloor < floor ? undefined : `${from} (floor ${floor}) imports ${to} (floor ${otherFloor})`;
}

const files = filesBelow(SRC);
const imports = files.flatMap(readImports);

describe('the house', () => {
  it('has files on its floors', () => {
    expect(files.length).toBeGreaterThan(30);
    expect(imports.filter((i) => i.internal).length).toBeGreaterThan(100);
  });

  it('lets nobody import upwards or sideways, and core/ nothing at all', () => {
    expect(imports.flatMap((i) => judge(i) ?? [])).toEqual([]);
  });

  it('keeps source/ out of reach of the far side', () => {
    const byFile = new Map<string, Import[]>();
    for (const i of imports) byFile.set(i.from, [...(byFile.get(i.from) ?? []), i]);
    for (const start of FAR_SIDE) {
      const reached = new Set<string>([start]);
      for (const file of reached) {
        for (const { to, internal } of byFile.get(file) ?? []) if (internal) reached.add(to);
      }
      expect(reached.size, `${start} must exist and import something`).toBeGreaterThan(3);
      expect([...reached].filter((f) => f.startsWith('src/source/'))).toEqual([]);
    }
  });

  it('has no barrel but src/index.ts and no drawer for everything', () => {
    const names = files.map((f) => relative(SRC, f));
    expect(names.filter((n) => n.endsWith('/index.ts'))).toEqual([]);
    expect(names.filter((n) => /(?:^|\/)(?:utils?|helpers?|common|misc)(?:\/|\.ts$)/.test(n))).toEqual([]);
  });

  it('knows a broken floor when it sees one', () => {
    const bad = (from: string, to: string): string | undefined => judge({ from, to, internal: true });
    expect(bad('src/oci/a.ts', 'src/lock/b.ts')).toContain('floor 2');
    expect(bad('src/io/a.ts', 'src/cli/b.ts')).toContain('floor 6');
    expect(bad('src/attic/a.ts', 'src/core/b.ts')).toContain('no such room');
    expect(judge({ from: 'src/core/a.ts', to: 'node:fs', internal: false })).toContain(
      'core/ imports nothing',
    );
    expect(bad('src/cli/a.ts', 'src/ops/b.ts')).toBeUndefined();
    expect(
      importsOf("import {\n  a,\n} from '../x.ts';\nexport { b } from './y.ts';\nawait import('./z.ts')"),
    ).toEqual(['../x.ts', './y.ts', './z.ts']);
  });
});

/** Names of functions in the tests that assert, so that calling one counts as asserting. */
function assertingNames(texts: readonly string[]): string[] {
  const declared = /^(?:export )?(?:async )?(?:function (\w+)[\s\S]*?^}|const (\w+) = [\s\S]*?^};?$)/gm;
  const functions = texts.flatMap((t) =>
    [...t.matchAll(declared)].map((m) => [m[1] ?? m[2] ?? '', m[0]] as const),
  );
  const names = new Set(['expect', 'assert']);
  for (let before = 0; before !== names.size; ) {
    before = names.size;
    const calls = new RegExp(`\\b(?:${[...names].join('|')})\\s*[.(]`);
    for (const [name, text] of functions) if (calls.test(text)) names.add(name);
  }
  return [...names].filter((n) => n !== '');
}

describe('every test file', () => {
  it('asserts something in every test', () => {
    const tests = filesBelow(join(ROOT, 'test'));
    const texts = tests.map((file) => readFileSync(file, 'utf8'));
    const asserts = new RegExp(`\\b(?:${assertingNames(texts).join('|')})\\s*[.(]`);
    const empty = tests.flatMap((file, i) => {
      if (!file.endsWith('.test.ts')) return [];
      const bodies = (texts[i] ?? '').split(/^\s*(?:it|test)(?:\.\w+)*(?:\([^'"`]*\))?\(/m).slice(1);
      return bodies.filter((b) => !asserts.test(b)).map((b) => `${relative(ROOT, file)}: ${b.slice(0, 80)}`);
    });
    expect(empty).toEqual([]);
  });

  it('would be told apart if it asserted nothing', () => {
    const names = assertingNames([
      'function same(a) {\n  expect(a).toBe(1);\n}\nasync function twice() {\n  same(2);\n}\nfunction idle() {\n  run();\n}\n',
    ]);
    expect(names.sort()).toEqual(['assert', 'expect', 'same', 'twice']);
  });
});
