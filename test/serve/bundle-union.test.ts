import { copyFile, mkdir, open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { extract } from 'tar-stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Event } from '../../src/core/events.ts';
import { makeSite, type Site } from '../support/bundles.ts';
import { makeFleet } from '../support/fleet.ts';
import { ask, serveBundles } from './bundle-site.ts';
import { digestOf } from './client.ts';

let site: Site;
const images = makeFleet({ images: 2, sharedBases: 0, kinds: ['oci'], layerSizes: [400_000, 900_000] });
const BIG = Buffer.from(Array.from({ length: 1_500_000 }, (_, i) => (i * 7 + (i >> 9)) & 255));

beforeAll(async () => {
  site = await makeSite();
  for (const image of images) await site.addImage(image);
});

afterAll(() => site.close());

/** A bundle of images under the names that are given, and of files. */
async function bundleOf(
  name: string,
  content: { readonly images?: readonly string[]; readonly files?: Readonly<Record<string, Buffer>> },
): Promise<string> {
  const files = content.files ?? {};
  for (const [path, bytes] of Object.entries(files)) await site.put(`${name}/${path}`, bytes);
  const { host } = site.source;
  const listed = (content.images ?? []).map((ref) => {
    const [image] = images.filter((i) => ref.includes('/other') === (i === images[1]));
    return { ref, replace: `${host}/${image?.name}:${image?.tag}` };
  });
  return await site.bundle(
    name,
    `images: ${JSON.stringify(listed)}\nfiles: ${JSON.stringify(Object.keys(files).map((path) => ({ path, name: path })))}\nregistries: {"${host}": {plainHttp: true}}\n`,
  );
}

const tagOf = async (url: string, path: string): Promise<string | null> =>
  (await fetch(`${url}/v2/${path}`)).headers.get('docker-content-digest');

function warningsOf(events: readonly Event[]): string[] {
  return events.flatMap((e) => (e.type === 'warning' ? [e.fault.message] : []));
}

describe('several bundles', () => {
  it('are served as one, and what is equal in both is no conflict', async () => {
    const same = { same: Buffer.from('same') };
    const a = await bundleOf('a', { images: ['docker.io/x/app:1'], files: { ...same, 'only/a': BIG } });
    const b = await bundleOf('b', { images: ['docker.io/x/app:1', 'docker.io/x/other:1'], files: same });
    const serving = await serveBundles([a, b]);
    try {
      expect(serving.bundles.map((each) => each.name)).toEqual(['a', 'b']);
      expect([serving.images, serving.files]).toEqual([2, 2]);
      expect(await tagOf(serving.url, 'x/app/manifests/1')).toBe(images[0]?.index.digest);
      expect(await tagOf(serving.url, 'x/other/manifests/1')).toBe(images[1]?.index.digest);
      expect(await (await fetch(`${serving.url}/files/same`)).text()).toBe('same');
      const big = Buffer.from(await (await fetch(`${serving.url}/files/only/a`)).arrayBuffer());
      expect(big.equals(BIG)).toBe(true);
    } finally {
      await serving.close();
    }
  });

  it('are refused when a name means different bytes, with both named', async () => {
    const a = await bundleOf('fa', { files: { 'bin/tool': Buffer.from('one') } });
    const b = await bundleOf('fb', { files: { 'bin/tool': Buffer.from('two') } });
    const failure = await serveBundles([a, b]).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'TARGET_NAME_COLLISION' });
    const parts = ['bin/tool', a, b, digestOf('one'), digestOf('two')];
    for (const part of parts) expect(String(failure)).toContain(part);
  });

  it('show an image of two hosts under its path as Docker would, and otherwise only under its full name', async () => {
    const refs = ['docker.io/x/hub:1', 'quay.io/x/hub:1', 'ghcr.io/x/both:1', 'quay.io/x/both:1'];
    const hub = await bundleOf('hub', { images: [refs[0] ?? '', refs[2] ?? ''] });
    // The same path with the other image's bytes.
    const [, second] = images;
    const text = ['quay.io/x/hub:1', 'quay.io/x/both:1'].map((ref) => ({
      ref,
      replace: `${site.source.host}/${second?.name}:${second?.tag}`,
    }));
    const quay = await site.bundle(
      'quay',
      `images: ${JSON.stringify(text)}\nregistries: {"${site.source.host}": {plainHttp: true}}\n`,
    );
    const serving = await serveBundles([quay, hub]);
    try {
      const [first] = images;
      expect(await tagOf(serving.url, 'x/hub/manifests/1')).toBe(first?.index.digest);
      expect(await tagOf(serving.url, 'quay.io/x/hub/manifests/1')).toBe(second?.index.digest);
      expect(await tagOf(serving.url, 'x/hub/manifests/1?ns=quay.io')).toBe(second?.index.digest);
      expect(await tagOf(serving.url, 'x/both/manifests/1')).toBe(null);
      expect(await tagOf(serving.url, 'ghcr.io/x/both/manifests/1')).toBe(first?.index.digest);
      expect(await tagOf(serving.url, `x/both/manifests/${second?.index.digest}`)).toBe(second?.index.digest);
      const warnings = warningsOf(serving.context.events).join('\n');
      expect(warnings).toContain('x/hub:1 means docker.io/x/hub:1 here');
      expect(warnings).toContain('x/both:1 means nothing here');
    } finally {
      await serving.close();
    }
  });
});

