// Makes dist/tool/sealift-<version>-linux-{x64,arm64}.tar.gz, each with a .sha256 beside it: Node, the program, its native
// library and a launcher, for machines with no Node (docs/install.md). `npm run dist` builds the program first.
//
//   npm run dist                          both
//   npm run dist -- --arch x64            one
//   npm run dist -- --lib x64=FOLDER      also libstdc++.so.6, libgcc_s.so.1 and their licence (LICENSE*, copyright) out of
//                                         FOLDER, for systems that lack them
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { compareVersions, highest, readElf } from './tool/elf.mjs';
import { fetchPart, fileOf } from './tool/parts.mjs';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PROGRAM = join(ROOT, 'dist/program');
const MACHINES = { x64: 'x86_64', arm64: 'aarch64' };
const NATIVE = '@napi-rs/blake-hash';
/** The C++ library that Node's own builds leave to the system. */
const CXX = ['libstdc++.so.6', 'libgcc_s.so.1'];
/** Libraries that belong to glibc itself. */
const GLIBC =
  /^(?:libc\.so\.6|lib(?:dl|m|rt)\.so\.\d|libpthread\.so\.0|ld-linux-(?:x86-64|aarch64)\.so\.\d)$/;
/** What docs/install.md and the launcher promise: a Node that needs more must not slip in. */
const FLOOR = [2, 28];

const readJson = (path) => JSON.parse(readFileSync(join(ROOT, path), 'utf8'));
const dotted = (parts) => parts.join('.');

/** The packages of one processor, with the integrity that this repository states. */
function partsOf(arch) {
  const node = readJson('scripts/tool/node.json');
  const native = `${NATIVE}-linux-${arch}-gnu`;
  const locked = readJson('package-lock.json').packages[`node_modules/${native}`];
  const name = `node-linux-${arch}`;
  return [
    { name, version: node.version, integrity: node.integrity[name] },
    { name: native, version: locked.version, integrity: locked.integrity },
  ];
}

/** Writes files below `root`, by their paths. */
function put(root, files) {
  for (const [path, bytes] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), bytes);
  }
}

/** What a folder must hold to be carried with `--lib`. */
function cxxFiles(folder) {
  const licence = readdirSync(folder).find((name) => /^(?:licen[cs]e|copyright|copying)/i.test(name));
  if (licence === undefined)
    throw new Error(`${folder}: no LICENSE or copyright beside ${CXX.join(' and ')}`);
  const libraries = CXX.map((name) => [`runtime/${name}`, readFileSync(join(folder, name))]);
  const text = ['LICENSES/libstdc++.txt', readFileSync(join(folder, licence))];
  return Object.fromEntries([...libraries, text]);
}

/** What the files need of a machine together. @throws where that is not what docs/install.md says */
function needsOf(root, { arch, names }) {
  const files = names.map((name) => ({ name, ...readElf(readFileSync(join(root, name))) }));
  for (const { name, machine, needed } of files) {
    if (machine !== arch) throw new Error(`${name} is for ${machine}, not for ${arch}`);
    const other = needed.find((library) => !GLIBC.test(library) && !CXX.includes(library));
    if (other !== undefined) throw new Error(`${name} needs ${other}, which is not part of glibc`);
  }
  const glibc = (one) => highest(Object.values(one.versions).flat(), 'GLIBC') ?? [2];
  const all = files.flatMap((file) => Object.values(file.versions).flat());
  return {
    loader: files[0].loader,
    glibc: files.map((file) => ({ name: file.name, version: glibc(file) })),
    cxx: ['GLIBCXX', 'CXXABI', 'GCC'].map((kind) => `${kind}_${dotted(highest(all, kind))}`),
  };
}

function launcher(arch, loader) {
  const facts = { ARCH: arch, MACHINE: MACHINES[arch], LOADER: loader, GLIBC: dotted(FLOOR) };
  const text = readFileSync(join(ROOT, 'scripts/tool/launcher.sh'), 'utf8');
  return text.replace(/@([A-Z]+)@/g, (_, name) => facts[name]);
}

