import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { hashSync } from 'bcryptjs';
import { zipSync } from 'fflate';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Serving } from '../../src/ops/serve.ts';
import { ensureBuilt, startProgram } from '../cli/program.ts';
import { selfSigned } from '../io/certificate.ts';
import { type BundleSite, makeBundleSite, serveBundles } from '../serve/bundle-site.ts';
import { listCriImages, peer, pullCriImage, run, startContainerd } from '../support/peers.ts';

/** A bundle as the usual tools see it when it is served in place, with the snippets that are printed for them. */

const PARALLEL = 50;
const BIG = 64_000_000;

let site: BundleSite;
let serving: Serving;
let dir: string;
/** The folder of hosts.toml. */
let hosts: string;

/** A wheel that pip takes. */
function wheel(): Buffer {
  const info = 'demo_pkg-1.2.0.dist-info';
  const text = (lines: readonly string[]): Uint8Array => Buffer.from(`${lines.join('\n')}\n`);
  const files = {
    'demo_pkg/__init__.py': text(['answer = 42']),
    [`${info}/METADATA`]: text(['Metadata-Version: 2.1', 'Name: demo-pkg', 'Version: 1.2.0']),
    [`${info}/WHEEL`]: text(['Wheel-Version: 1.0', 'Root-Is-Purelib: true', 'Tag: py3-none-any']),
    [`${info}/RECORD`]: text([]),
  };
  return Buffer.from(zipSync(files, { mtime: '2026-01-01' }));
}

const snippet = (client: string): string =>
  serving.snippets.find((s) => s.client.startsWith(client))?.text ?? '';

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-served-'));
  const big = Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 31) & 255));
  site = await makeBundleSite({
    'wheels/demo_pkg-1.2.0-py3-none-any.whl': wheel(),
    big: Buffer.concat(Array.from({ length: Math.ceil(BIG / big.length) }, () => big)),
  });
  serving = await serveBundles([site.tar]);
  hosts = join(dir, 'certs.d');
  await mkdir(join(hosts, '_default'), { recursive: true });
  await writeFile(join(hosts, '_default/hosts.toml'), snippet('containerd'));
}, 300_000);

afterAll(async () => {
  await serving.close();
  await site.close();
  await rm(dir, { recursive: true, force: true });
});

describe.each(['1.6', '2.2'] as const)('containerd %s', (version) => {
  it('pulls images of two hosts through the hosts.toml that is printed', async () => {
    const containerd = await startContainerd(version);
    // ctr 2 asks for the manifests of all platforms unless it is told not to.
    const how = ['--platform', 'linux/amd64', ...(version === '2.2' ? ['--skip-metadata'] : [])];
    try {
      for (const [i, image] of site.images.slice(0, 3).entries()) {
        const name = `${site.hostOf(i)}/${image.name}:${image.tag}`;
        await containerd.ctr('images', 'pull', '--hosts-dir', hosts, ...how, name);
        const { stdout } = await containerd.ctr('images', 'ls', `name==${name}`);
        expect(stdout).toContain(image.index.digest);
      }
    } finally {
      await containerd.stop();
    }
  });
});

describe('kubelet', () => {
  it('has containerd pull through the hosts.toml that is printed', async () => {
    const containerd = await startContainerd('2.2', { hosts });
    try {
      for (const [i, image] of site.images.slice(0, 3).entries()) {
        await pullCriImage(containerd.socket, `${site.hostOf(i)}/${image.name}:${image.tag}`);
      }
      const listed = await listCriImages(containerd.socket);
      const names = site.images.slice(0, 3).map((image, i) => `${site.hostOf(i)}/${image.name}:${image.tag}`);
      expect(listed.flatMap((image) => image.repoTags).sort()).toEqual(names.sort());
    } finally {
      await containerd.stop();
    }
  });
});

describe('skopeo', () => {
  it('finds images by the registries.conf that is printed, and by both names', async () => {
    const conf = join(dir, 'registries.conf');
    await writeFile(conf, snippet('skopeo'));
    const platform = ['--override-os', 'linux', '--override-arch', 'amd64'];
    const { host } = new URL(serving.url);
    for (const [i, image] of site.images.slice(0, 3).entries()) {
      const full = `${site.hostOf(i)}/${image.name}:${image.tag}`;
      const to = join(dir, `skopeo-${i}`);
      await run(peer('skopeo'), [
        '--registries-conf',
        conf,
        ...platform,
        'copy',
        `docker://${full}`,
        `dir:${to}`,
      ]);
      const manifest = createHash('sha256')
        .update(await readFile(join(to, 'manifest.json')))
        .digest('hex');
      expect(`sha256:${manifest}`).toBe(image.platforms['linux/amd64']);
      for (const name of [`${host}/${full}`, `${host}/${image.name}:${image.tag}`]) {
        const { stdout } = await run(peer('skopeo'), [
          'inspect',
          '--raw',
          '--tls-verify=false',
          `docker://${name}`,
        ]);
        expect(Buffer.from(stdout)).toEqual(image.index.bytes);
      }
    }
  });
});