/** A copy of a bundle in which one byte of some content is another. */
async function damaged(tar: string, content: Buffer, at: number): Promise<string> {
  const copy = `${tar}.damaged`;
  await copyFile(tar, copy);
  const offset = (await readFile(copy)).indexOf(content) + at;
  const handle = await open(copy, 'r+');
  await handle.write(Buffer.from([(content[at] ?? 0) ^ 1]), 0, 1, offset);
  await handle.close();
  return copy;
}

describe('a damaged blob', () => {
  it('never comes as a whole, is told and stands in the log', async () => {
    const tar = await bundleOf('bad', { images: ['docker.io/x/app:1'], files: { big: BIG } });
    const serving = await serveBundles([await damaged(tar, BIG, 1_000)]);
    try {
      const whole = await ask(serving.url, { path: '/files/big' });
      expect([whole.status, whole.ended]).toEqual([200, false]);
      expect(whole.body.length).toBeLessThan(BIG.length);
      // The end of a download that was broken off: the damage is in the part that the client has already.
      const rest = await ask(serving.url, { path: '/files/big', headers: { range: 'bytes=1200000-' } });
      expect([rest.status, rest.ended]).toEqual([206, false]);
      expect(rest.body.length).toBeLessThan(300_000);
      const part = await ask(serving.url, { path: '/files/big', headers: { range: 'bytes=5000-9999' } });
      expect([part.status, part.ended, part.body.length]).toEqual([206, true, 5000]);
      // Everything else is still served.
      expect((await fetch(`${serving.url}/v2/x/app/manifests/1`)).status).toBe(200);
      const result = await serving.close();
      expect(result.failed).toBe(2);
      expect(result.damage.map((fault) => fault.code)).toEqual(['BUNDLE_CHECKSUM_MISMATCH']);
      expect(warningsOf(serving.context.events)).toHaveLength(1);
      const lines = serving.lines.map((line) => JSON.parse(line));
      expect(lines[0]).toMatchObject({ path: '/files/big', status: 200 });
      expect(lines[0].error).toContain('BUNDLE_CHECKSUM_MISMATCH');
      expect(lines[1].error).toContain('BUNDLE_CHECKSUM_MISMATCH');
      expect(lines[2].error).toBeUndefined();
    } finally {
      await serving.close();
    }
  });

  it('is an error and not a good beginning where it is small, a manifest as well', async () => {
    const small = Buffer.from('some small file');
    const tar = await bundleOf('tiny', { images: ['docker.io/x/app:1'], files: { small } });
    const bad = await damaged(tar, small, 3);
    const manifest = images[0]?.index.bytes ?? Buffer.alloc(0);
    const serving = await serveBundles([bad]);
    try {
      // Manifests are read at the start: this one is damaged while it is served.
      const handle = await open(bad, 'r+');
      await handle.write(Buffer.from('!'), 0, 1, (await readFile(bad)).indexOf(manifest) + 5);
      await handle.close();
      for (const path of ['/files/small', '/v2/x/app/manifests/1']) {
        const answer = await fetch(`${serving.url}${path}`);
        expect([path, answer.status]).toEqual([path, 500]);
        expect(await answer.json()).toMatchObject({
          errors: [{ message: expect.stringContaining('damaged') }],
        });
      }
      expect((await fetch(`${serving.url}/files/small`, { method: 'HEAD' })).status).toBe(200);
      const { damage, failed } = await serving.close();
      expect([damage.length, failed]).toEqual([2, 2]);
    } finally {
      await serving.close();
    }
  });

  it('comes when its parts are right, also those that end it', async () => {
    const tar = await bundleOf('good', { files: { big: BIG } });
    const serving = await serveBundles([tar]);
    try {
      for (const range of ['bytes=1200000-', 'bytes=-1', 'bytes=0-1499998', 'bytes=700000-1499999']) {
        const part = await ask(serving.url, { path: '/files/big', headers: { range } });
        expect([range, part.status, part.ended]).toEqual([range, 206, true]);
      }
    } finally {
      await serving.close();
    }
  });

  it('that was right once is read again when somebody has written to its file', async () => {
    const tar = await bundleOf('over', { files: { big: BIG } });
    const serving = await serveBundles([tar]);
    const rest = { path: '/files/big', headers: { range: 'bytes=1499990-' } };
    try {
      const before = await ask(serving.url, rest);
      expect([before.status, before.body]).toEqual([206, BIG.subarray(1_499_990)]);
      const handle = await open(tar, 'r+');
      await handle.write(Buffer.from([1, 2, 3]), 0, 3, (await readFile(tar)).indexOf(BIG) + 1_499_995);
      await handle.utimes(1, 1);
      await handle.close();
      expect((await ask(serving.url, rest)).status).toBe(500);
    } finally {
      await serving.close();
    }
  });

  it('of the structure is refused at the start', async () => {
    const tar = await bundleOf('cut', { files: { big: BIG } });
    const short = `${tar}.short`;
    await copyFile(tar, short);
    const handle = await open(short, 'r+');
    await handle.truncate(800_000);
    await handle.close();
    await expect(serveBundles([short])).rejects.toMatchObject({ code: expect.stringMatching(/^BUNDLE_/) });
    await expect(serveBundles([join(site.dir, 'nothing')])).rejects.toMatchObject({
      code: 'BUNDLE_NOT_FOUND',
    });
  });
});