/** Has the Node inside compile the program, where this machine can run it. @returns whether it did */
function compile(root, arch) {
  const node = join(root, 'runtime/node');
  // An emulator, where one is registered, does not count: some build machines have it and others do not.
  const can = arch === process.arch && spawnSync(node, ['--version'], { stdio: 'ignore' }).status === 0;
  if (!can) return false;
  // The program asks for its libraries from where it lies, and bin/start.js is the same as here.
  const args = ['--random-seed=1', join(ROOT, 'scripts/compile.cjs'), join(root, 'program/dist/program')];
  // V8 keeps its settings with what it compiles, and takes that only where they are the same.
  const { NODE_OPTIONS: _, NODE_V8_COVERAGE: __, ...env } = process.env;
  const ran = spawnSync(node, args, { env, stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' });
  if (ran.status !== 0) throw new Error(`the Node inside cannot compile the program:\n${ran.stderr}`);
  return true;
}

function requirements({ arch, version, parts, needs, compiled, carriesCxx }) {
  const own = needs.glibc.filter(({ name }) => !CXX.some((library) => name.endsWith(library)));
  const withCxx = needs.glibc
    .map((one) => one.version)
    .sort(compareVersions)
    .at(-1);
  return `Sealift ${version} for Linux on ${arch} (${MACHINES[arch]})

Needed on the machine
  glibc ${dotted(FLOOR)} or newer: Debian 10, Ubuntu 20.04, RHEL 8 and its rebuilds, SLES 15 SP3, Amazon Linux 2023, and newer ones.
    ${own.map((one) => `${one.name} needs ${dotted(one.version)}`).join('\n    ')}
  libstdc++.so.6 and libgcc_s.so.1 (${needs.cxx.join(', ')}: GCC 5 or newer). Nearly every system has them;
    else: package libstdc++6 or libstdc++, or the two files copied into runtime/.${
      carriesCxx
        ? `
    This tarball carries its own, used only where the system has none; these need glibc ${dotted(withCxx)}.`
        : ''
    }
  A POSIX shell for the launcher (dash, bash, busybox). No Node, no root, no network. musl (Alpine) is not enough.

What is inside
${parts.map((part) => `  ${part.name} ${part.version} ${part.integrity}`).join('\n')}
  Compiled beforehand for a quicker start: ${compiled ? 'yes' : 'no, it was built on a machine that cannot run it'}.

Check every file: sha256sum -c --strict SHA256SUMS
`;
}

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

function writeSums(root) {
  const paths = readdirSync(root, { recursive: true }).filter((path) => statSync(join(root, path)).isFile());
  const lines = paths.sort().map((path) => `${sha256(readFileSync(join(root, path)))}  ${path}\n`);
  writeFileSync(join(root, 'SHA256SUMS'), lines.join(''));
}

/** Lays out everything of one tool below `root`. */
async function layOut(root, { arch, version, lib }) {
  const parts = partsOf(arch);
  const [node, native] = await Promise.all(parts.map((part) => fetchPart(part, ROOT)));
  const nativePackage = `program/node_modules/${parts[1].name}`;
  const binary = JSON.parse(fileOf(native, 'package.json')).main;
  const cxx = lib === undefined ? {} : cxxFiles(lib);
  put(root, {
    'runtime/node': fileOf(node, 'bin/node'),
    [`${nativePackage}/package.json`]: fileOf(native, 'package.json'),
    [`${nativePackage}/${binary}`]: fileOf(native, binary),
    LICENSE: readFileSync(join(ROOT, 'LICENSE')),
    'LICENSES/node.txt': fileOf(node, 'LICENSE'),
    'LICENSES/blake-hash.txt': readFileSync(join(ROOT, 'node_modules', NATIVE, 'LICENSE')),
    'LICENSES/libraries.txt': readFileSync(join(PROGRAM, 'LICENSES.txt')),
    ...cxx,
  });
  const names = ['runtime/node', `${nativePackage}/${binary}`];
  const libraries = Object.keys(cxx).filter((path) => path.startsWith('runtime/'));
  const needs = needsOf(root, { arch, names: [...names, ...libraries] });
  const highestOwn = needs.glibc
    .slice(0, names.length)
    .map((one) => one.version)
    .sort(compareVersions)
    .at(-1);
  if (compareVersions(highestOwn, FLOOR) !== 0) {
    throw new Error(`the files need glibc ${dotted(highestOwn)}, docs/install.md says ${dotted(FLOOR)}`);
  }
  for (const name of ['README.md', 'CHANGELOG.md', 'docs/install.md', 'manifests']) {
    cpSync(join(ROOT, name), join(root, name), { recursive: true });
  }
  for (const name of ['bin', 'package.json', 'dist/program']) {
    const keep = (path) => !path.endsWith('.compiled');
    cpSync(join(ROOT, name), join(root, 'program', name), { recursive: true, filter: keep });
  }
  chmodSync(join(root, 'runtime/node'), 0o755);
  const compiled = compile(root, arch);
  const about = { name: `sealift-${version}-linux-${arch}`, version, arch, glibc: dotted(FLOOR), compiled };
  put(root, {
    sealift: launcher(arch, needs.loader),
    'REQUIREMENTS.txt': requirements({
      arch,
      version,
      parts,
      needs,
      compiled,
      carriesCxx: lib !== undefined,
    }),
    'tool.json': `${JSON.stringify({ ...about, parts }, null, 2)}\n`,
  });
  writeSums(root);
}

/** Makes one tarball and its checksum: beside, then renamed. */
async function make(arch, { out, lib, toolArchive }) {
  const { version } = readJson('package.json');
  const name = `sealift-${version}-linux-${arch}`;
  const root = mkdtempSync(join(tmpdir(), 'sealift-dist-'));
  const target = join(out, `${name}.tar.gz`);
  const partial = `${target}.${process.pid}.tmp`;
  try {
    await layOut(root, { arch, version, lib });
    mkdirSync(out, { recursive: true });
    await pipeline(toolArchive(root, { name }), createWriteStream(partial));
    const digest = sha256(readFileSync(partial));
    writeFileSync(`${target}.sha256`, `${digest}  ${name}.tar.gz\n`);
    renameSync(partial, target);
    console.log(`${target}: ${statSync(target).size} bytes, sha256 ${digest}`);
  } finally {
    rmSync(partial, { force: true });
    rmSync(root, { recursive: true, force: true });
  }
}

async function main() {
  const { values } = parseArgs({
    options: {
      arch: { type: 'string', multiple: true, default: Object.keys(MACHINES) },
      lib: { type: 'string', multiple: true, default: [] },
      out: { type: 'string', default: join(ROOT, 'dist/tool') },
    },
  });
  const built = new URL('../dist/ops/tool-archive.js', import.meta.url);
  if (!existsSync(built) || !existsSync(PROGRAM))
    throw new Error('dist/ is absent: `npm run dist` builds it first');
  const { toolArchive } = await import(built.href);
  const libs = new Map(values.lib.map((text) => text.split(/=(.*)/s, 2)));
  for (const arch of [...values.arch, ...libs.keys()]) {
    if (!Object.hasOwn(MACHINES, arch)) throw new Error(`x64 or arm64, not ${arch}`);
  }
  const archs = new Set(values.arch);
  const unused = [...libs.keys()].find((arch) => !archs.has(arch));
  if (unused !== undefined) throw new Error(`--lib ${unused}=…: no tarball for ${unused} is made`);
  for (const arch of archs) await make(arch, { out: values.out, lib: libs.get(arch), toolArchive });
}

try {
  await main();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
