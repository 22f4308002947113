import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import type { Context } from '../../src/core/events.ts';
import { digestOf } from '../../src/io/verify.ts';
import { checkLockFile, type LockOptions, lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import { testContext } from '../support/bundles.ts';
import {
  type FakeUv,
  fakeUv,
  type IndexOptions,
  type Offered,
  type PackageIndex,
  startPackageIndex,
  taggedWheel,
} from '../support/package-index.ts';

const HEAD = 'apiVersion: sealift/v1\nname: site\nversion: "1"\npython:\n';
const TARGETS = '  pythons: ["3.10", "3.11"]\n  platforms: [linux/amd64, linux/arm64]\n';

let dir: string;
let uv: FakeUv;
let index: PackageIndex;
const servers: PackageIndex[] = [];

async function start(options: IndexOptions = {}): Promise<PackageIndex> {
  const started = await startPackageIndex(options);
  servers.push(started);
  return started;
}

function put(name: string, text: string | Uint8Array): Promise<void> {
  return writeFile(join(dir, name), text);
}

function context(env: Context['env'] = {}): ReturnType<typeof testContext> {
  return { ...testContext(), env: { PATH: uv.bin, ...env } };
}

async function manifest(text: string): Promise<void> {
  await put('sealift.yaml', `${HEAD}${text}`);
}

function lockNow(more: Partial<LockOptions> = {}, env: Context['env'] = {}): ReturnType<typeof lock> {
  return lock({ manifestPath: join(dir, 'sealift.yaml'), ...more }, context(env));
}

async function failureOf(work: Promise<unknown>): Promise<SealiftError> {
  const error = await work.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (error instanceof SealiftError) return error;
  throw new Error(`expected a SealiftError, got ${String(error)}`);
}

async function staleNow(): Promise<string[]> {
  const { faults } = await checkLockFile({ manifestPath: join(dir, 'sealift.yaml') }, context());
  expect(faults.every((f) => f.code === 'LOCK_STALE')).toBe(true);
  return faults.map((f) => f.message);
}

/** One line of the fake resolver's answer. */
function pin(text: string): string {
  return `${text}\n    # from ${index.url}\n`;
}

const text = (offered: Offered): string => `sha256:${digestOf(offered.bytes).slice(7)}`;

const [any, abi3, own310, own311, arm] = [
  taggedWheel({ name: 'any', version: '1.0', requiresPython: '>=3.8' }),
  taggedWheel({ name: 'native', version: '2.0' }, 'cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64'),
  taggedWheel({ name: 'native', version: '2.0' }, 'cp310-cp310-manylinux_2_28_x86_64'),
  taggedWheel({ name: 'native', version: '2.0' }, 'cp311-cp311-manylinux_2_34_x86_64'),
  taggedWheel({ name: 'native', version: '2.0' }, 'cp39-abi3-manylinux_2_17_aarch64'),
] as const;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-lock-python-'));
  uv = await fakeUv(dir);
  index = await start();
  index.put('any', any);
  index.put('native', abi3, own310, own311, arm, taggedWheel({ name: 'native', version: '3.0' }));
});

afterEach(async () => {
  for (const one of servers.splice(0)) await one.close();
  await rm(dir, { recursive: true, force: true });
});

