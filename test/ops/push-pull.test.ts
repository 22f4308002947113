import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { BUNDLE_ARTIFACT, BUNDLE_CHUNK, splitBytes } from '../../src/bundle/chunks.ts';
import { openBundle } from '../../src/bundle/reader.ts';
import type { SealiftError } from '../../src/core/errors.ts';
import type { Event } from '../../src/core/events.ts';
import { digestOf } from '../../src/io/verify.ts';
import { EMPTY_CONFIG, EMPTY_CONFIG_BYTES } from '../../src/oci/artifact.ts';
import { Registry } from '../../src/oci/registry.ts';
import { type BundlePlace, formatBundlePlace, parseBundlePlace } from '../../src/ops/bundle-place.ts';
import { pull } from '../../src/ops/pull.ts';
import { push } from '../../src/ops/push.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { failureOf, someBytes, testClient } from '../io/server.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';

const CHUNK = 100_000;
const FILE = someBytes(950_000);

let site: Site;
let bundle: string;
let bytes: Buffer;

beforeAll(async () => {
  site = await makeSite();
  site.source.addFile('weights', FILE);
  bundle = await site.bundle(
    'astrago',
    `files: [{url: "http://${site.source.host}/files/weights", name: weights.bin}]\n`,
  );
  bytes = await readFile(bundle);
});

afterAll(() => site?.close());

