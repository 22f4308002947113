import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { diskStorage } from '../../src/serve/disk-storage.ts';
import { memoryStorage } from '../../src/serve/memory-storage.ts';
import { startRegistry } from '../../src/serve/registry.ts';
import type { Storage } from '../../src/serve/storage.ts';
import { makeFleet, pushImage } from '../support/fleet.ts';
import { artifact, digestOf, locationOf, putManifest } from './client.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-serve-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function text(storage: Storage, digest: `sha256:${string}`, start: number, length: number) {
  const chunks: Buffer[] = [];
  for await (const chunk of await storage.openBlob(digest, { start, length }))
    chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString();
}

describe.each([
  ['memory', async () => memoryStorage()],
  ['disk', () => diskStorage(join(dir, 'contract'))],
] as const)('storage in %s', (_, make) => {
  let storage: Storage;
  beforeAll(async () => {
    storage = await make();
  });

  it('shows a blob only once it is committed, and reads any part of it', async () => {
    const digest = digestOf('hello world');
    const incoming = await storage.receive();
    await incoming.write(Buffer.from('hello '));
    await incoming.write(Buffer.from('world'));
    expect(await storage.blobSize(digest)).toBeUndefined();
    await incoming.commit(digest);
    await incoming.discard();
    expect(await storage.blobSize(digest)).toBe(11);
    expect(await text(storage, digest, 0, 11)).toBe('hello world');
    expect(await text(storage, digest, 4, 3)).toBe('o w');
    expect(await text(storage, digest, 11, 0)).toBe('');
  });

  it('forgets what was discarded', async () => {
    const incoming = await storage.receive();
    await incoming.write(Buffer.from('gone'));
    await incoming.discard();
    expect(await storage.blobSize(digestOf('gone'))).toBeUndefined();
    await expect(storage.openBlob(digestOf('gone'), { start: 0, length: 4 })).rejects.toMatchObject({
      code: 'CONTENT_NOT_FOUND',
    });
  });

  it('keeps documents in folders and lists both sorted', async () => {
    expect(await storage.readDocument('a/b', 'x')).toBeUndefined();
    expect(await storage.listDocuments('a')).toEqual([]);
    await storage.writeDocument('a/b', 'x', { text: '1' });
    await storage.writeDocument('a/b', 'x', { text: '2' });
    await storage.writeDocument('a/b', 'W', { text: '' });
    await storage.writeDocument('a/_c/d', 'y', { text: '3' });
    expect(await storage.readDocument('a/b', 'x')).toBe('2');
    expect(await storage.readDocument('a/b', 'W')).toBe('');
    expect(await storage.listDocuments('a/b')).toEqual(['W', 'x']);
    expect(await storage.listFolders('a')).toEqual(['_c', 'b']);
    expect(await storage.listDocuments('a')).toEqual([]);
    expect(await storage.removeDocument('a/b', 'x')).toBe(true);
    expect(await storage.removeDocument('a/b', 'x')).toBe(false);
    expect(await storage.readDocument('a/b', 'x')).toBeUndefined();
  });

  it.each(['..', '.', '', '.hidden', 'a/../b', '/abs', 'a//b', 'a\\b', 'a\0b', 'a/', '-x'])(
    'refuses the folder and the name %j before anything is touched',
    async (bad) => {
      await expect((async () => storage.listDocuments(bad))()).rejects.toMatchObject({ code: 'INTERNAL' });
      await expect((async () => storage.writeDocument('a', bad, { text: '' }))()).rejects.toMatchObject({
        code: 'INTERNAL',
      });
    },
  );
});

/** Every file below a folder, with its text; blobs by name only. */
async function everyFile(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((e) => e.isFile())
    .map((e) => join(e.parentPath, e.name).slice(folder.length + 1))
    .sort();
}