describe('lock of Python packages', () => {
  it('has for every target the wheel that pip takes there, each once', async () => {
    await manifest(`  packages: [any, "native==2.0"]\n${TARGETS}  indexes: ["${index.url}/"]\n`);
    await uv.answers({ any: pin('any==1.0') + pin('native==2.0') });
    const { lock: locked } = await lockNow();
    expect(locked.python?.pins).toEqual([
      { name: 'any', version: '1.0' },
      { name: 'native', version: '2.0' },
    ]);
    // The one for 3.11 needs a newer C library than the site has: it gets abi3.
    const files = [any, abi3, arm, own310].map((w) => w.file).sort();
    expect(locked.python?.files.map((f) => f.file).sort()).toEqual(files);
    expect(locked.python?.files.find((f) => f.name === 'any')).toEqual({
      file: any.file,
      name: 'any',
      version: '1.0',
      source: { url: `http://${index.host}/files/${any.file}` },
      size: any.bytes.length,
      sha256: text(any),
      requiresPython: '>=3.8',
    });
    expect(locked.python?.indexes).toEqual([index.url]);
    const [universal, ...targets] = await uv.asked();
    expect(universal?.args).toEqual(expect.arrayContaining(['--universal', '--python-version', '3.10']));
    expect(universal?.packages).toBe('any\nnative==2.0\n');
    expect(targets.map(({ args }) => args[args.indexOf('--python-platform') + 1])).toEqual([
      'x86_64-manylinux_2_28',
      'x86_64-manylinux_2_28',
      'aarch64-manylinux_2_28',
      'aarch64-manylinux_2_28',
    ]);
    expect(targets.every(({ held }) => held === pin('any==1.0') + pin('native==2.0'))).toBe(true);
    expect(universal?.args).toEqual(
      expect.arrayContaining(['--default-index', index.url, '--only-binary', ':all:']),
    );
  });

  it('says where a pin is wanted that not every target wants', async () => {
    await manifest(`  packages: [any, native]\n${TARGETS}  indexes: ["${index.url}"]\n`);
    await uv.answers({
      any: pin('any==1.0'),
      '3.10 x86_64-manylinux_2_28': pin('any==1.0') + pin('native==2.0'),
      '3.10 aarch64-manylinux_2_28': pin('any==1.0') + pin('native==2.0'),
      '3.11 aarch64-manylinux_2_28': pin('any==1.0') + pin('native==3.0'),
    });
    const { lock: locked } = await lockNow();
    expect(locked.python?.pins).toEqual([
      { name: 'any', version: '1.0' },
      { name: 'native', version: '2.0', marker: 'python_version == "3.10"' },
      {
        name: 'native',
        version: '3.0',
        marker: 'platform_machine == "aarch64" and python_version == "3.11"',
      },
    ]);
    const files = locked.python?.files.map((f) => f.file);
    expect(files).toEqual(expect.arrayContaining([own310.file, arm.file]));
    expect(files).not.toContain(abi3.file);
  });

  it('goes on without the answer for all platforms: only the targets have to be resolved', async () => {
    await manifest(`  packages: [any]\n${TARGETS}  indexes: ["${index.url}"]\n`);
    await uv.answers({ universal: '!no wheel for macOS', any: pin('any==1.0') });
    const { lock: locked } = await lockNow();
    expect(locked.python?.pins).toEqual([{ name: 'any', version: '1.0' }]);
  });

  it('asks nobody when nothing changed, and for a new requirement only what is new', async () => {
    await put('r.txt', 'any\n');
    await manifest(`  requirements: [r.txt]\n${TARGETS}  indexes: ["${index.url}"]\n`);
    await uv.answers({ any: pin('any==1.0') });
    expect((await lockNow()).written).toBe(true);
    expect(await staleNow()).toEqual([]);
    const before = (await uv.asked()).length;
    index.asked.length = 0;
    expect((await lockNow()).written).toBe(false);
    expect((await uv.asked()).length).toBe(before);
    expect(index.asked).toEqual([]);

    await put('r.txt', 'any\nnative\n');
    expect(await staleNow()).toEqual(['Python packages are asked for by r.txt, which has changed since']);
    await uv.answers({ any: pin('any==1.0') + pin('native==3.0') });
    await lockNow();
    // The old pin is what the resolver prefers.
    expect((await uv.asked())[before]?.held).toBe('any==1.0\n');
    expect(index.asked).toEqual(['GET /simple/native/']);
    expect(await staleNow()).toEqual([]);
  });

  it('moves only the project that --update names', async () => {
    await manifest(`  packages: [any, native]\n${TARGETS}  indexes: ["${index.url}"]\n`);
    await uv.answers({ any: pin('any==1.0') + pin('native==2.0') });
    await lockNow();
    const before = (await uv.asked()).length;
    await uv.answers({ any: pin('any==1.0') + pin('native==3.0') });
    const { lock: locked, diff } = await lockNow({ update: ['native'] });
    expect((await uv.asked())[before]?.held).toBe('any==1.0\n');
    expect(locked.python?.pins.map((p) => p.version)).toEqual(['1.0', '3.0']);
    expect(diff.changed.map((c) => c.kind)).toContain('package');
    const error = await failureOf(lockNow({ update: ['absent'] }));
    expect(error.code).toBe('USAGE');
  });

  it('tells by --check every list that differs', async () => {
    await put('c.txt', 'any<2\n');
    await manifest(`  packages: [any]\n${TARGETS}  indexes: ["${index.url}"]\n`);
    await uv.answers({ any: pin('any==1.0') });
    await lockNow();
    await manifest(
      '  packages: [any, native]\n  constraints: [c.txt]\n  pythons: ["3.12"]\n  platforms: [manylinux2014_x86_64]\n',
    );
    expect(await staleNow()).toEqual([
      'Python packages are asked for by the constraints file c.txt, which the lock lacks',
      'Python packages are asked for as any, native, the lock has any',
      'Python packages are asked for Python 3.12, the lock has 3.10, 3.11',
      'Python packages are asked for on manylinux_2_17_x86_64, the lock has linux/amd64, linux/arm64',
      `Python packages come from what the resolver is configured with, the lock has ${index.url}`,
    ]);
    await put(
      'sealift.yaml',
      'apiVersion: sealift/v1\nname: site\nversion: "1"\nimages: []\nfiles: [{path: c.txt, name: c}]\n',
    );
    expect(await staleNow()).toContain('Python packages are in the lock, but nothing asks for them');
  });

  it('names a target that no wheel fits; a source archive is carried only where that is allowed', async () => {
    const sdist = { file: 'lonely-1.0.tar.gz', bytes: Buffer.from('not read') };
    index.put(
      'lonely',
      taggedWheel({ name: 'lonely', version: '1.0' }, 'cp310-cp310-manylinux1_x86_64'),
      sdist,
    );
    const body = `  packages: [lonely]\n  pythons: ["3.10", "3.11"]\n  indexes: ["${index.url}"]\n`;
    await manifest(body);
    await uv.answers({ any: pin('lonely==1.0') });
    const error = await failureOf(lockNow());
    expect(error.code).toBe('PACKAGE_NOT_FOUND');
    expect(error.message).toBe(
      'lonely 1.0: no wheel for Python 3.11 on linux/amd64; its files are lonely-1.0-cp310-cp310-manylinux1_x86_64.whl, lonely-1.0.tar.gz',
    );
    await manifest(`${body}  sdists: true\n`);
    const { lock: locked, warnings } = await lockNow();
    expect(locked.python?.files.map((f) => f.file)).toContain(sdist.file);
    expect(warnings.map((w) => w.message)).toEqual([
      'lonely 1.0: a target has no wheel, so lonely-1.0.tar.gz is carried',
    ]);
    expect((await uv.asked()).at(-1)?.args).not.toContain('--only-binary');
    await manifest(body);
    expect(await staleNow()).toEqual([
      'Python packages may not be source archives, the lock has lonely-1.0.tar.gz',
    ]);
  });

  it('warns of what its publisher took back, with the reason', async () => {
    index.put('bad', { ...taggedWheel({ name: 'bad', version: '1.0' }), yanked: 'loses data' });
    await manifest(`  packages: [bad==1.0]\n  pythons: ["3.11"]\n  indexes: ["${index.url}"]\n`);
    await uv.answers({ any: pin('bad==1.0') });
    const { lock: locked, warnings } = await lockNow();
    expect(locked.python?.files[0]?.yanked).toBe('loses data');
    expect(warnings[0]).toMatchObject({ code: 'PACKAGE_YANKED', position: { line: 4 } });
    expect(warnings[0]?.message).toBe('bad 1.0 was taken back by its publisher: loses data');
  });

  it('holds a file at an address to the hash that stands there', async () => {
    const url = `http://${index.host}/files/${any.file}?${'x'.repeat(250)}#sha256=`;
    await manifest(`  requirements: [r.txt]\n  pythons: ["3.10"]\n  indexes: ["${index.url}"]\n`);
    await put('r.txt', `any @ ${url}${'0'.repeat(64)}\n`);
    await uv.answers({ any: `any @ ${url}${'0'.repeat(64)}\n` });
    expect((await failureOf(lockNow())).code).toBe('FILE_CHECKSUM_MISMATCH');
    await put('r.txt', `any @ ${url}${text(any).slice(7)}\n`);
    await uv.answers({ any: `any @ ${url}${text(any).slice(7)}\n` });
    expect((await lockNow()).lock.python?.files.map((f) => f.source)).toEqual([
      { url: `http://${index.host}/files/${any.file}` },
    ]);
  });

  it('takes the files of the first index that has the version, not those of a stranger behind it', async () => {
    const stranger = await start();
    stranger.put('any', taggedWheel({ name: 'any', version: '1.0' }, 'cp310-cp310-manylinux_2_17_x86_64'));
    await manifest('  requirements: [r.txt]\n  pythons: ["3.10"]\n');
    await put('r.txt', `--index-url ${index.url}\nany==1.0\n`);
    await uv.answers({ any: 'any==1.0\n' });
    const env = { UV_INDEX_URL: stranger.url };
    expect((await lockNow({}, env)).lock.python?.files.map((f) => f.file)).toEqual([any.file]);
    expect(stranger.asked).toEqual([]);
  });

  it('takes only files whose hash the requirements name', async () => {
    await manifest(`  requirements: [r.txt]\n  pythons: ["3.10"]\n  indexes: ["${index.url}"]\n`);
    await uv.answers({ any: pin('native==2.0') });
    await put('r.txt', `native==2.0 --hash=${text(abi3)}\n`);
    expect((await lockNow()).lock.python?.files.map((f) => f.file)).toEqual([abi3.file]);
    await put('r.txt', `native==2.0 --hash=sha256:${'0'.repeat(64)}\n`);
    const error = await failureOf(lockNow());
    expect(error.code).toBe('FILE_CHECKSUM_MISMATCH');
    expect(error.message).toContain('the requirements name other hashes');
  });

  it('reads files of an index that says neither hash nor size', async () => {
    const plain = await start({ html: true, hashes: false });
    plain.put('any', any);
    await manifest(`  packages: [any]\n  pythons: ["3.10"]\n  indexes: ["${plain.url}"]\n`);
    await uv.answers({ any: `any==1.0\n    # from ${plain.url}\n` });
    const [file] = (await lockNow()).lock.python?.files ?? [];
    expect(file).toMatchObject({ sha256: text(any), size: any.bytes.length, requiresPython: '>=3.8' });
    const sized = await start({ html: true });
    sized.put('any', any);
    await manifest(`  packages: [any]\n  pythons: ["3.10"]\n  indexes: ["${sized.url}"]\n`);
    await uv.answers({ any: `any==1.0\n    # from ${sized.url}\n` });
    await lockNow();
    expect(sized.asked).toEqual(['GET /simple/any/', `HEAD /files/${any.file}`]);
  });

  it('carries wheels that lie beside the manifest, and notices when they change', async () => {
    await put(any.file, any.bytes);
    await manifest(`  packages: ["./${any.file}"]\n  pythons: ["3.10"]\n`);
    await uv.answers({ any: `./${any.file}\n` });
    const { lock: locked } = await lockNow();
    expect(locked.python?.files).toEqual([
      {
        file: any.file,
        name: 'any',
        version: '1.0',
        source: { path: any.file },
        size: any.bytes.length,
        sha256: text(any),
      },
    ]);
    expect(await staleNow()).toEqual([]);
    await put(any.file, 'other');
    expect(await staleNow()).toEqual([`Python packages need ${any.file}: ${any.file} has changed`]);
  });
});