type Intercept = (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;

/** A registry for one test, and the place of a bundle in it. */
async function openRegistry(intercept?: Intercept): Promise<{ registry: RunningRegistry; to: BundlePlace }> {
  const registry = await startRegistry({
    storage: 'memory',
    ...(intercept === undefined ? {} : { intercept }),
  });
  onTestFinished(() => registry.close());
  return { registry, to: parseBundlePlace(`oci://${registry.host}/bundles/astrago:v1`) };
}

function clientOf(host: string): Registry {
  return new Registry(host, { http: testClient(), context: testContext(), config: {} });
}

async function folder(name: string): Promise<string> {
  return join(await site.put(`${name}/.keep`, ''), '..');
}

async function errorOf(work: Promise<unknown>): Promise<SealiftError> {
  return (await failureOf(work)) as SealiftError;
}

/** Paths of the requests that changed something. */
function writes(registry: RunningRegistry): string[] {
  return registry.requests.filter((r) => r.method === 'PUT').map((r) => r.path);
}

describe('a bundle in a registry', () => {
  it('is an artifact of equal chunks that says what it is, and comes back with the same bytes', async () => {
    const { registry, to } = await openRegistry();
    const pushed = await push({ bundle, to, chunkSize: CHUNK }, testContext());
    const count = Math.ceil(bytes.length / CHUNK);
    expect(pushed).toMatchObject({
      outcome: 'pushed',
      sent: { chunks: count, bytes: bytes.length },
      present: { chunks: 0 },
    });
    expect(writes(registry).at(-1)).toBe('/v2/bundles/astrago/manifests/v1');
    const { bytes: text } = await clientOf(registry.host).getManifest('bundles/astrago', 'v1');
    const manifest = JSON.parse(text.toString());
    expect(manifest).toMatchObject({
      artifactType: BUNDLE_ARTIFACT,
      config: EMPTY_CONFIG,
      annotations: {
        'dev.sealift.name': 'astrago',
        'dev.sealift.version': '1',
        'dev.sealift.lock': pushed.lock,
      },
    });
    expect(manifest.layers).toHaveLength(count);
    expect(manifest.layers[0]).toEqual({
      mediaType: BUNDLE_CHUNK,
      digest: digestOf(bytes.subarray(0, CHUNK)),
      size: CHUNK,
      annotations: { 'org.opencontainers.image.title': 'astrago-1.tar.001' },
    });
    const out = join(await folder('roundtrip'), 'b.tar');
    expect(await pull({ from: to, out }, testContext())).toMatchObject({
      outcome: 'pulled',
      digest: pushed.digest,
      fetched: bytes.length,
      resumed: 0,
    });
    expect((await readFile(out)).equals(bytes)).toBe(true);
    expect((await readdir(join(out, '..'))).sort()).toEqual(['.keep', 'b.tar']);
  });

  it('has one digest whatever the file is called, whether it lies in volumes, and wherever it goes', async () => {
    const a = await openRegistry();
    const b = await openRegistry();
    const first = await push({ bundle, to: a.to, chunkSize: CHUNK }, testContext());
    const dir = await folder('volumes');
    const pulled = await pull({ from: a.to, out: `${dir}/` }, testContext());
    expect(pulled.volumes).toHaveLength(first.sent.chunks);
    expect((await stat(join(dir, 'astrago-1.tar.002'))).size).toBe(CHUNK);
    const volume = join(dir, 'astrago-1.tar.001');
    const { signal } = testContext();
    const opened = await openBundle(volume, { signal });
    await opened.close();
    expect(opened).toMatchObject({ faults: [], lockDigest: first.lock });
    const again = await push({ bundle: volume, to: b.to, chunkSize: CHUNK }, testContext());
    expect(again.digest).toBe(first.digest);
    const other = await push({ bundle, to: b.to, chunkSize: 2 * CHUNK }, testContext());
    expect(other.digest).not.toBe(first.digest);
  });

  it('is not sent twice: the second push writes nothing, another tag only the manifest', async () => {
    const { registry, to } = await openRegistry();
    await push({ bundle, to, chunkSize: CHUNK }, testContext());
    const before = writes(registry).length;
    const again = await push({ bundle, to, chunkSize: CHUNK }, testContext());
    expect(again).toMatchObject({ outcome: 'present', sent: { chunks: 0 } });
    expect(writes(registry)).toHaveLength(before);
    const tagged = await push({ bundle, to: { ...to, tag: 'v2' }, chunkSize: CHUNK }, testContext());
    expect(tagged).toMatchObject({ outcome: 'pushed', sent: { chunks: 0 }, digest: again.digest });
    expect(writes(registry).slice(before)).toEqual(['/v2/bundles/astrago/manifests/v2']);
  });

  it('has no tag while chunks lack, and a push that was stopped goes on', async () => {
    let refused = false;
    const third = digestOf(bytes.subarray(2 * CHUNK, 3 * CHUNK));
    const { registry, to } = await openRegistry((request, response) => {
      const isThird = request.method === 'PUT' && decodeURIComponent(request.url ?? '').includes(third);
      if (refused || !isThird) return false;
      refused = true;
      response.writeHead(403, { connection: 'close' }).end();
      return true;
    });
    const failed = await errorOf(push({ bundle, to, chunkSize: CHUNK }, testContext()));
    expect(failed.code).toBe('AUTH_DENIED');
    expect(writes(registry).filter((path) => path.includes('/manifests/'))).toEqual([]);
    const again = await push({ bundle, to, chunkSize: CHUNK }, testContext());
    expect(again.present.chunks).toBeGreaterThan(0);
    expect(again.sent.chunks + again.present.chunks).toBe(Math.ceil(bytes.length / CHUNK));
    expect(await clientOf(registry.host).resolve('bundles/astrago', 'v1')).toBe(again.digest);
  });

  it('is sent again where the registry says that chunks are there and then does not find them', async () => {
    let lost = false;
    const { registry, to } = await openRegistry((request, response) => {
      if (!lost || request.method !== 'PUT' || request.url?.includes('/manifests/') !== true) return false;
      lost = false;
      const errors = [{ code: 'MANIFEST_BLOB_UNKNOWN', message: 'blob unknown to registry' }];
      response.writeHead(400, { connection: 'close' }).end(JSON.stringify({ errors }));
      return true;
    });
    await push({ bundle, to: { ...to, tag: 'v0' }, chunkSize: CHUNK }, testContext());
    lost = true;
    const before = writes(registry).length;
    const pushed = await push({ bundle, to, chunkSize: CHUNK }, testContext());
    const uploads = writes(registry)
      .slice(before)
      .filter((path) => path.includes('/blobs/uploads/'));
    expect(uploads).toHaveLength(Math.ceil(bytes.length / CHUNK));
    expect(await clientOf(registry.host).resolve('bundles/astrago', 'v1')).toBe(pushed.digest);
  });

  it('is refused as a folder, without a tag, and in more chunks than a manifest may have', async () => {
    const { to } = await openRegistry();
    const { tag: _, ...bare } = to;
    expect(await errorOf(push({ bundle, to: bare }, testContext()))).toMatchObject({ code: 'USAGE' });
    expect(await errorOf(push({ bundle, to, chunkSize: 10 }, testContext()))).toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining('the limit is 4096'),
    });
    expect(splitBytes(5, 2)).toEqual([
      { offset: 0, size: 2 },
      { offset: 2, size: 2 },
      { offset: 4, size: 1 },
    ]);
    const damaged = await site.put('cut.tar', bytes.subarray(0, 500_000));
    expect((await errorOf(push({ bundle: damaged, to }, testContext()))).code).toMatch(/^BUNDLE_/);
  });
});