describe('crane and regctl', () => {
  it('list names, tags and referrers', async () => {
    const { host } = new URL(serving.url);
    const [first, , , last] = site.images;
    const { stdout } = await run(peer('crane'), ['catalog', host]);
    expect(stdout.split('\n')).toContain(`docker.io/${first?.name}`);
    const tags = await run(peer('crane'), ['ls', `${host}/${first?.name}`]);
    expect(tags.stdout.split('\n')).toContain(first?.tag);
    const regctl = [
      '--host',
      `reg=${host},tls=disabled`,
      'artifact',
      'list',
      `${host}/${last?.name}:${last?.tag}`,
    ];
    const listed = await run(peer('regctl'), [...regctl, '--format', '{{json .}}']);
    expect(listed.stdout).toContain(site.referrer.digest);
    const push = await run(peer('crane'), ['tag', `${host}/${first?.name}:${first?.tag}`, 'new'], {
      check: false,
    });
    expect(push.code).not.toBe(0);
  });
});

describe('helm', () => {
  it('pulls a chart from the repository and from the registry, as it is printed', async () => {
    const env = { HOME: dir, HELM_CONFIG_HOME: join(dir, 'helm'), HELM_CACHE_HOME: join(dir, 'helm-cache') };
    for (const line of snippet('helm').split('\n')) {
      const [, ...words] = line.split(' ');
      const to = join(dir, `helm-${words[0]}`);
      await mkdir(to, { recursive: true });
      await run(peer('helm'), words, { env, cwd: to });
      if (words[0] === 'repo')
        await run(peer('helm'), ['pull', 'sealift/demo', '--version', '1.2.3'], { env, cwd: to });
      expect(await readFile(join(to, 'demo-1.2.3.tgz'))).toEqual(site.chart);
    }
  });
});

describe('pip', () => {
  it('downloads a wheel whose SHA-256 the index has', async () => {
    const to = join(dir, 'pip');
    const index = [
      '--index-url',
      `${serving.url}/simple/`,
      '--isolated',
      '--no-cache-dir',
      '--no-deps',
      '-d',
      to,
    ];
    await run('python3', ['-m', 'pip', 'download', ...index, 'Demo.Pkg==1.2.0']);
    expect(await readFile(join(to, 'demo_pkg-1.2.0-py3-none-any.whl'))).toEqual(wheel());
  });
});

describe('curl', () => {
  it('takes a part, and goes on with a download that was broken off', async () => {
    const url = `${serving.url}/files/big`;
    const part = join(dir, 'part');
    await run('curl', ['-fsS', '-r', '1000-1999', '-o', part, url]);
    const whole = site.files.get('big') ?? Buffer.alloc(0);
    expect(await readFile(part)).toEqual(whole.subarray(1000, 2000));
    const file = join(dir, 'big');
    await writeFile(file, whole.subarray(0, 1_234_567));
    await run('curl', ['-fsS', '-C', '-', '-o', file, url]);
    expect(await sha256Of(file)).toBe(createHash('sha256').update(whole).digest('hex'));
  });
});