describe('lock --check --online of Python packages', () => {
  const online = async (): Promise<string[]> => {
    const options = { manifestPath: join(dir, 'sealift.yaml'), online: true };
    return (await checkLockFile(options, context())).faults.map((f) => `${f.code} ${f.message}`);
  };

  it('tells what was taken back, changed or is gone since', async () => {
    const own = await start();
    const wheels = ['stays', 'back', 'other', 'gone'].map((name) => taggedWheel({ name, version: '1.0' }));
    const [stays, back, other, gone] = wheels;
    if (stays === undefined || back === undefined || other === undefined || gone === undefined)
      throw new Error();
    for (const wheel of wheels) own.put(wheel.file.split('-')[0] ?? '', wheel);
    await manifest(
      `  packages: [stays, back, other, gone]\n  pythons: ["3.11"]\n  indexes: ["${own.url}"]\n`,
    );
    await uv.answers({
      any: ['stays', 'back', 'other', 'gone'].map((n) => `${n}==1.0\n    # from ${own.url}\n`).join(''),
    });
    await lockNow();
    expect(await online()).toEqual([]);
    own.replace('back', { ...back, yanked: 'it leaks' });
    own.replace('other', { ...other, bytes: Buffer.from('other bytes') });
    own.replace('gone');
    const now = `sha256:${digestOf(Buffer.from('other bytes')).slice(7)}`;
    expect((await online()).sort()).toEqual([
      `DRIFT_FOUND ${back.file}: was taken back by its publisher: it leaks`,
      `DRIFT_FOUND ${gone.file}: is gone from where it was`,
      `DRIFT_FOUND ${other.file}: locked ${text(other)}, its index now says ${now}`,
    ]);
  });
});