describe('a pull', () => {
  it('that was stopped inside a chunk asks only for the rest, and no file is there before', async () => {
    let limit = 0;
    const { registry, to } = await openRegistry((request, response) => {
      const isBlob = request.method === 'GET' && request.url?.includes('/blobs/sha256:') === true;
      if (!isBlob || limit === 0) return false;
      response.writeHead(200, { 'content-length': bytes.length });
      response.write(bytes.subarray(0, limit));
      return true;
    });
    const pushed = await push({ bundle, to }, testContext());
    expect(pushed.sent.chunks).toBe(1);
    const out = join(await folder('resumed'), 'b.tar');
    limit = 600_000;
    const context = testContext();
    const emit = (event: Event): void => {
      if (event.type === 'progress' && event.bytes > 0) context.controller.abort();
    };
    // The first bytes arrive, then somebody presses Ctrl-C.
    expect((await errorOf(pull({ from: to, out }, { ...context, emit }))).code).toBe('ABORTED');
    expect((await readdir(join(out, '..'))).sort()).toEqual(['.keep', 'b.tar.pull', 'b.tar.pull.journal']);
    limit = 0;
    const asked = registry.requests.length;
    const done = await pull({ from: to, out }, testContext());
    expect(done.resumed).toBeGreaterThan(0);
    expect(done.resumed + done.fetched).toBe(bytes.length);
    const ranges = registry.requests.slice(asked).map((r) => r.range);
    expect(ranges).toContain(`bytes=${done.resumed}-`);
    expect((await readFile(out)).equals(bytes)).toBe(true);
    expect((await readdir(join(out, '..'))).sort()).toEqual(['.keep', 'b.tar']);
  });

  it('believes nothing that an earlier one left: wrong bytes there are fetched anew', async () => {
    const { to } = await openRegistry();
    const { digest } = await push({ bundle, to }, testContext());
    const dir = await folder('doubted');
    const out = join(dir, 'b.tar');
    await writeFile(`${out}.pull`, Buffer.alloc(bytes.length + 5, 'x'));
    const lines = [
      { plan: digest, kind: 'tar' },
      { d: digestOf(bytes), o: 0, s: bytes.length },
    ];
    await writeFile(`${out}.pull.journal`, lines.map((l) => `${JSON.stringify(l)}\n`).join(''));
    expect(await pull({ from: to, out }, testContext())).toMatchObject({ resumed: 0, fetched: bytes.length });
    expect((await readFile(out)).equals(bytes)).toBe(true);
  });

  it('leaves a file alone: the same bytes are there already, others are refused', async () => {
    const { to } = await openRegistry();
    await push({ bundle, to, chunkSize: CHUNK }, testContext());
    const same = join(await folder('there'), 'b.tar');
    await writeFile(same, bytes);
    const { mtimeMs } = await stat(same);
    expect(await pull({ from: to, out: same }, testContext())).toMatchObject({ outcome: 'present' });
    expect((await stat(same)).mtimeMs).toBe(mtimeMs);
    const other = Buffer.from(bytes);
    other[777_777] = (other[777_777] ?? 0) ^ 1;
    await writeFile(same, other);
    expect(await errorOf(pull({ from: to, out: same }, testContext()))).toMatchObject({
      code: 'TARGET_CONFLICT',
    });
    expect((await readFile(same)).equals(other)).toBe(true);
  });

  it('of wrong bytes fails by their digest, and the next one starts that chunk anew', async () => {
    let lies = true;
    const first = digestOf(bytes.subarray(0, CHUNK));
    const { to } = await openRegistry((request, response) => {
      if (!lies || request.method !== 'GET' || request.url?.endsWith(first) !== true) return false;
      response.end(Buffer.alloc(CHUNK, 'x'));
      return true;
    });
    await push({ bundle, to, chunkSize: CHUNK }, testContext());
    const out = join(await folder('lies'), 'b.tar');
    const failed = await errorOf(pull({ from: to, out }, testContext()));
    expect(failed).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
    expect(failed.message).toContain('astrago-1.tar.001');
    expect(await readdir(join(out, '..'))).not.toContain('b.tar');
    lies = false;
    expect(await pull({ from: to, out }, testContext())).toMatchObject({ outcome: 'pulled' });
    expect((await readFile(out)).equals(bytes)).toBe(true);
  });
});

