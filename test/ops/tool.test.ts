import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findTools, placeTools, roomFor, type ToolChoice } from '../../src/ops/tool.ts';
import { toolArchive } from '../../src/ops/tool-archive.ts';
import { makeKey } from '../../src/trust/secret-key.ts';
import { checkSignature, messageHash, parseSignature } from '../../src/trust/signature.ts';
import { testContext } from '../support/bundles.ts';

const NAME = 'sealift-1.2.3-linux-x64';
const LONG = `program/node_modules/@napi-rs/blake-hash-linux-x64-gnu/${'long-'.repeat(8)}blake.node`;

let dir: string;
let out: string;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-tool-'));
  out = join(dir, 'out', 'b.tar');
  await mkdir(dirname(out));
});

afterEach(() => rm(dir, { recursive: true }));

async function put(path: string, bytes: string | Uint8Array): Promise<string> {
  const at = join(dir, path);
  await mkdir(dirname(at), { recursive: true });
  await writeFile(at, bytes);
  return at;
}

const sha256 = (bytes: string | Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** A tarball as `npm run dist` leaves it: with its checksum beside it. */
async function built(name: string, bytes: string): Promise<string> {
  await put(`dist/tool/${name}.sha256`, `${sha256(bytes)}  ${name}\n`);
  return put(`dist/tool/${name}`, bytes);
}

/** A folder as it comes out of a tarball. @returns the folder of its program */
async function unpacked(): Promise<string> {
  const files = {
    sealift: '#!/bin/sh\n',
    'runtime/node': 'node'.repeat(100_000),
    [LONG]: 'native',
    'tool.json': JSON.stringify({ name: NAME }),
  };
  const sums: string[] = [];
  for (const [path, text] of Object.entries(files)) {
    await put(`unpacked/${path}`, text);
    sums.push(`${sha256(text)}  ${path}\n`);
  }
  await put('unpacked/SHA256SUMS', sums.sort().join(''));
  await put('unpacked/notes.txt', 'not part of the tool');
  return join(dir, 'unpacked/program/dist/program');
}

async function place(choice: ToolChoice): ReturnType<typeof placeTools> {
  return placeTools(await findTools(choice, out), { out, context: testContext() });
}

const beside = (name: string): string => join(dirname(out), name);

describe('the tool beside a bundle', () => {
  it('is each tarball that was built, with a checksum that sha256sum reads', async () => {
    await built(`${NAME}.tar.gz`, 'for x64');
    await built('sealift-1.2.3-linux-arm64.tar.gz', 'for arm64');
    await put('dist/tool/notes.txt', 'something else');
    const placed = await place({ program: join(dir, 'dist/program') });
    expect(placed.map(({ outcome, size }) => [outcome, size])).toEqual([
      ['written', 9],
      ['written', 7],
    ]);
    expect(placed[1]).toMatchObject({
      path: beside(`${NAME}.tar.gz`),
      digest: `sha256:${sha256('for x64')}`,
    });
    expect((await readdir(dirname(out))).sort()).toEqual([
      'sealift-1.2.3-linux-arm64.tar.gz',
      'sealift-1.2.3-linux-arm64.tar.gz.sha256',
      'sealift-1.2.3-linux-x64.tar.gz',
      'sealift-1.2.3-linux-x64.tar.gz.sha256',
    ]);
    const checked = execFileSync('sha256sum', ['-c', '--strict', `${NAME}.tar.gz.sha256`], {
      cwd: dirname(out),
      encoding: 'utf8',
    });
    expect(checked).toBe(`${NAME}.tar.gz: OK\n`);
  });

  it('is not written again when it is there, but when it is the one of another build', async () => {
    const file = await built(`${NAME}.tar.gz`, 'tool');
    await place({ files: [file] });
    const at = beside(`${NAME}.tar.gz`);
    const before = await stat(at, { bigint: true });
    expect(await place({ files: [file] })).toMatchObject([{ outcome: 'present' }]);
    expect(await stat(at, { bigint: true })).toMatchObject({ ino: before.ino, mtimeNs: before.mtimeNs });
    await writeFile(at, 'loot');
    await writeFile(`${at}.minisig`, 'of the other build\n');
    expect(await place({ files: [file] })).toMatchObject([{ outcome: 'written' }]);
    expect(await readFile(at, 'utf8')).toBe('tool');
    // What it says would be wrong of these bytes.
    expect(await readdir(dirname(out))).toEqual([`${NAME}.tar.gz`, `${NAME}.tar.gz.sha256`]);
  });

  it('keeps a signature that somebody else gave the same bytes', async () => {
    const file = await built(`${NAME}.tar.gz`, 'tool');
    await place({ files: [file] });
    await writeFile(beside(`${NAME}.tar.gz.minisig`), 'of somebody else\n');
    expect(await place({ files: [file] })).toMatchObject([{ outcome: 'present' }]);
    expect(await readFile(beside(`${NAME}.tar.gz.minisig`), 'utf8')).toBe('of somebody else\n');
  });

  it('is not written over anything else, which is told before the work begins', async () => {
    const file = await put('notes.txt', 'tool');
    await writeFile(beside('notes.txt'), 'of somebody else');
    await expect(findTools({ files: [file] }, out)).rejects.toMatchObject({ code: 'TARGET_CONFLICT' });
    await mkdir(beside(`${NAME}.tar.gz`));
    const tarball = await built(`${NAME}.tar.gz`, 'tool');
    await expect(findTools({ files: [tarball] }, out)).rejects.toMatchObject({ code: 'TARGET_CONFLICT' });
    expect(await readFile(beside('notes.txt'), 'utf8')).toBe('of somebody else');
  });

  it('is believed by its .sha256 in any form, and without one a gzip must be whole', async () => {
    const whole = gzipSync(Buffer.alloc(100_000, 'tool'));
    const file = await put('t.tgz', whole);
    await findTools({ files: [file] }, out);
    await put('t.tgz', whole.subarray(0, -1));
    await expect(findTools({ files: [file] }, out)).rejects.toMatchObject({
      code: 'FILE_CHECKSUM_MISMATCH',
      message: expect.stringContaining('is not a whole gzip file'),
    });
    const sum = sha256(whole.subarray(0, -1));
    for (const text of [`${sum.toUpperCase()} *t.tgz\r\n`, `SHA256 (t.tgz) = ${sum}\n`]) {
      await put('t.tgz.sha256', text);
      await findTools({ files: [file] }, out);
    }
    await put('t.tgz.sha256', '');
    await expect(findTools({ files: [file] }, out)).rejects.toMatchObject({ code: 'FILE_CHECKSUM_MISMATCH' });
  });

  it('needs room on the disk as long as it is not there', async () => {
    const file = await put('tool.tar', 'tool');
    const found = await findTools({ files: [file] }, out);
    expect(await roomFor(found, out)).toBe(4);
    await place({ files: [file] });
    expect(await roomFor(found, out)).toBe(0);
    expect(await roomFor(await findTools({ program: await unpacked() }, out), out)).toBe(200_000);
  });

  it('may lie beside the bundle already', async () => {
    await writeFile(beside('tool.tar'), 'tool');
    expect(await place({ files: [beside('tool.tar')] })).toMatchObject([{ outcome: 'present', size: 4 }]);
    expect(await readFile(beside('tool.tar.sha256'), 'latin1')).toBe(`${sha256('tool')}  tool.tar\n`);
  });

  it('brings along the signature of whoever built it', async () => {
    const file = await put('tool.tar', 'tool');
    await put('tool.tar.minisig', 'untrusted comment: of the builder\n');
    await place({ files: [file] });
    expect(await readFile(beside('tool.tar.minisig'), 'utf8')).toBe('untrusted comment: of the builder\n');
    await put('tool.tar.minisig', Buffer.alloc(5_000));
    await expect(place({ files: [file] })).rejects.toMatchObject({ code: 'CONTENT_TOO_LARGE' });
  });

  it('is signed with the key of the bundle where there is one', async () => {
    const file = await put('tool.tar', 'tool');
    await put('tool.tar.minisig', 'of another key\n');
    const context = testContext();
    const { secret } = await makeKey(Buffer.alloc(72, 7), undefined, { signal: context.signal });
    const options = { out, context, key: secret };
    await placeTools(await findTools({ files: [file] }, out), options);
    const text = await readFile(beside('tool.tar.minisig'));
    const signature = parseSignature(text, 'tool.tar.minisig');
    expect(signature.comment).toBe('file:tool.tar');
    expect(checkSignature(signature, messageHash().update('tool').digest(), secret.public)).toBe('good');
    await placeTools(await findTools({ files: [file] }, out), options);
    expect(await readFile(beside('tool.tar.minisig'))).toEqual(text);
  });

  it('is none where none was built', async () => {
    expect(await place({ program: join(dir, 'dist/program') })).toEqual([]);
    await put('tool.json', '{"name": "somebody else\'s"}');
    expect(await place({ program: join(dir, 'program/dist/program') })).toEqual([]);
    // A checkout in a folder where somebody has put what looks like a tool.
    await unpacked();
    expect(await place({ program: join(dir, 'unpacked/checkout/dist/program') })).toEqual([]);
    expect(await readdir(dirname(out))).toEqual([]);
  });

  it.each([
    ['is damaged', 'FILE_CHECKSUM_MISMATCH'],
    ['is absent', 'FILE_NOT_FOUND'],
    ['is a folder', 'USAGE'],
    ['has the name of the bundle', 'USAGE'],
    ['is named twice', 'USAGE'],
    ['has the name of the checksum of another', 'USAGE'],
    ['has the name of a part of the bundle', 'USAGE'],
    ['has a name of two lines', 'USAGE'],
  ])('is refused before the work begins when it %s', async (how, code) => {
    const file = await put('x/tool.tar', 'tool');
    const files: Record<string, string[]> = {
      'is damaged': [await built('other.tar.gz', 'tool')],
      'is absent': [join(dir, 'absent')],
      'is a folder': [join(dir, 'x')],
      'has the name of the bundle': [await put('b.tar', 'tool')],
      'is named twice': [file, file],
      'has the name of the checksum of another': [file, await put('y/tool.tar.sha256', 'tool')],
      'has the name of a part of the bundle': [await put('b.tar.001', 'tool')],
      'has a name of two lines': [await put('a\nb', 'tool')],
    };
    await writeFile(join(dir, 'dist/tool/other.tar.gz'), 'loot');
    await expect(findTools({ files: files[how] ?? [] }, out)).rejects.toMatchObject({ code });
  });

  it('leaves nothing half written when it is stopped', async () => {
    const found = await findTools({ files: [await put('tool.tar', 'tool')] }, out);
    const context = testContext();
    context.controller.abort();
    await expect(placeTools(found, { out, context })).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await readdir(dirname(out))).toEqual([]);
  });

  it('leaves nothing half written when the source changes after it was found', async () => {
    const file = await put('tool.tar', 'tool');
    const found = await findTools({ files: [file] }, out);
    await writeFile(file, 'loot');
    const placed = placeTools(found, { out, context: testContext() });
    await expect(placed).rejects.toMatchObject({ code: 'FILE_CHECKSUM_MISMATCH' });
    expect(await readdir(dirname(out))).toEqual([]);
  });
});