describe('a login for an index', () => {
  const login = { username: 'bob', password: 'hunter2' };

  it.each([
    [
      'the address that pip is configured with',
      (host: string) => ({ PIP_INDEX_URL: `http://bob:hunter2@${host}/simple` }),
    ],
    [
      'the address that uv is configured with',
      (host: string) => ({ UV_INDEX: `own=http://bob:hunter2@${host}/simple` }),
    ],
    ['netrc', () => ({ NETRC: join(dir, 'netrc') })],
  ])('is taken from %s, and stands nowhere', async (_, env) => {
    await put('netrc', 'machine 127.0.0.1 login bob password hunter2\n');
    const closed = await start({ login });
    closed.put('any', any);
    await manifest('  packages: [any]\n  pythons: ["3.10"]\n');
    await uv.answers({ any: `any==1.0\n    # from http://bob:****@${closed.host}/simple\n` });
    const { lock: locked } = await lockNow({}, env(closed.host));
    expect(locked.python?.files.map((f) => f.source)).toEqual([
      { url: `http://${closed.host}/files/${any.file}` },
    ]);
    expect(await readFile(join(dir, 'versions.lock'), 'utf8')).not.toMatch(/bob|hunter2/);
  });

  it('that lacks is told with what to do', async () => {
    const closed = await start({ login });
    await manifest(`  packages: [any]\n  pythons: ["3.10"]\n  indexes: ["${closed.url}"]\n`);
    await uv.answers({ any: `any==1.0\n    # from ${closed.url}\n` });
    const error = await failureOf(lockNow());
    expect(error.code).toBe('AUTH_REQUIRED');
    expect(error.hint).toContain('SEALIFT_CREDENTIALS_');
  });
});