/** A manifest of one or more chunks that is right, for tests that change one thing. */
function manifestOf(change: Readonly<Record<string, unknown>> = {}, layers?: unknown): Buffer {
  const digest = digestOf(EMPTY_CONFIG_BYTES);
  const layer = (title: string) => ({
    mediaType: BUNDLE_CHUNK,
    digest,
    size: 2,
    annotations: { 'org.opencontainers.image.title': title },
  });
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      artifactType: BUNDLE_ARTIFACT,
      config: EMPTY_CONFIG,
      layers: layers ?? [layer('a-1.tar.001'), layer('a-1.tar.002')],
      annotations: {
        'dev.sealift.name': 'a',
        'dev.sealift.version': '1',
        'dev.sealift.lock': digest,
      },
      ...change,
    }),
  );
}

describe('a hostile artifact', () => {
  const digest = digestOf(EMPTY_CONFIG_BYTES);
  const layer = (title: string, more: object = {}) => ({
    mediaType: BUNDLE_CHUNK,
    digest,
    size: 2,
    annotations: { 'org.opencontainers.image.title': title },
    ...more,
  });
  const label = { 'dev.sealift.name': 'a', 'dev.sealift.version': '1', 'dev.sealift.lock': digest };
  const cases: readonly (readonly [what: string, bytes: Buffer, says: RegExp])[] = [
    ['another artifact', manifestOf({ artifactType: 'application/vnd.example' }), /is no bundle: app/],
    ['an image', manifestOf({ artifactType: undefined }), /is no bundle/],
    ['no chunk', manifestOf({}, []), /0 is no size/],
    ['a path', manifestOf({}, [layer('../../etc/a.tar')]), /which is no name of a volume/],
    ['another name', manifestOf({}, [layer('b-1.tar')]), /is called "b-1.tar", expected a-1.tar/],
    ['one name twice', manifestOf({}, [layer('a-1.tar.001'), layer('a-1.tar.001')]), /chunk 2 is called/],
    ['a layer of another type', manifestOf({}, [layer('a-1.tar', { mediaType: 'x/y' })]), /of type x\/y/],
    ['an empty chunk', manifestOf({}, [layer('a-1.tar', { size: 0 })]), /has 0 bytes, expected 1 to 0/],
    [
      'chunks of several sizes',
      manifestOf({}, [layer('a-1.tar.001'), layer('a-1.tar.002', { size: 1 }), layer('a-1.tar.003')]),
      /chunk 2 has 1 bytes, expected 2/,
    ],
    [
      'more bytes than numbers can count',
      manifestOf({}, [
        layer('a-1.tar.001', { size: Number.MAX_SAFE_INTEGER }),
        layer('a-1.tar.002', { size: Number.MAX_SAFE_INTEGER }),
      ]),
      /is no size of a bundle/,
    ],
    [
      'more chunks than are allowed',
      manifestOf(
        {},
        Array.from({ length: 4097 }, () => layer('a')),
      ),
      /4097 entries, the limit is 4096/,
    ],
    [
      'a name that is a path',
      manifestOf({ annotations: { ...label, 'dev.sealift.name': '../x' } }),
      /no name/,
    ],
    ['no lock', manifestOf({ annotations: { ...label, 'dev.sealift.lock': 'x' } }), /which lock/],
  ];

  it.each(cases)('with %s is refused before anything is written', async (_, content, says) => {
    const { from, asked } = await lying(content);
    const dir = await folder(`hostile-${digestOf(content).slice(7, 20)}`);
    const failed = await errorOf(pull({ from, out: join(dir, 'b.tar') }, testContext()));
    expect(asked()).toBeGreaterThan(0);
    expect(['CONTENT_UNSUPPORTED', 'OCI_MANIFEST_INVALID']).toContain(failed.code);
    expect(failed.message).toMatch(says);
    expect(await readdir(dir)).toEqual(['.keep']);
  });

  it('whose chunk is longer than it says is cut off, and no file appears', async () => {
    const { from } = await lying(manifestOf({}, [layer('a-1.tar')]), Buffer.alloc(5_000_000));
    const dir = await folder('long');
    const failed = await errorOf(pull({ from, out: join(dir, 'b.tar') }, testContext()));
    expect(failed.code).toBe('CONTENT_SIZE_MISMATCH');
    expect(await readdir(dir)).not.toContain('b.tar');
    expect((await stat(join(dir, 'b.tar.pull'))).size).toBeLessThanOrEqual(2);
  });

  it('that is not the digest that was asked for is refused before anything is written', async () => {
    const { from, asked } = await lying(manifestOf({}, [layer('a-1.tar')]));
    const { tag: _, ...place } = from;
    const dir = await folder('swapped');
    const other = { ...place, digest: digestOf(Buffer.from('what was meant')) };
    const failed = await errorOf(pull({ from: other, out: join(dir, 'b.tar') }, testContext()));
    expect(asked()).toBeGreaterThan(0);
    expect(failed.code).toBe('CONTENT_DIGEST_MISMATCH');
    expect(await readdir(dir)).toEqual(['.keep']);
  });

  it('larger than the disk is refused before its first byte', async () => {
    const huge = layer('a-1.tar', { size: 2 ** 52 });
    const { from } = await lying(manifestOf({}, [huge]));
    const dir = await folder('huge');
    const failed = await errorOf(pull({ from, out: join(dir, 'b.tar') }, testContext()));
    expect(failed.code).toBe('DISK_FULL');
    expect(await readdir(dir)).toEqual(['.keep']);
  });
});