describe('logins and TLS', () => {
  it('are understood by skopeo, helm, pip, curl and containerd', async () => {
    const { cert, key } = selfSigned('localhost');
    const files = { crt: join(dir, 'ca/ca.crt'), key: join(dir, 's.key'), users: join(dir, 'users') };
    await mkdir(join(dir, 'ca'));
    await writeFile(files.crt, cert);
    await writeFile(files.key, key);
    await writeFile(files.users, `ann:${hashSync('secret', 5).replace('$2b$', '$2y$')}\n`);
    const own = await serveBundles([site.tar], {
      tls: { cert: files.crt, key: files.key },
      authFile: files.users,
    });
    try {
      const { host } = new URL(own.url);
      const [image] = site.images;
      const inspect = [
        'inspect',
        '--raw',
        '--cert-dir',
        join(dir, 'ca'),
        `docker://${host}/${image?.name}:${image?.tag}`,
      ];
      expect((await run(peer('skopeo'), inspect, { check: false })).code).not.toBe(0);
      const seen = await run(peer('skopeo'), [...inspect, '--creds', 'ann:secret']);
      expect(Buffer.from(seen.stdout)).toEqual(image?.index.bytes);
      const env = {
        HOME: join(dir, 'h'),
        HELM_CONFIG_HOME: join(dir, 'h/c'),
        HELM_CACHE_HOME: join(dir, 'h/d'),
      };
      const login = ['--username', 'ann', '--password', 'secret', '--ca-file', files.crt];
      await run(peer('helm'), ['repo', 'add', 'own', `${own.url}/charts`, ...login], { env });
      await run(peer('helm'), ['pull', 'own/demo', '-d', join(dir, 'h')], { env });
      expect(await readFile(join(dir, 'h/demo-1.2.3.tgz'))).toEqual(site.chart);
      const index = own.url.replace('https://', 'https://ann:secret@');
      const pip = [
        'download',
        '--isolated',
        '--no-cache-dir',
        '--no-deps',
        '--cert',
        files.crt,
        '-d',
        join(dir, 'p'),
      ];
      // With these pip would not look at --cert.
      const bundles = { REQUESTS_CA_BUNDLE: undefined, CURL_CA_BUNDLE: undefined };
      await run('python3', ['-m', 'pip', ...pip, '--index-url', `${index}/simple/`, 'demo-pkg'], {
        env: bundles,
      });
      const curl = ['-fsS', '--cacert', files.crt, '-o', join(dir, 'tool'), `${own.url}/files/bin/tool`];
      expect((await run('curl', curl, { check: false })).code).toBe(22);
      await run('curl', ['-u', 'ann:secret', ...curl]);
      expect((await readFile(join(dir, 'tool'))).equals(site.files.get('bin/tool') ?? Buffer.alloc(0))).toBe(
        true,
      );
      // What is printed for containerd, filled in.
      const printed = own.snippets.find((s) => s.client === 'containerd')?.text ?? '';
      const toml = printed
        .replace(/# (ca = )".*"/, (_, start: string) => `${start}${JSON.stringify(files.crt)}`)
        .replace('BASE64', Buffer.from('ann:secret').toString('base64'));
      await mkdir(join(dir, 'private/_default'), { recursive: true });
      await writeFile(join(dir, 'private/_default/hosts.toml'), toml);
      const containerd = await startContainerd('2.2');
      try {
        const name = `docker.io/${image?.name}:${image?.tag}`;
        const how = ['--platform', 'linux/amd64', '--skip-metadata', '--hosts-dir', join(dir, 'private')];
        await containerd.ctr('images', 'pull', ...how, name);
      } finally {
        await containerd.stop();
      }
      expect(own.lines.join('')).not.toContain('secret');
    } finally {
      await own.close();
    }
  });
});

/** Peak of the resident set in MB, and open files now. */
function lookAt(pid: number): { readonly peak: number; readonly files: readonly string[] } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const peak = Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) / 1000;
  return { peak, files: readdirSync(`/proc/${pid}/fd`) };
}

describe(`${PARALLEL} pulls at once`, () => {
  it('all come whole, in bounded memory, from one open file', async () => {
    const program = startProgram([
      'serve',
      site.tar,
      '--listen',
      '127.0.0.1:0',
      '--access-log',
      join(dir, 'log'),
    ]);
    const url = await new Promise<string>((resolve) => {
      program.child.stdout?.on('data', (text: string) => {
        const found = /http:\/\/127\.0\.0\.1:\d+/.exec(text)?.[0];
        if (found !== undefined) resolve(found);
      });
    });
    const pid = program.child.pid ?? 0;
    const before = lookAt(pid);
    const [image] = site.images;
    const big = createHash('sha256')
      .update(site.files.get('big') ?? '')
      .digest('hex');
    const pull = async (i: number): Promise<string> => {
      // What comes from the network is hashed, not kept: this machine's disk is not what is asked.
      const command = `curl -fsS '${url}/files/big' | sha256sum`;
      if (i % 5 > 0) return (await run('sh', ['-c', command])).stdout.slice(0, 64);
      const to = join(dir, `pull-${i}`);
      const from = `docker://${new URL(url).host}/${image?.name}:${image?.tag}`;
      const platform = ['--override-os', 'linux', '--override-arch', 'amd64'];
      await run(peer('skopeo'), [...platform, 'copy', '--src-tls-verify=false', from, `dir:${to}`]);
      return big;
    };
    const pulls = Array.from({ length: PARALLEL }, (_, i) => pull(i));
    let bundles = 0;
    const timer = setInterval(() => {
      const { files } = lookAt(pid);
      bundles = Math.max(bundles, files.length);
    }, 20);
    const found = await Promise.all(pulls);
    clearInterval(timer);
    const after = lookAt(pid);
    expect(new Set(found)).toEqual(new Set([big]));
    console.log(
      `peak ${before.peak.toFixed(0)} MB before, ${after.peak.toFixed(0)} MB after; ${bundles} files open`,
    );
    expect(after.peak - before.peak).toBeLessThan(100);
    // A connection for each, and no file.
    expect(bundles - before.files.length).toBeLessThanOrEqual(2 * PARALLEL);
    program.child.kill('SIGINT');
    const ran = await program.ended;
    expect(ran.code).toBe(0);
    expect(ran.stderr).toMatch(/served \d+ requests of 1 client, 2\.\d+ GB/);
  });
});