describe('pack of Python packages', () => {
  const out = (): string => join(dir, 'bundle.tar');
  const manifestPath = (): string => join(dir, 'sealift.yaml');

  it('fetches each file with the login of its index, and carries wheels of this disk', async () => {
    const closed = await start({ login: { username: 'bob', password: 'hunter2' } });
    closed.put('any', any);
    await put(abi3.file, abi3.bytes);
    await manifest(
      `  packages: [any, "./${abi3.file}"]\n  pythons: ["3.11"]\n  indexes: ["${closed.url}"]\n`,
    );
    await put('netrc', 'machine 127.0.0.1\n  login bob\n  password hunter2\n');
    await uv.answers({ any: `any==1.0\n    # from ${closed.url}\n./${abi3.file}\n` });
    const env = { NETRC: join(dir, 'netrc') };
    await lockNow({}, env);
    await pack({ manifestPath: manifestPath(), out: out() }, context(env));
    const bundle = await readFile(out());
    expect(bundle.includes(any.bytes) && bundle.includes(abi3.bytes)).toBe(true);
    expect(bundle.includes('hunter2')).toBe(false);
    await rm(out());
    const error = await failureOf(pack({ manifestPath: manifestPath(), out: out() }, context()));
    expect(error.code).toBe('AUTH_REQUIRED');
  });

  it('refuses a file that is no longer what was locked', async () => {
    await manifest(`  packages: [any]\n  pythons: ["3.11"]\n  indexes: ["${index.url}"]\n`);
    await uv.answers({ any: pin('any==1.0') });
    await lockNow();
    any.bytes[40] = (any.bytes[40] ?? 0) ^ 1;
    try {
      const error = await failureOf(pack({ manifestPath: manifestPath(), out: out() }, context()));
      expect(error.code).toBe('CONTENT_DIGEST_MISMATCH');
    } finally {
      any.bytes[40] = (any.bytes[40] ?? 0) ^ 1;
    }
  });
});

