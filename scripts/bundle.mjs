// Joins the program and its libraries into few files, dist/program/: what a verb does not need lies in files of its own
// (docs/decisions/009). `npm run build` runs it after the compiler, which writes dist/ for those who import the library.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const OUT = join(ROOT, 'dist/program');
/** It chooses the machine's own binary when it is loaded, so it stays where npm put it. */
const NATIVE = /^@napi-rs\//;

/** What the command line itself needs: nothing of Node, so help and faults in words come at once. */
const CORE = /\/src\/core\//;

/**
 * What nearly every verb and thread needs, and what runs first: one file of it is read faster than twenty. Nothing here may
 * bring a library along, or much of Node's network.
 */
const BASE =
  /\/src\/(?:io\/(?:blake3|files|hold|pool|tar|tar-fields|threads|thread-messages|verify)\.ts|bundle\/(?:ahead|entries|hash|hints|medium|names|plan|scan|sweep|texts|volume-files|volume-shape|volumes)\.ts|lock\/(?:text|write)\.ts|oci\/(?:graph|manifest)\.ts)/;

/** Numbers that both of these need. */
const LIMITS = /\/src\/core\/limits\.ts/;

/** What a thread that only hashes needs, and who starts it early. */
const HASHING = /\/src\/(?:io\/(?:blake3|cores|open-file)|bundle\/sweep-(?:crew|jobs))\.ts/;

/** Modules of Node that few runs need, though what all runs need imports them: loaded when something of theirs is used. */
const RARE =
  /^(\s*)(let|const) (\w+) = require\("node:(child_process|https|readline|tls|worker_threads)"\);$/gm;

const rareLater = {
  name: 'rare-later',
  renderChunk(code) {
    const later = '$1$2 $3 = new Proxy({}, { get: (_, name) => require("node:$4")[name] });';
    return code.replace(RARE, later);
  },
};

/** The program, and every module that is started as a thread. All lie in one folder: `./x-thread.js` is beside its starter. */
function entries() {
  const src = join(ROOT, 'src');
  const threads = readdirSync(src, { recursive: true }).filter((path) => path.endsWith('-thread.ts'));
  return {
    main: join(src, 'cli/main.ts'),
    early: join(src, 'cli/early.ts'),
    ...Object.fromEntries(threads.map((path) => [basename(path, '.ts'), join(src, path)])),
  };
}

/** The folders of the packages that these modules come from. */
function packagesOf(modules) {
  const inside = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//;
  return [...new Set(modules.flatMap((id) => inside.exec(id)?.[1] ?? []))].sort();
}

/** Libraries without a file of their licence: where its text stands. */
const ELSEWHERE = {
  // Apache-2.0 as this project itself; BSD-3-Clause for what Google wrote, at the beginning of that file.
  '@bufbuild/protobuf': (folder) => {
    const lines = readFileSync(join(folder, 'dist/esm/wire/varint.js'), 'utf8').split('\n');
    const head = lines.slice(
      0,
      lines.findIndex((line) => !line.startsWith('//')),
    );
    const google = head.map((line) => line.replace(/^\/\/ ?/, '')).join('\n');
    return `${readFileSync(join(ROOT, 'LICENSE'), 'utf8').trim()}\n\n${google}`;
  },
};

/** The text of a library's licence. @throws where it has none */
function licenceOf(name, folder) {
  const file = readdirSync(folder).find((f) => /^(?:licen[cs]e|copying)(?:\.|$)/i.test(f));
  const text = file === undefined ? ELSEWHERE[name]?.(folder) : readFileSync(join(folder, file), 'utf8');
  if (text === undefined || text.trim().length < 200) throw new Error(`${name} has no text of its licence`);
  return text.trim();
}

/** What the licences of the libraries ask for: their text goes along. */
function notices(folders) {
  const texts = folders.map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    if (typeof license !== 'string') throw new Error(`${name} does not say its licence`);
    return `${name} ${version} (${license})\n\n${licenceOf(name, folder)}\n`;
  });
  return texts.join(`\n${'-'.repeat(80)}\n\n`);
}

/** Two files that need each other would each find the other one empty, or not, as it comes. @throws for a circle */
function refuseCircles(chunks) {
  const imports = new Map(chunks.map((chunk) => [chunk.fileName, chunk.imports ?? []]));
  const done = new Set();
  const walk = (file, way) => {
    if (way.includes(file)) throw new Error(`a circle of files: ${[...way, file].join(' → ')}`);
    if (done.has(file)) return;
    for (const next of imports.get(file) ?? []) walk(next, [...way, file]);
    done.add(file);
  };
  for (const file of imports.keys()) walk(file, []);
}

const partial = `${OUT}.${process.pid}`;
try {
  const build = await rolldown({
    cwd: ROOT,
    input: entries(),
    platform: 'node',
    external: NATIVE,
    plugins: [rareLater],
    preserveEntrySignatures: 'allow-extension',
    onLog(level, log) {
      if (level === 'warn') throw new Error(log.message);
    },
  });
  const { output } = await build.write({
    dir: partial,
    format: 'cjs',
    entryFileNames: '[name].js',
    chunkFileNames: '[name]-[hash].js',
    codeSplitting: {
      groups: [
        { name: 'limits', test: LIMITS, priority: 2 },
        { name: 'hashing', test: HASHING, priority: 2 },
        { name: 'core', test: CORE, priority: 1 },
        { name: 'base', test: BASE, priority: 1 },
      ],
      includeDependenciesRecursively: false,
    },
  });
  await build.close();
  refuseCircles(output);
  const files = new Set(output.map((chunk) => chunk.fileName));
  for (const chunk of output) {
    const outside = (chunk.dynamicImports ?? []).filter((name) => !files.has(name));
    // Scripts that V8 compiled beforehand cannot import(), only what is joined here is loaded when it is needed.
    if (outside.length > 0) throw new Error(`${chunk.fileName} imports ${outside.join(', ')} when it runs`);
  }
  const modules = output.flatMap((chunk) => (chunk.type === 'chunk' ? chunk.moduleIds : []));
  writeFileSync(join(partial, 'LICENSES.txt'), notices(packagesOf(modules)));
  // Files of this folder are no ES modules, for which this Node keeps nothing compiled.
  writeFileSync(join(partial, 'package.json'), '{"type":"commonjs"}\n');
  // The seed is the one thing that made what V8 compiles differ from run to run. V8 does not compare it later.
  execFileSync(process.execPath, ['--random-seed=1', join(ROOT, 'scripts/compile.cjs'), partial], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  // Whole or not at all: a program may run while it is built.
  if (existsSync(OUT)) renameSync(OUT, `${partial}.old`);
  renameSync(partial, OUT);
  // Tarballs with the program as it was (npm run dist): a pack must not hand out an older one.
  rmSync(join(ROOT, 'dist/tool'), { recursive: true, force: true });
} finally {
  rmSync(partial, { recursive: true, force: true });
  rmSync(`${partial}.old`, { recursive: true, force: true });
}
