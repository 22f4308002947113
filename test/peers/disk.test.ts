import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ContainerdClient } from '../../src/oci/containerd/client.ts';
import { ensureBuilt } from '../cli/program.ts';
import { demoFiles, writeChart } from '../support/charts.ts';
import { makeBigFleet, pushImage } from '../support/fleet.ts';
import {
  type Containerd,
  peer,
  type Registry,
  run,
  startContainerd,
  startRegistry,
} from '../support/peers.ts';

/** What the real program writes to disks while it loads, as the kernel hears it: each call that writes, traced. */

const MIB = 1024 * 1024;
const BIN = resolve(import.meta.dirname, '../../bin/sealift.js');
/** Every call by which bytes can come into a file, and those by which a file is opened, mapped or grown. */
const CALLS = [
  ...['write', 'writev', 'pwrite64', 'pwritev', 'pwritev2', 'sendfile', 'splice', 'copy_file_range'],
  ...['fallocate', 'ftruncate', 'truncate', 'mmap', 'io_uring_setup', 'io_submit'],
];
/** `[pid 12] pwrite64(21</x/y>, ""..., 4096, 0) = 4096`; of splice and sendfile the file that is written to. */
const WRITE = /\b(?:p?writev?2?|pwrite64|sendfile)\(\d+<([^>]*)>.*= (\d+)$/;
const MOVE = /\b(?:splice|copy_file_range)\(\d+<[^>]*>, [^,]*, \d+<([^>]*)>.*= (\d+)$/;
const RESUMED = /<\.\.\. (\w+) resumed>/;
const BEGUN = /^(.*) <unfinished \.\.\.>$/;

let dir: string;
let source: Registry;
let bundleSize: number;
let target: Registry;
let containerd: Containerd;

/** Lines of a trace, those that another thread interrupted put together again. */
function wholeLines(text: string): string[] {
  const begun = new Map<string, string>();
  const lines: string[] = [];
  for (const line of text.split('\n')) {
    const [pid = '', ...rest] = line.split(/\s+/);
    const said = rest.join(' ');
    const start = BEGUN.exec(said)?.[1];
    if (start !== undefined) begun.set(pid, start);
    else lines.push(RESUMED.test(said) ? `${begun.get(pid) ?? ''}${said.replace(RESUMED, '')}` : said);
  }
  return lines;
}

/** Neither on a disk nor in a file: sockets, pipes, the terminal, what the kernel makes. */
function isFile(path: string): boolean {
  return path.startsWith('/') && !/^\/(?:dev|proc|sys)\/|^\/memfd:/.test(path);
}

interface Written {
  /** Bytes by path. */
  readonly files: ReadonlyMap<string, number>;
  /** Bytes to sockets and pipes. */
  readonly sent: number;
  /** Calls by which bytes could be written that nobody counts. */
  readonly hidden: readonly string[];
}

function writtenIn(trace: string): Written {
  const files = new Map<string, number>();
  const hidden: string[] = [];
  let sent = 0;
  for (const line of wholeLines(trace)) {
    const [, path, count] = WRITE.exec(line) ?? MOVE.exec(line) ?? [];
    if (path !== undefined && isFile(path)) files.set(path, (files.get(path) ?? 0) + Number(count));
    else if (path !== undefined) sent += Number(count);
    const isMapped = /\bmmap\(.*PROT_WRITE.*MAP_SHARED.*<\//.test(line);
    if (isMapped || /\b(?:io_uring_setup|io_submit|f?truncate|fallocate)\(.*= \d+$/.test(line))
      hidden.push(line);
  }
  return { files, sent, hidden };
}

/** Runs sealift under strace and returns what it and its threads wrote. */
async function tracedLoad(...args: string[]): Promise<Written> {
  const trace = join(dir, 'trace');
  const own = ['-f', '-y', '-s', '0', '-e', 'signal=none', '-e', `trace=${CALLS.join(',')}`, '-o', trace];
  await run(peer('strace'), [...own, process.execPath, BIN, 'load', 'fleet.tar', ...args], {
    cwd: dir,
    env: { UV_USE_IO_URING: '0', XDG_CACHE_HOME: join(dir, 'cache') },
  });
  return writtenIn(await readFile(trace, 'utf8'));
}

/** Bytes of files outside of a folder. */
function outside({ files }: Written, inside: string): number {
  return [...files].reduce((sum, [path, bytes]) => sum + (path.startsWith(`${inside}/`) ? 0 : bytes), 0);
}

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-disk-'));
  source = await startRegistry();
  target = await startRegistry();
  containerd = await startContainerd('1.6');
  let refs = '';
  for (const image of makeBigFleet({ images: 4, layerSizes: [18 * MIB, 6 * MIB, 2 * MIB], kinds: ['oci'] })) {
    await pushImage(source.url, image);
    refs += `  - ${source.url}/${image.name}:${image.tag}\n`;
  }
  await writeChart(join(dir, 'charts', 'web'), {
    ...demoFiles('web'),
    'files/big.bin': Buffer.alloc(3 * MIB, 5),
  });
  await writeFile(join(dir, 'tool'), Buffer.alloc(20 * MIB, 9));
  const rest = `charts: [{path: charts/web}]\nfiles: [{path: tool, name: tool}]\n`;
  const text = `apiVersion: sealift/v1\nname: fleet\nversion: "1"\nplatforms: all\nimages:\n${refs}${rest}`;
  await writeFile(join(dir, 'sealift.yaml'), text);
  for (const args of [['lock'], ['pack', '-o', 'fleet.tar']])
    await run(process.execPath, [BIN, ...args], { cwd: dir });
  bundleSize = (await stat(join(dir, 'fleet.tar'))).size;
  await mkdir(join(dir, 'site'));
});

afterAll(async () => {
  await source?.stop();
  await target?.stop();
  await containerd?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe('a load of a bundle of more than 200 MB', () => {
  it('writes less than 1 MB beside what the target itself stores, for each kind of target', async () => {
    expect(bundleSize).toBeGreaterThan(200 * MIB);
    const site = join(dir, 'site');
    const loads: Record<string, readonly string[]> = {
      registry: ['--registry', target.url],
      'registry --verify': ['--registry', target.url, '--verify'],
      containerd: ['--containerd', containerd.socket, '--namespace', 'k8s.io'],
      'chart tree': ['--chart-tree', join(site, 'charts')],
      files: ['--files', join(site, 'files')],
    };
    const found: Record<string, number> = {};
    for (const [name, args] of Object.entries(loads)) {
      const written = await tracedLoad(...args, '--receipt', join(dir, 'receipt.json'));
      found[name] = outside(written, site);
      expect(written.hidden, name).toEqual([]);
      const inside =
        [...written.files.values()].reduce((sum, bytes) => sum + bytes, 0) - outside(written, site);
      if (name === 'registry' || name === 'containerd') expect(written.sent, name).toBeGreaterThan(200 * MIB);
      if (name === 'chart tree') expect(inside).toBeGreaterThan(3 * MIB);
      if (name === 'files') expect(inside).toBeGreaterThanOrEqual(20 * MIB);
      // The receipt is written by all of them: a trace that misses it misses more.
      expect(found[name], name).toBeGreaterThan(0);
      expect(found[name], `${name}: ${JSON.stringify([...written.files])}`).toBeLessThan(1_000_000);
    }
    console.log(`bytes written outside the target: ${JSON.stringify(found)}`);
    expect((await readdir(join(site, 'charts'))).length).toBe(2);
  });
});

describe('the disk of a real containerd', () => {
  it.each(['1.6', '2.2'] as const)('%s is where it says that its content lies', async (version) => {
    const own = await startContainerd(version);
    const client = new ContainerdClient(own.socket, 'k8s.io');
    try {
      const root = await client.contentRoot(new AbortController().signal);
      expect(root).toBe(join(own.root, 'io.containerd.content.v1.content'));
    } finally {
      client.close();
      await own.stop();
    }
  });
});