describe('the resolver', () => {
  it('that is missing is named, with what to do', async () => {
    await manifest('  packages: [any]\n  pythons: ["3.10"]\n');
    const error = await failureOf(lockNow({}, { PATH: join(dir, 'empty') }));
    expect(error.code).toBe('RESOLVER_MISSING');
    expect(error.message).toBe('Python packages cannot be resolved: neither uv nor pip is found');
    expect(error.hint).toBe('install uv: `pip install uv`');
  });

  it('that fails is quoted, without passwords and without what steers a terminal', async () => {
    await manifest('  packages: [any]\n  pythons: ["3.10"]\n');
    const said =
      '\u001b[31merror\u001b[0m: No solution\n  because http://bob:hunter2@example.com/simple says so';
    await uv.answers({ any: `!${said}` });
    const error = await failureOf(lockNow());
    expect(error.code).toBe('PACKAGE_UNRESOLVED');
    expect(error.message).toBe(
      'uv 0.99.0 cannot resolve the requirements for Python 3.10 on linux/amd64: error: No solution / because http://***@example.com/simple says so',
    );
  });

  it('gets nothing of ours, and no other index than those of the manifest', async () => {
    await manifest(`  packages: [any]\n  pythons: ["3.10"]\n  indexes: ["${index.url}"]\n`);
    await uv.answers({ any: pin('any==1.0') });
    await lockNow({}, { SEALIFT_KEY_PASSWORD: 'x', UV_INDEX: 'https://e.example.com', UV_NATIVE_TLS: '1' });
    const env = (await uv.asked())[0]?.env ?? {};
    expect(Object.keys(env).filter((name) => /^SEALIFT_|^UV_INDEX/.test(name))).toEqual([]);
    expect(env).toMatchObject({ UV_NATIVE_TLS: '1', UV_PYTHON_DOWNLOADS: 'never' });
  });

  it('is killed when the work is stopped', async () => {
    await manifest('  packages: [any]\n  pythons: ["3.10"]\n');
    await uv.answers({ any: '!hang' });
    const running = context();
    const work = failureOf(lock({ manifestPath: join(dir, 'sealift.yaml') }, running));
    await expect.poll(async () => (await uv.asked()).length, { timeout: 30_000 }).toBe(1);
    running.controller.abort();
    expect((await work).code).toBe('ABORTED');
  });

  it('whose answer names a folder of sources is not believed', async () => {
    await manifest('  packages: [any]\n  pythons: ["3.10"]\n');
    await uv.answers({ any: 'x @ git+https://example.com/x@abc\n' });
    expect((await failureOf(lockNow())).code).toBe('PACKAGE_UNRESOLVED');
  });
});