describe('a registry over a directory', () => {
  it('has everything again after a restart, byte for byte', async () => {
    const storage = { dir: join(dir, 'restart') };
    const images = makeFleet({ kinds: ['oci', 'docker', 'attested', 'nested', 'artifact'], images: 5 });
    const first = await startRegistry({ storage });
    for (const image of images) await pushImage(first.host, image);
    const subject = await artifact(first.url, 'signed');
    const pointer = { mediaType: subject.mediaType, digest: subject.digest, size: subject.bytes.length };
    const signature = await artifact(first.url, 'signed', { subject: pointer });
    await putManifest(first.url, { repository: 'signed', reference: signature.digest }, signature);
    await first.close();

    const second = await startRegistry({ storage });
    try {
      for (const image of images) {
        const url = `${second.url}/v2/${image.name}`;
        const root = await fetch(`${url}/manifests/${image.tag}`);
        expect(root.headers.get('content-type')).toBe(image.index.mediaType);
        expect(Buffer.from(await root.arrayBuffer())).toEqual(image.index.bytes);
        for (const { digest, bytes } of image.manifests) {
          const got = await fetch(`${url}/manifests/${digest}`);
          expect(Buffer.from(await got.arrayBuffer())).toEqual(bytes);
        }
        for (const digest of image.blobs.keys()) {
          const got = await fetch(`${url}/blobs/${digest}`);
          expect(digestOf(Buffer.from(await got.arrayBuffer()))).toBe(digest);
        }
        expect(await pushImage(second.host, image)).toMatchObject({ blobsSent: 0, bytesSent: 0 });
      }
      const catalog = await (await fetch(`${second.url}/v2/_catalog`)).json();
      expect(catalog).toEqual({ repositories: [...images.map((i) => i.name), 'signed'].sort() });
      const referrers = await fetch(`${second.url}/v2/signed/referrers/${subject.digest}`);
      expect(await referrers.json()).toMatchObject({ manifests: [{ digest: signature.digest }] });
    } finally {
      await second.close();
    }
  });

  it('keeps nothing of uploads that were not finished', async () => {
    const storage = { dir: join(dir, 'unfinished') };
    const first = await startRegistry({ storage });
    const start = await fetch(`${first.url}/v2/a/blobs/uploads/`, { method: 'POST' });
    const patched = await fetch(locationOf(start), { method: 'PATCH', body: 'half' });
    expect(patched.status).toBe(202);
    const wrong = await fetch(`${first.url}/v2/a/blobs/uploads/?digest=${digestOf('x')}`, {
      method: 'POST',
      body: 'y',
    });
    expect(wrong.status).toBe(400);
    expect(await everyFile(storage.dir)).toHaveLength(1);
    await first.close();
    expect(await everyFile(storage.dir)).toEqual([]);
  });

  it('sweeps what a killed registry left behind and never shows it', async () => {
    const storage = { dir: join(dir, 'killed') };
    const first = await startRegistry({ storage });
    const { bytes } = await artifact(first.url, 'a');
    await putManifest(first.url, { repository: 'a', reference: 'v1' }, { bytes });
    await first.close();
    const before = await everyFile(storage.dir);
    await writeFile(join(storage.dir, 'incoming', 'left-over'), 'half a blob');
    await writeFile(join(storage.dir, 'repositories', 'a', '_tags', '.v2.0123.tmp'), 'half a tag');
    const second = await startRegistry({ storage });
    try {
      const tags = await (await fetch(`${second.url}/v2/a/tags/list`)).json();
      expect(tags).toEqual({ name: 'a', tags: ['v1'] });
      expect((await everyFile(storage.dir)).filter((name) => !name.includes('.tmp'))).toEqual(before);
    } finally {
      await second.close();
    }
  });

  it('heals a blob that rotted on the disk when it is pushed again', async () => {
    const storage = { dir: join(dir, 'rot') };
    const registry = await startRegistry({ storage });
    try {
      const push = () =>
        fetch(`${registry.url}/v2/a/blobs/uploads/?digest=${digestOf('good')}`, {
          method: 'POST',
          body: 'good',
        });
      expect((await push()).status).toBe(201);
      const path = join(storage.dir, 'blobs', 'sha256', digestOf('good').slice(7));
      await writeFile(path, 'evil');
      expect((await push()).status).toBe(201);
      expect(await readFile(path, 'utf8')).toBe('good');
    } finally {
      await registry.close();
    }
  });

  it('answers 500 without a path of the machine when its disk fails, and tells its owner', async () => {
    const storage = { dir: join(dir, 'failing') };
    const failures: unknown[] = [];
    const registry = await startRegistry({ storage, onError: (error) => failures.push(error) });
    try {
      await rm(join(storage.dir, 'incoming'), { recursive: true });
      const answer = await fetch(`${registry.url}/v2/a/blobs/uploads/`, { method: 'POST' });
      expect(answer.status).toBe(500);
      expect(await answer.text()).not.toContain(dir);
      expect(failures).toHaveLength(1);
    } finally {
      await registry.close();
    }
  });
});
