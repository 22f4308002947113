/** A simple index (PEP 503, 691) on this machine, and a resolver that answers what a test says. */
import { createHash } from 'node:crypto';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { metadataText, type PackageText, zip } from './wheels.ts';

/** A file of the index. */
export interface Offered {
  readonly file: string;
  readonly bytes: Buffer;
  readonly requiresPython?: string;
  readonly yanked?: string;
}

/** A wheel with any tags. @param tags `cp311-cp311-manylinux_2_17_x86_64` */
export function taggedWheel(of: PackageText, tags = 'py3-none-any'): Offered {
  const stem = `${of.name.replaceAll('-', '_')}-${of.version}`;
  const info = `${stem}.dist-info`;
  const [python, abi, platform = 'any'] = tags.split('-').slice(-3);
  const lines = platform.split('.').map((p) => `Tag: ${python}-${abi}-${p}\n`);
  const pure = platform === 'any';
  const files = [
    { name: `${of.name.replaceAll('-', '_')}.py`, data: `TAGS = ${JSON.stringify(tags)}\n` },
    { name: `${info}/METADATA`, data: metadataText(of) },
    {
      name: `${info}/WHEEL`,
      data: `Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: ${pure}\n${lines.join('')}`,
    },
  ];
  const record = [...files, { name: `${info}/RECORD`, data: '' }].map(({ name }) => `${name},,\n`).join('');
  return {
    file: `${stem}-${tags}.whl`,
    bytes: zip([...files, { name: `${info}/RECORD`, data: record }]),
    ...(of.requiresPython === undefined ? {} : { requiresPython: of.requiresPython }),
  };
}

export interface PackageIndex {
  /** `http://127.0.0.1:PORT/simple` */
  readonly url: string;
  readonly host: string;
  /** Paths that were asked for, with their method. */
  readonly asked: string[];
  put(project: string, ...files: readonly Offered[]): void;
  /** The same in place of what it has of the project. */
  replace(project: string, ...files: readonly Offered[]): void;
  close(): Promise<void>;
}

export interface IndexOptions {
  /** Default JSON where the client takes it. */
  readonly html?: boolean;
  readonly hashes?: boolean;
  readonly sizes?: boolean;
  readonly login?: { readonly username: string; readonly password: string };
}

/** Starts an index that offers what is put into it. */
export async function startPackageIndex(options: IndexOptions = {}): Promise<PackageIndex> {
  const projects = new Map<string, Offered[]>();
  const asked: string[] = [];
  const { login } = options;
  const expected =
    login === undefined
      ? undefined
      : `Basic ${Buffer.from(`${login.username}:${login.password}`).toString('base64')}`;
  const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '/');
    asked.push(`${request.method} ${path}`);
    const answer = (
      status: number,
      headers: Record<string, string | number>,
      body: string | Buffer,
    ): void => {
      response.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body) });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    if (expected !== undefined && request.headers.authorization !== expected) {
      answer(401, { 'www-authenticate': 'Basic realm="index"' }, 'login');
      return;
    }
    const [, project] = /^\/simple\/([^/]+)\/$/.exec(path) ?? [];
    const offered = projects.get(project ?? '');
    const found = [...projects.values()].flat().find(({ file }) => path === `/files/${file}`);
    if (found !== undefined) answer(200, { 'content-type': 'application/octet-stream' }, found.bytes);
    else if (offered === undefined) answer(404, {}, 'absent');
    else if (options.html === true || !(request.headers.accept ?? '').includes('json')) {
      const links = offered.map(({ file, bytes, requiresPython, yanked }) => {
        const hash = options.hashes === false ? '' : `#sha256=${sha256(bytes)}`;
        const requires =
          requiresPython === undefined
            ? ''
            : ` data-requires-python="${requiresPython.replaceAll('>', '&gt;')}"`;
        const back = yanked === undefined ? '' : ` data-yanked="${yanked}"`;
        return `<a href="../../files/${encodeURIComponent(file)}${hash}"${requires}${back}>${file}</a>`;
      });
      answer(
        200,
        { 'content-type': 'text/html' },
        `<!DOCTYPE html><html><body>${links.join('\n')}</body></html>`,
      );
    } else {
      const files = offered.map(({ file, bytes, requiresPython, yanked }) => ({
        filename: file,
        url: `../../files/${encodeURIComponent(file)}`,
        hashes: options.hashes === false ? {} : { sha256: sha256(bytes) },
        ...(options.sizes === false ? {} : { size: bytes.length }),
        ...(requiresPython === undefined ? {} : { 'requires-python': requiresPython }),
        yanked: yanked ?? false,
      }));
      const page = { meta: { 'api-version': '1.1' }, name: project, versions: [], files };
      answer(200, { 'content-type': 'application/vnd.pypi.simple.v1+json' }, JSON.stringify(page));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const host = `127.0.0.1:${port}`;
  return {
    url: `http://${host}/simple`,
    host,
    asked,
    put: (project, ...files) => void projects.set(project, [...(projects.get(project) ?? []), ...files]),
    replace: (project, ...files) => void projects.set(project, [...files]),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** What the fake resolver was asked: its arguments, the lines that it found in its output file, what files say. */
export interface Asked {
  readonly args: readonly string[];
  readonly held: string;
  readonly packages: string;
  readonly env: Readonly<Record<string, string>>;
}

export interface FakeUv {
  /** For PATH. */
  readonly bin: string;
  /** Sets the answers: by `universal` or `3.11 x86_64-manylinux_2_28`; a text that begins with `!` is a failure. */
  answers(texts: Readonly<Record<string, string>>): Promise<void>;
  /** Each call that was no question for the version. */
  asked(): Promise<readonly Asked[]>;
}

const PROGRAM = `
const { appendFileSync, existsSync, readFileSync, writeFileSync } = require('node:fs');
const folder = FOLDER;
const args = process.argv.slice(2);
if (args[0] === '--version') { console.log('uv 0.99.0'); process.exit(0); }
const value = (name) => args[args.indexOf(name) + 1];
const out = value('--output-file');
const own = args.find((a) => a.endsWith('packages.txt'));
appendFileSync(folder + '/asked', JSON.stringify({
  args, env: process.env,
  held: existsSync(out) ? readFileSync(out, 'utf8') : '',
  packages: own === undefined ? '' : readFileSync(own, 'utf8'),
}) + '\\n');
const key = args.includes('--universal') ? 'universal' : value('--python-version') + ' ' + value('--python-platform');
const answers = JSON.parse(readFileSync(folder + '/answers', 'utf8'));
const text = answers[key] ?? answers.any ?? '';
if (text === '!hang') setInterval(() => {}, 1000);
else if (text.startsWith('!')) { console.error(text.slice(1)); process.exit(1); }
else writeFileSync(out, text);
`;

/** Puts a program uv into folder that answers what a test says. */
export async function fakeUv(folder: string): Promise<FakeUv> {
  const bin = join(folder, 'bin');
  await mkdir(bin, { recursive: true });
  const program = PROGRAM.replace('FOLDER', () => JSON.stringify(folder));
  await writeFile(join(bin, 'uv'), `#!${process.execPath}\n${program}`);
  await chmod(join(bin, 'uv'), 0o755);
  await writeFile(join(folder, 'asked'), '');
  return {
    bin,
    answers: (texts) => writeFile(join(folder, 'answers'), JSON.stringify(texts)),
    asked: async () => {
      const text = await readFile(join(folder, 'asked'), 'utf8');
      return text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line));
    },
  };
}