/** The entries of a tar as a folder. */
async function unpack(tar: string, dir: string): Promise<string> {
  await mkdir(join(dir, 'blobs/sha256'), { recursive: true });
  const reader = extract();
  reader.end(await readFile(tar));
  for await (const entry of reader) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry) chunks.push(chunk as Buffer);
    await site.put(join(dir, entry.header.name).slice(site.dir.length + 1), Buffer.concat(chunks));
  }
  return dir;
}

describe('a bundle', () => {
  it('in a folder is served like one in a file, and neither is changed', async () => {
    const tar = await bundleOf('dir', { images: ['docker.io/x/app:1'], files: { big: BIG } });
    const before = await stat(tar);
    const folder = await unpack(tar, join(site.dir, 'unpacked'));
    const serving = await serveBundles([folder, tar]);
    try {
      expect(digestOf(Buffer.from(await (await fetch(`${serving.url}/files/big`)).arrayBuffer()))).toBe(
        digestOf(BIG),
      );
      expect(await tagOf(serving.url, 'x/app/manifests/1')).toBe(images[0]?.index.digest);
    } finally {
      await serving.close();
    }
    const { mtimeMs, ino, size } = await stat(tar);
    expect([mtimeMs, ino, size]).toEqual([before.mtimeMs, before.ino, before.size]);
  });
});
