import { existsSync } from 'node:fs';
import { cp, link, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { readElf } from '../../scripts/tool/elf.mjs';
import { keygen } from '../../src/ops/keys.ts';
import { ensureBuilt, ROOT } from '../cli/program.ts';
import { type BareSystem, bareSystem, CXX, libraryPath } from '../support/bare-system.ts';
import { makeSite, type Site } from '../support/bundles.ts';
import { demoFiles } from '../support/charts.ts';
import { makeBigFleet } from '../support/fleet.ts';
import { peer, quietContext, run, startContainerd } from '../support/peers.ts';

/** The tarballs of `npm run dist` on systems that have nothing. */

const QEMU = '/usr/bin/qemu-aarch64-static';
const ARM = '/usr/aarch64-linux-gnu/lib';
const isRoot = process.getuid?.() === 0;
const onX64 = process.arch === 'x64';
const canEmulate = existsSync(QEMU) && CXX.every((name) => existsSync(join(ARM, name)));

let dir: string;
let site: Site;
let bundle: string;
const images: { readonly at: string; readonly digest: string }[] = [];
let version: string;

const folder = (arch: string, from = 'out'): string =>
  join(dir, from, 'un packed', `sealift-${version}-linux-${arch}`);

async function dist(
  out: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  await mkdir(join(dir, out, 'un packed'), { recursive: true });
  await run(process.execPath, ['scripts/dist.mjs', '--out', join(dir, out), ...args], { cwd: ROOT, env });
  for (const name of await readdir(join(dir, out))) {
    if (name.endsWith('.gz'))
      await run('tar', ['-xzf', join(dir, out, name), '-C', join(dir, out, 'un packed')]);
  }
}

/** What `--lib` takes: the C++ library of this machine. */
async function cxxFolder(): Promise<string> {
  const at = join(dir, 'cxx');
  await mkdir(at);
  for (const name of CXX) await cp(await libraryPath(name), join(at, name), { dereference: true });
  await writeFile(join(at, 'copyright'), 'of the C++ library\n');
  return at;
}

async function packFleet(): Promise<void> {
  site = await makeSite();
  const refs: string[] = [];
  for (const image of makeBigFleet({ kinds: ['oci', 'docker', 'attested'] })) {
    refs.push(`  - ${await site.addImage(image)}\n`);
    images.push({ at: `${image.name}:${image.tag}`, digest: image.index.digest });
  }
  await site.addChart('demo', '1.2.3', demoFiles());
  await site.put('fleet/tool.txt', 'for the site\n');
  const chart = `charts:\n  - {name: demo, version: 1.2.3, repo: "http://${site.source.host}/charts"}\n`;
  const files = 'files:\n  - {path: tool.txt, name: etc/tool.txt}\n';
  bundle = await site.bundle('fleet', `platforms: all\nimages:\n${refs.join('')}${chart}${files}`);
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-dist-test-'));
  await ensureBuilt();
  ({ version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')));
  const cxx = await cxxFolder();
  await Promise.all([
    dist('out', ['--arch', 'x64', '--arch', 'arm64']),
    // Settings of a build machine do not decide what is in it.
    dist('lib', ['--arch', 'x64', '--lib', `x64=${cxx}`], {
      NODE_OPTIONS: '--max-old-space-size=2048',
      SEALIFT_TRUST: '/nonexistent.pub',
      TZ: 'Asia/Seoul',
    }),
    packFleet(),
  ]);
}, 300_000);

afterAll(async () => {
  await site?.close();
  await rm(dir, { recursive: true, force: true });
});

/** A bare system with the bundle and the tool in it, gone after the test. */
async function systemWith(options: {
  readonly libc?: boolean;
  readonly cxx?: boolean;
  readonly tool: string;
}): Promise<BareSystem> {
  const system = await bareSystem({ libc: options.libc ?? true, cxx: options.cxx ?? false });
  onTestFinished(() => system.close());
  await cp(options.tool, join(system.root, 'opt/the tool'), { recursive: true });
  await mkdir(join(system.root, 'media'));
  await link(bundle, join(system.root, 'media/fleet.tar')).catch(() => system.put(bundle, 'media/fleet.tar'));
  await system.put(join(site.dir, 'fleet/versions.lock'), 'media/versions.lock');
  return system;
}

const SEALIFT = '"/opt/the tool/sealift"';

describe('the tarballs', () => {
  it('are checked with sha256sum, from outside and inside', async () => {
    for (const arch of ['x64', 'arm64']) {
      const outside = await run(
        'sha256sum',
        ['-c', '--strict', `sealift-${version}-linux-${arch}.tar.gz.sha256`],
        {
          cwd: join(dir, 'out'),
        },
      );
      expect(outside.stdout).toMatch(/tar\.gz: OK\n$/);
      const inside = await run('sha256sum', ['-c', '--strict', 'SHA256SUMS'], { cwd: folder(arch) });
      expect(inside.stdout.trim().split('\n').length).toBeGreaterThan(50);
    }
  });

  it('hold files of one processor only, within the stated glibc', async () => {
    for (const arch of ['x64', 'arm64']) {
      const files = await readdir(folder(arch), { recursive: true, withFileTypes: true });
      const found: string[] = [];
      for (const file of files.filter((one) => one.isFile())) {
        const bytes = await readFile(join(file.parentPath, file.name));
        if (bytes.length < 4 || bytes.readUInt32BE(0) !== 0x7f454c46) continue;
        found.push(file.name);
        expect(readElf(bytes).machine).toBe(arch);
        const minors = Object.values(readElf(bytes).versions).flatMap((names) =>
          names.flatMap((name) => /^GLIBC_2\.(\d+)/.exec(name)?.[1] ?? []),
        );
        expect(Math.max(...minors.map(Number))).toBeLessThanOrEqual(28);
      }
      expect(found.sort()).toEqual([`blake.linux-${arch}-gnu.node`, 'node']);
      const text = await readFile(join(folder(arch), 'REQUIREMENTS.txt'), 'utf8');
      expect(text).toContain('glibc 2.28 or newer');
      expect((await readdir(join(folder(arch), 'LICENSES'))).sort()).toEqual([
        'blake-hash.txt',
        'libraries.txt',
        'node.txt',
      ]);
    }
  });

  it('are the same however often they are made, what V8 compiled included', async () => {
    const sums = async (from: string): Promise<string[]> =>
      (await readFile(join(folder('x64', from), 'SHA256SUMS'), 'utf8')).trim().split('\n');
    const [once, again] = [await sums('out'), await sums('lib')];
    expect(again.filter((line) => !once.includes(line)).map((line) => line.slice(66))).toEqual([
      'LICENSES/libstdc++.txt',
      'REQUIREMENTS.txt',
      ...CXX.map((name) => `runtime/${name}`).sort(),
    ]);
    if (onX64) expect(once.filter((line) => line.endsWith('.compiled')).length).toBeGreaterThan(30);
  });

  it.runIf(onX64)('make themselves again beside the bundle that they pack, signed for minisign', async () => {
    const out = join(dir, 'packed');
    await mkdir(out);
    await keygen({ out: join(dir, 'k'), password: undefined }, quietContext());
    const args = ['-f', join(dir, 'none.yaml'), '--lock', join(site.dir, 'fleet/versions.lock')];
    const sealift = join(folder('x64'), 'sealift');
    const packed = await run(
      sealift,
      ['pack', ...args, '-o', join(out, 'b.tar'), '--sign', join(dir, 'k.key')],
      {
        cwd: join(site.dir, 'fleet'),
        env: { PATH: '/nonexistent' },
      },
    );
    expect(packed.stderr).toContain(`tool sealift-${version}-linux-x64.tar.gz: `);
    const made = await readFile(join(out, `sealift-${version}-linux-x64.tar.gz`));
    expect(made.equals(await readFile(join(dir, 'out', `sealift-${version}-linux-x64.tar.gz`)))).toBe(true);
    const file = `sealift-${version}-linux-x64.tar.gz`;
    const checked = await run(peer('minisign'), ['-V', '-p', join(dir, 'k.pub'), '-m', file], { cwd: out });
    expect(checked.stdout).toContain(`Trusted comment: file:${file}`);
  });
});

describe.skipIf(!isRoot || !onX64)('on a system with a shell and the C library (root and x64 needed)', () => {
  it('verifies the fleet and loads it into a registry, a containerd, trees and files', async () => {
    const system = await systemWith({ cxx: true, tool: folder('x64') });
    const containerd = await startContainerd('1.6');
    onTestFinished(() => containerd.stop());
    await link(containerd.socket, join(system.root, 'tmp/c.sock'));
    const config = join(system.root, 'registry.yml');
    const storage = { filesystem: { rootdirectory: join(system.root, 'registry') } };
    await writeFile(
      config,
      JSON.stringify({ version: '0.1', storage, http: { addr: '127.0.0.1:0', secret: 's' } }),
    );
    const args = ['serve', config];
    const registry = await system.daemon(peer('docker-registry'), args, /listening on (127\.0\.0\.1:\d+)/);

    const verified = await system.sh(`cd /media && ${SEALIFT} verify fleet.tar --lock versions.lock --deep`);
    expect(verified).toMatchObject({ code: 0 });
    expect(verified.stderr).toContain('is whole: 12 images, 1 chart, 1 file');
    const targets = `--registry http://${registry} --containerd /tmp/c.sock --namespace k8s.io --chart-tree /charts --files /files`;
    const loaded = await system.sh(`${SEALIFT} load /media/fleet.tar ${targets} --receipt /receipt.json`);
    expect(loaded, loaded.stderr).toMatchObject({ code: 0 });

    for (const { at, digest } of images) {
      const name = `${registry}/${at}`;
      expect((await system.outside(peer('crane'), ['digest', '--insecure', name])).stdout.trim()).toBe(
        digest,
      );
    }
    const listed = await containerd.ctr('-n', 'k8s.io', 'images', 'ls');
    for (const { digest } of images) expect(listed.stdout).toContain(digest);
    expect(await readFile(join(system.root, 'files/etc/tool.txt'), 'utf8')).toBe('for the site\n');
    expect(await readdir(join(system.root, 'charts/demo-1.2.3'))).toContain('Chart.yaml');
    expect(JSON.parse(await readFile(join(system.root, 'receipt.json'), 'utf8'))).toMatchObject({
      failed: 0,
    });
  });

  it('needs a C++ library, says so, and takes one that it carries', async () => {
    const without = await systemWith({ tool: folder('x64') });
    const refused = await without.sh(`${SEALIFT} --version`);
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toContain(
      'error[TOOL_CANNOT_RUN]: libstdc++.so.6 or libgcc_s.so.1 is missing\nhint: ',
    );

    const carried = await systemWith({ tool: folder('x64', 'lib') });
    const verified = await carried.sh(`${SEALIFT} verify /media/fleet.tar --lock /media/versions.lock`);
    expect(verified).toMatchObject({ code: 0 });
    // Keys with a password are unlocked by a second Node.
    const key = 'cd /media && export SEALIFT_KEY_PASSWORD=secret';
    const signed = await carried.sh(
      `${key} && ${SEALIFT} keygen -o site && ${SEALIFT} sign fleet.tar --key site.key --detached`,
    );
    expect(signed, signed.stderr).toMatchObject({ code: 0 });
    const trusted = await carried.sh(`cd /media && ${SEALIFT} verify fleet.tar --key site.pub`);
    expect(trusted.stderr).toContain('signed by a key that you trust');
    const loaded = await carried.sh(`${SEALIFT} load /media/fleet.tar --chart-tree /charts --files /files`);
    expect(loaded).toMatchObject({ code: 0 });
    expect(await readFile(join(carried.root, 'files/etc/tool.txt'), 'utf8')).toBe('for the site\n');
  });

  it.each([
    ['musl', 'lib/ld-musl-x86_64.so.1', 'this system has musl, not glibc (Alpine Linux does)'],
    ['an old glibc', 'lib64/libc-2.17.so', 'this system has glibc 2.17, Sealift needs 2.28 or newer'],
    ['neither', 'etc/hosts', '/lib64/ld-linux-x86-64.so.2 is missing: this system has no glibc for x86_64'],
  ])('says in words that a system with %s cannot run it', async (_, file, message) => {
    const system = await systemWith({ libc: false, tool: folder('x64') });
    await system.put('/dev/null', file);
    const ran = await system.sh(`${SEALIFT} --version`);
    expect(ran).toMatchObject({ code: 1, stdout: '' });
    expect(ran.stderr).toContain(`error[TOOL_CANNOT_RUN]: ${message}\nhint: `);
  });

  it('says that the tarball is for another processor', async () => {
    const system = await systemWith({ cxx: true, tool: folder('arm64') });
    await mkdir(join(system.root, 'proc'));
    // uname is busybox itself under that name.
    await system.put(peer('busybox'), 'bin/uname');
    const ran = await system.sh(`${SEALIFT} --version`);
    expect(ran.stderr).toContain('this is Sealift for arm64 (aarch64), this machine is x86_64\nhint: ');
    expect(ran).toMatchObject({ code: 1 });
  });

  it.skipIf(!canEmulate)(
    'verifies and loads on arm64 too (qemu-user-static, libstdc++6-arm64-cross needed)',
    async () => {
      const system = await systemWith({ libc: false, tool: folder('arm64') });
      await system.put(QEMU, 'bin/qemu');
      for (const name of await readdir(ARM)) {
        if (/\.so\.\d+$/.test(name)) await system.put(join(ARM, name), `lib/${name}`);
      }
      const home = '/opt/the tool';
      const sealift = `/bin/qemu "${home}/runtime/node" "${home}/program/bin/sealift.js"`;
      const verified = await system.sh(`${sealift} verify /media/fleet.tar --lock /media/versions.lock`);
      expect(verified, verified.stderr).toMatchObject({ code: 0 });
      const loaded = await system.sh(`${sealift} load /media/fleet.tar --chart-tree /charts --files /files`);
      expect(loaded, loaded.stderr).toMatchObject({ code: 0 });
      expect(await readFile(join(system.root, 'files/etc/tool.txt'), 'utf8')).toBe('for the site\n');
    },
  );
});