/** A registry that gives this manifest for every tag, and these bytes for every blob. */
async function lying(
  content: Buffer,
  blob: Buffer = EMPTY_CONFIG_BYTES,
): Promise<{ from: BundlePlace; asked: () => number }> {
  let count = 0;
  const { registry } = await openRegistry((request, response) => {
    if (request.url?.includes('/manifests/') === true) {
      count += 1;
      response.writeHead(200, { 'content-type': 'application/vnd.oci.image.manifest.v1+json' }).end(content);
      return true;
    }
    if (request.url?.includes('/blobs/') !== true) return false;
    response.writeHead(200).end(blob);
    return true;
  });
  return { from: parseBundlePlace(`oci://${registry.host}/b/a:1`), asked: () => count };
}

describe('the place of a bundle', () => {
  it('reads back as it was written', () => {
    for (const text of [
      'oci://registry/team/a:1',
      'http://10.0.0.1:5000/a',
      `https://r.example/a/b@sha256:${'0'.repeat(64)}`,
    ]) {
      expect(formatBundlePlace(parseBundlePlace(text))).toBe(text);
    }
    expect(parseBundlePlace('oci://registry/a:1')).toMatchObject({ host: 'registry', repository: 'a' });
  });

  it('needs a scheme, a host and a repository, and takes no password', () => {
    for (const text of [
      'r.example/a:1',
      'oci://r.example',
      'oci://r.example/',
      'oci://r.example/A:1',
      'oci://r.example/a:',
      'oci://r.example/a@sha256:12',
      'oci://r.example/a:b:c',
      'oci://user:pass@r.example/a:1',
    ]) {
      expect(() => parseBundlePlace(text), text).toThrow(expect.objectContaining({ code: 'USAGE' }));
    }
    expect(() => parseBundlePlace('oci://user:secret@r.example/a:1')).toThrow(/^((?!secret).)*$/);
  });
});
