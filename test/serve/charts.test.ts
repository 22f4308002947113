import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { type RegistryOptions, type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { digestOf } from './client.ts';

async function withRegistry(
  options: Pick<RegistryOptions, 'charts'>,
  work: (registry: RunningRegistry) => Promise<void>,
): Promise<void> {
  const registry = await startRegistry({ storage: 'memory', ...options });
  try {
    await work(registry);
  } finally {
    await registry.close();
  }
}

async function chartArchive(name: string, chartYaml: string): Promise<Buffer> {
  const tar = pack();
  tar.entry({ name: `${name}/Chart.yaml` }, chartYaml);
  tar.entry({ name: `${name}/values.yaml` }, 'a: 1\n');
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(Buffer.from(chunk as Uint8Array));
  return gzipSync(Buffer.concat(chunks));
}

async function index(
  url: string,
): Promise<{ apiVersion: string; entries: Record<string, Record<string, unknown>[]> }> {
  const answer = await fetch(`${url}/charts/index.yaml`);
  expect(answer.status).toBe(200);
  return parse(await answer.text());
}

const hex = (bytes: Buffer) => digestOf(bytes).slice('sha256:'.length);

describe('the chart repository', () => {
  it('is empty but valid without charts', () =>
    withRegistry({}, async ({ url }) => {
      expect(await index(url)).toMatchObject({ apiVersion: 'v1', entries: {} });
    }));

  it('lists every chart with its metadata, digest and relative url, and serves archive and provenance', () =>
    withRegistry({}, async ({ url, addChart }) => {
      const yaml =
        'apiVersion: v2\nname: app\nversion: 1.2.0\nappVersion: 1.10\ndependencies:\n- {name: db, version: 1.x.x, repository: "https://charts.example.test"}\n';
      const one = await chartArchive('app', yaml);
      const two = await chartArchive('app', yaml.replace('1.2.0', '1.3.0'));
      await addChart('app-1.2.0.tgz', one, { provenance: 'signed' });
      await addChart('app-1.3.0.tgz', two);
      const { entries } = await index(url);
      expect(Object.keys(entries)).toEqual(['app']);
      expect(entries.app).toHaveLength(2);
      expect(entries.app?.[0]).toMatchObject({
        apiVersion: 'v2',
        name: 'app',
        version: '1.2.0',
        appVersion: '1.10',
        dependencies: [{ name: 'db', version: '1.x.x', repository: 'https://charts.example.test' }],
        digest: hex(one),
        urls: ['app-1.2.0.tgz'],
      });
      expect(Buffer.from(await (await fetch(`${url}/charts/app-1.2.0.tgz`)).arrayBuffer())).toEqual(one);
      expect(await (await fetch(`${url}/charts/app-1.2.0.tgz.prov`)).text()).toBe('signed');
      expect((await fetch(`${url}/charts/app-1.3.0.tgz.prov`)).status).toBe(404);
      expect((await fetch(`${url}/charts/app-9.tgz`)).status).toBe(404);
      const again = await fetch(`${url}/charts/index.yaml`);
      expect(await again.text()).toBe(await (await fetch(`${url}/charts/index.yaml`)).text());
    }));

  it('writes absolute urls when it is told so, and any urls that a test gives', () =>
    withRegistry({ charts: { absoluteUrls: true } }, async ({ url, addChart }) => {
      const metadata = { apiVersion: 'v2', name: 'a', version: '1.0.0' };
      await addChart('a-1.0.0.tgz', Buffer.from('x'), { metadata });
      await addChart('a-2.0.0.tgz', Buffer.from('y'), {
        metadata: { ...metadata, version: '2.0.0' },
        urls: ['../z'],
      });
      const { entries } = await index(url);
      expect(entries.a?.map((entry) => entry.urls)).toEqual([[`${url}/charts/a-1.0.0.tgz`], ['../z']]);
    }));

  it('can lie about a digest and republish other bytes under one name', () =>
    withRegistry({}, async ({ url, addChart }) => {
      const metadata = { apiVersion: 'v2', name: 'a', version: '1.0.0' };
      await addChart('a-1.0.0.tgz', Buffer.from('not even gzip'), {
        metadata,
        indexDigest: '0'.repeat(64),
        provenance: 'p',
      });
      expect((await index(url)).entries.a?.[0]?.digest).toBe('0'.repeat(64));
      await addChart('a-1.0.0.tgz', Buffer.from('other'), { metadata });
      expect((await index(url)).entries.a).toHaveLength(1);
      expect((await index(url)).entries.a?.[0]?.digest).toBe(hex(Buffer.from('other')));
      expect((await fetch(`${url}/charts/a-1.0.0.tgz.prov`)).status).toBe(404);
    }));

  it('refuses an archive that it cannot read, and names that are no archive', () =>
    withRegistry({}, async ({ addChart, addFile }) => {
      await expect(addChart('a-1.tgz', Buffer.from('junk'))).rejects.toMatchObject({
        code: 'CHART_ARCHIVE_INVALID',
      });
      const metadata = { name: 'a', version: '1' };
      for (const name of ['../a.tgz', 'a/b.tgz', '.a.tgz', 'index.yaml', '']) {
        await expect(addChart(name, Buffer.alloc(0), { metadata })).rejects.toMatchObject({ code: 'USAGE' });
      }
      for (const name of ['../x', '/x', 'a//b', '.x', 'a/..', '']) {
        expect(() => addFile(name, 'x')).toThrow(expect.objectContaining({ code: 'USAGE' }));
      }
    }));

  it('is read only', () =>
    withRegistry({}, async ({ url }) => {
      const answer = await fetch(`${url}/charts/a-1.0.0.tgz`, { method: 'PUT', body: 'x' });
      expect(answer.status).toBe(405);
      expect(answer.headers.get('allow')).toBe('GET, HEAD');
    }));
});

describe('files', () => {
  it('from memory and from the disk come whole and in parts', () =>
    withRegistry({}, async ({ url, addFile }) => {
      const dir = await mkdtemp(join(tmpdir(), 'sealift-files-'));
      try {
        await writeFile(join(dir, 'kubectl'), '0123456789');
        await writeFile(join(dir, 'empty'), '');
        addFile('bin/kubectl', { path: join(dir, 'kubectl') });
        addFile('empty', { path: join(dir, 'empty') });
        addFile('note.txt', '0123456789');
        for (const name of ['bin/kubectl', 'note.txt']) {
          const whole = await fetch(`${url}/files/${name}`);
          expect(whole.headers.get('accept-ranges')).toBe('bytes');
          expect(await whole.text()).toBe('0123456789');
          const part = await fetch(`${url}/files/${name}`, { headers: { range: 'bytes=7-' } });
          expect(part.status).toBe(206);
          expect(part.headers.get('content-range')).toBe('bytes 7-9/10');
          expect(await part.text()).toBe('789');
          const head = await fetch(`${url}/files/${name}`, { method: 'HEAD' });
          expect(head.headers.get('content-length')).toBe('10');
          expect((await fetch(`${url}/files/${name}`, { headers: { range: 'bytes=10-' } })).status).toBe(416);
        }
        expect(await (await fetch(`${url}/files/empty`)).text()).toBe('');
        expect((await fetch(`${url}/files/bin`)).status).toBe(404);
      } finally {
        await rm(dir, { recursive: true, force: true });
      }
    }));
});
