// Packages of npm that go into the tool, fetched when they are needed and never by `npm ci`: Node alone has 40 MB for each
// processor. npm itself fetches them, so its configuration (registry, proxy, login, cache) counts; their integrity is
// written in this repository.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { extract } from 'tar-stream';

/** What npm calls itself when it runs a script; a bare `node scripts/dist.mjs` asks the PATH. */
function npm(args, options) {
  const own = process.env.npm_execpath;
  const [program, before] = /\bnpm(?:-cli)?\.js$/.test(own ?? '') ? [process.execPath, [own]] : ['npm', []];
  return execFileSync(program, [...before, ...args], { stdio: ['ignore', 'ignore', 'inherit'], ...options });
}

/**
 * Fetches one package.
 * @param {{name: string, version: string, integrity: string}} part `integrity` as in package-lock.json: `sha512-…`
 * @param {string} root folder of the project, whose .npmrc counts
 * @returns {Promise<Map<string, Buffer>>} its files by their path in the package
 */
export async function fetchPart({ name, version, integrity }, root) {
  const dir = mkdtempSync(join(tmpdir(), 'sealift-part-'));
  try {
    const spec = `${name}@${version}`;
    npm(['pack', spec, '--pack-destination', dir, '--prefer-offline', '--ignore-scripts', '--silent'], {
      cwd: root,
    });
    const [file] = readdirSync(dir);
    if (file === undefined) throw new Error(`npm gave nothing for ${spec}`);
    const bytes = readFileSync(join(dir, file));
    const found = `sha512-${createHash('sha512').update(bytes).digest('base64')}`;
    if (found !== integrity) throw new Error(`${spec}: the integrity is ${found}, expected ${integrity}`);
    return await unpack(gunzipSync(bytes));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** npm puts every file below one folder, mostly `package/`. */
async function unpack(tar) {
  const files = new Map();
  const reader = extract();
  reader.end(tar);
  for await (const entry of reader) {
    const chunks = [];
    for await (const chunk of entry) chunks.push(chunk);
    if (entry.header.type === 'file') {
      files.set(entry.header.name.replace(/^[^/]+\//, ''), Buffer.concat(chunks));
    }
  }
  return files;
}

/** The bytes of one file of a package. */
export function fileOf(files, path) {
  const bytes = files.get(path);
  if (bytes === undefined) throw new Error(`the package has no ${path}`);
  return bytes;
}