describe('a tool that runs out of its tarball', () => {
  it('makes the same tarball again, and knows it when it is there', async () => {
    const program = await unpacked();
    expect(await place({ program })).toMatchObject([{ path: beside(`${NAME}.tar.gz`), outcome: 'written' }]);
    const first = await readFile(beside(`${NAME}.tar.gz`));
    expect(await place({ program })).toMatchObject([{ outcome: 'present' }]);
    await rm(beside(`${NAME}.tar.gz`));
    await place({ program });
    expect(await readFile(beside(`${NAME}.tar.gz`))).toEqual(first);
  });

  it.each([
    ['nothing of an archive', async () => 'not gzip'],
    ['the beginning of one', async (whole: Buffer) => whole.subarray(0, whole.length - 30)],
    ['another one', async () => Buffer.from('')],
  ])('writes it anew over %s', async (_, other) => {
    const program = await unpacked();
    await place({ program });
    const whole = await readFile(beside(`${NAME}.tar.gz`));
    await writeFile(beside(`${NAME}.tar.gz`), await other(whole));
    expect(await place({ program })).toMatchObject([{ outcome: 'written' }]);
    expect(await readFile(beside(`${NAME}.tar.gz`))).toEqual(whole);
  });

  it('carries what its list names, with two files that run, and tar unpacks it', async () => {
    const program = await unpacked();
    await chmod(join(dir, 'unpacked/runtime/node'), 0o600);
    await place({ program });
    const listed = execFileSync('tar', ['-tvzf', beside(`${NAME}.tar.gz`), '--numeric-owner'], {
      encoding: 'utf8',
      env: { ...process.env, TZ: 'UTC' },
    });
    const lines = listed.trimEnd().split('\n');
    expect(lines.map((line) => line.replace(/ +/g, ' ').split(' ').toSpliced(2, 1).join(' '))).toEqual([
      `-rw-r--r-- 0/0 1970-01-01 00:00 ${NAME}/SHA256SUMS`,
      `-rw-r--r-- 0/0 1970-01-01 00:00 ${NAME}/${LONG}`,
      `-rwxr-xr-x 0/0 1970-01-01 00:00 ${NAME}/runtime/node`,
      `-rwxr-xr-x 0/0 1970-01-01 00:00 ${NAME}/sealift`,
      `-rw-r--r-- 0/0 1970-01-01 00:00 ${NAME}/tool.json`,
    ]);
    execFileSync('tar', ['-xzf', beside(`${NAME}.tar.gz`)], { cwd: dirname(out) });
    const checked = execFileSync('sha256sum', ['-c', '--strict', '--quiet', 'SHA256SUMS'], {
      cwd: beside(NAME),
      encoding: 'utf8',
    });
    expect(checked).toBe('');
  });

  it('hands out nothing when one of its files was changed', async () => {
    const program = await unpacked();
    await writeFile(join(dir, 'unpacked/runtime/node'), 'evil'.repeat(100_000));
    // Told before the work begins.
    await expect(findTools({ program }, out)).rejects.toMatchObject({ code: 'FILE_CHECKSUM_MISMATCH' });
    expect(await readdir(dirname(out))).toEqual([]);
  });

  it.each(['../x', '/etc/passwd', 'a/../../b', 'a b', `${'x'.repeat(151)}`])(
    'never follows %s in its list',
    async (path) => {
      await unpacked();
      await put('unpacked/SHA256SUMS', `${'0'.repeat(64)}  ${path}\n`);
      const archive = toolArchive(join(dir, 'unpacked'), { name: NAME });
      await expect(archive.next()).rejects.toMatchObject({ code: 'FILE_CHECKSUM_MISMATCH' });
    },
  );

  it('writes a gzip without time and name', async () => {
    const program = await unpacked();
    await place({ program });
    const bytes = await readFile(beside(`${NAME}.tar.gz`));
    expect([...bytes.subarray(0, 8)]).toEqual([0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    expect(gunzipSync(bytes).length % 512).toBe(0);
  });
});
