import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Event } from '../../src/core/events.ts';
import { HttpClient } from '../../src/io/http.ts';
import { digestOf } from '../../src/io/verify.ts';
import { Registry } from '../../src/oci/registry.ts';
import { type LoadOptions, load } from '../../src/ops/load.ts';
import { merge } from '../../src/ops/merge.ts';
import { type UnloadOptions, type UnloadResult, unload } from '../../src/ops/unload.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, type Packed, packSite, placeOf, type Site } from '../bundle/site.ts';

let site: Site;
let all: Packed;
/** Of the first image alone. */
let first: Packed;
let target: RunningRegistry;
let http: HttpClient;
let registry: Registry;
let run = 0;
let dir: string;

beforeAll(async () => {
  site = await openSite();
  all = await packSite(site);
  await site.lockFor(site.images.slice(0, 1));
  first = await packSite(site, 'first.tar');
  await site.lockFor();
});
afterAll(() => site.close());

beforeEach(async () => {
  run += 1;
  dir = site.path(`run-${run}`);
  await mkdir(dir);
  target = await startRegistry({ storage: 'memory' });
  http = new HttpClient(contextOf());
  registry = new Registry(target.host, { http, context: contextOf() });
});
afterEach(async () => {
  await http.close();
  await target.close();
});

let clocks = 0;

/** Later than any load before it, as its receipt tells. */
function clock(): ReturnType<typeof contextOf> {
  clocks += 1;
  const at = Date.parse('2026-11-01T00:00:00Z') + clocks * 1000;
  return { ...contextOf(), now: () => at };
}

const loadOnto = (bundle: string, receipt: string, more: Partial<LoadOptions> = {}) =>
  load({ bundle, registries: [placeOf(target)], receiptPath: `${dir}/${receipt}`, ...more }, clock());

const unloaded = (receipt: string, more: Partial<UnloadOptions> = {}): Promise<UnloadResult> =>
  unload({ receiptPath: `${dir}/${receipt}`, ...more }, contextOf());

/** Every tag of the target with its digest. */
async function tagsThere(): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const repository of await registry.listRepositories()) {
    for (const tag of await registry.listTags(repository)) {
      found[`${repository}:${tag}`] = String(await registry.resolve(repository, tag));
    }
  }
  return found;
}

const states = (result: UnloadResult): string[] => result.targets.flatMap((t) => t.items.map((i) => i.state));

describe('unload', () => {
  it('takes back from a registry what the load added, with every manifest', async () => {
    const result = await loadOnto(all.path, 'r.json');
    expect(result.failed).toBe(0);
    const manifests = result.targets.flatMap((t) =>
      t.entries.flatMap((e) => [e.content, ...(e.added?.manifests ?? [])].map((d) => [e.as, d] as const)),
    );
    expect(manifests.length).toBeGreaterThan(6);
    const done = await unloaded('r.json');
    expect(done.failed).toBe(0);
    expect(new Set(states(done))).toEqual(new Set(['removed']));
    expect(await tagsThere()).toEqual({});
    for (const [as, digest] of manifests) {
      const [repository = ''] = as.slice(target.host.length + 1).split(':');
      expect(await registry.resolve(repository, digest)).toBeUndefined();
    }
  });

  it('only tells what it would take back in a dry run', async () => {
    await loadOnto(all.path, 'r.json');
    const [before, text] = [await tagsThere(), await readFile(`${dir}/r.json`, 'utf8')];
    const done = await unloaded('r.json', { dryRun: true });
    expect(new Set(states(done))).toEqual(new Set(['remove']));
    expect(await tagsThere()).toEqual(before);
    expect(await readFile(`${dir}/r.json`, 'utf8')).toBe(text);
  });

  it('leaves what was there before the load', async () => {
    await loadOnto(first.path, 'other.json');
    const before = await tagsThere();
    await loadOnto(all.path, 'r.json', { allowDowngrade: true });
    expect(Object.keys(await tagsThere()).length).toBeGreaterThan(Object.keys(before).length);
    const done = await unloaded('r.json');
    expect(done.failed).toBe(0);
    expect(await tagsThere()).toEqual(before);
  });

  it('leaves what a later load counts on, by the receipt beside it or one that is named', async () => {
    await loadOnto(all.path, 'r.json');
    await mkdir(`${dir}/far`);
    await loadOnto(first.path, 'far/later.json', { allowDowngrade: true });
    const [image] = site.images;
    const done = await unloaded('r.json', { later: [`${dir}/far/later.json`] });
    const kept = done.targets.flatMap((t) => t.items.filter((i) => i.state === 'kept'));
    expect(kept.map((i) => i.item.kind).sort()).toEqual(['chart', 'file', 'file', 'image']);
    expect(Object.keys(await tagsThere())).toContain(`${image?.name}:${image?.tag}`);
    expect(Object.keys(await tagsThere()).length).toBe(4);
    const again = await load({ bundle: first.path, registries: [placeOf(target)] }, contextOf());
    expect(again.targets[0]?.entries.map((e) => e.state)).toEqual(Array(4).fill('present'));
  });

  it('leaves what a load in between counts on, also when the first bundle was loaded again', async () => {
    await loadOnto(all.path, 'r.json');
    await loadOnto(first.path, 'between.json');
    await loadOnto(all.path, 'r.json', { allowDowngrade: true });
    const done = await unloaded('r.json');
    expect(done.later.map((path) => path.split('/').at(-1))).toEqual(['between.json']);
    const again = await load({ bundle: first.path, registries: [placeOf(target)] }, contextOf());
    expect(again.targets[0]?.entries.map((e) => e.state)).toEqual(Array(4).fill('present'));
    expect(states(done).filter((state) => state === 'kept').length).toBe(4);
  });

  it('leaves content that a later load counts on under another name', async () => {
    await loadOnto(all.path, 'r.json');
    const [image] = site.images;
    const { name = '', tag = '' } = image ?? {};
    const { descriptor } = await registry.getManifest(name, tag);
    // As if a later bundle had the same image under another tag, which somebody took away since.
    const later = JSON.parse(await readFile(`${dir}/r.json`, 'utf8'));
    const entry = later.targets[0].entries.find((e: { as: string }) => e.as.endsWith(`${name}:${tag}`));
    later.targets[0].entries = [{ ...entry, as: `${target.host}/${name}@${descriptor.digest}`, added: null }];
    later.start = '2027-01-01T00:00:00.000Z';
    await writeFile(`${dir}/later.json`, JSON.stringify(later));
    expect((await unloaded('r.json')).failed).toBe(0);
    expect(await registry.resolve(name, descriptor.digest)).toBe(descriptor.digest);
  });

  it('keeps the protection against downgrades while anything of the bundle is there', async () => {
    const files = `${dir}/files`;
    await loadOnto(all.path, 'r.json', { files: [files] });
    const name = `registry ${target.host}`;
    await unloaded('r.json', { targets: [name] });
    expect(JSON.parse(await readFile(`${dir}/r.json`, 'utf8')).unloaded).toBeUndefined();
    await unloaded('r.json');
    expect(JSON.parse(await readFile(`${dir}/r.json`, 'utf8')).unloaded).toBeDefined();
  });

  it('never deletes a manifest that was there before, to be rid of a tag', async () => {
    const [image] = site.images;
    const { name = '', tag = '' } = image ?? {};
    await loadOnto(first.path, 'before.json');
    const { descriptor } = await registry.getManifest(name, tag);
    await registry.deleteManifest(name, tag);
    expect(await registry.resolve(name, descriptor.digest)).toBe(descriptor.digest);
    await rm(`${dir}/before.json`);
    const result = await loadOnto(all.path, 'r.json');
    const entry = result.targets[0]?.entries.find((e) => e.as.endsWith(`${name}:${tag}`));
    expect(entry?.added).toEqual({ names: [tag], manifests: [] });
    expect((await unloaded('r.json')).failed).toBe(0);
    expect(await registry.resolve(name, tag)).toBeUndefined();
    expect(await registry.resolve(name, descriptor.digest)).toBe(descriptor.digest);
  });

  it('leaves what is something else by now', async () => {
    await loadOnto(all.path, 'r.json');
    const [one, two] = site.images;
    const other = await registry.getManifest(two?.name ?? '', two?.tag ?? '');
    // As if somebody had pushed the tag anew.
    const bytes = Buffer.from(other.bytes.toString('utf8').replace('{', '{ '));
    const descriptor = { ...other.descriptor, digest: digestOf(bytes), size: bytes.length };
    await registry.putManifest(two?.name ?? '', two?.tag ?? '', { bytes, descriptor });
    const done = await unloaded('r.json');
    expect(done.failed).toBe(0);
    const changed = done.targets.flatMap((t) => t.items.filter((i) => i.state === 'changed'));
    expect(changed.map((i) => i.item.as)).toEqual([`${target.host}/${two?.name}:${two?.tag}`]);
    expect(Object.keys(await tagsThere())).toEqual([`${two?.name}:${two?.tag}`]);
    expect(await registry.resolve(one?.name ?? '', one?.tag ?? '')).toBeUndefined();
  });

  it('leaves a manifest that another tag leads to', async () => {
    await loadOnto(all.path, 'r.json');
    const [image] = site.images;
    const { name = '', tag = '' } = image ?? {};
    const content = await registry.getManifest(name, tag);
    await registry.putManifest(name, 'mine', content);
    const done = await unloaded('r.json');
    expect(done.failed).toBe(0);
    expect(await tagsThere()).toEqual({ [`${name}:mine`]: content.descriptor.digest });
    const again = await load({ bundle: all.path, registries: [placeOf(target)], only: [name] }, contextOf());
    expect(again.targets[0]?.tally).toMatchObject({ manifestsWritten: 0, blobsWritten: 0 });
  });

  it('knows what a stopped load put there, and what the one that went on found there', async () => {
    const stop = new AbortController();
    const events: Event[] = [];
    const context = contextOf({ signal: stop.signal, events });
    const emit = (event: Event): void => {
      context.emit(event);
      if (event.type === 'phase' && event.name === 'names') setImmediate(() => stop.abort());
    };
    const options = { bundle: all.path, registries: [placeOf(target)], receiptPath: `${dir}/r.json` };
    await load(options, { ...context, emit }).catch(() => {});
    expect((await load(options, contextOf())).failed).toBe(0);
    const done = await unloaded('r.json');
    expect(done.failed).toBe(0);
    expect(await tagsThere()).toEqual({});
  });

  it('takes back nothing twice, and then the receipt holds nobody to anything', async () => {
    await loadOnto(all.path, 'r.json');
    await unloaded('r.json');
    const again = await unloaded('r.json');
    expect(states(again)).toEqual([]);
    const older = await loadOnto(first.path, 'r.json');
    expect(older.failed).toBe(0);
  });

  it('takes charts and files out of folders where nobody changed them', async () => {
    const [tree, files] = [`${dir}/tree`, `${dir}/files`];
    const options = { bundle: all.path, chartTrees: [tree], files: [files] };
    await load({ ...options, receiptPath: `${dir}/r.json` }, clock());
    await writeFile(`${files}/notes.txt`, 'mine');
    const done = await unloaded('r.json');
    expect(done.failed).toBe(0);
    expect(await readdir(tree)).toEqual([]);
    expect(await readdir(files)).toEqual(['bin', 'notes.txt']);
    expect(await readdir(`${files}/bin`)).toEqual([]);
    expect(await readFile(`${files}/notes.txt`, 'utf8')).toBe('mine');
  });

  it('never goes out of the folder that a receipt names', async () => {
    const files = `${dir}/files`;
    await load({ bundle: all.path, files: [files], receiptPath: `${dir}/r.json` }, clock());
    const outside = `${dir}/outside.txt`;
    await writeFile(outside, await readFile(`${files}/notes.txt`));
    const text = await readFile(`${dir}/r.json`, 'utf8');
    await writeFile(`${dir}/r.json`, text.replaceAll(`${files}/notes.txt`, `${files}/../outside.txt`));
    const done = await unloaded('r.json');
    expect(done.failed).toBe(1);
    expect(await readdir(dir)).toContain('outside.txt');
  });

  it('says how a registry that does not delete can be told to', async () => {
    await loadOnto(all.path, 'r.json');
    const text = await readFile(`${dir}/r.json`, 'utf8');
    const proxy = createServer((req, res) => {
      if (req.method === 'DELETE') {
        res.writeHead(405).end('{"errors":[{"code":"UNSUPPORTED"}]}');
        return;
      }
      void fetch(`http://${target.host}${req.url}`, {
        method: req.method ?? 'GET',
        headers: { accept: req.headers.accept ?? '*/*' },
      }).then(async (answer) => {
        const headers = Object.fromEntries(answer.headers);
        delete headers['transfer-encoding'];
        res.writeHead(answer.status, headers).end(Buffer.from(await answer.arrayBuffer()));
      });
    });
    await new Promise<void>((done) => proxy.listen(0, '127.0.0.1', done));
    const address = proxy.address();
    const host = `127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
    await writeFile(`${dir}/r.json`, text.replaceAll(target.host, host));
    try {
      const done = await unloaded('r.json');
      expect(done.failed).toBe(6);
      const [item] = done.targets[0]?.items ?? [];
      expect(item?.fault).toMatchObject({ code: 'TARGET_FAILED' });
      expect(item?.fault?.hint).toContain('REGISTRY_STORAGE_DELETE_ENABLED=true');
    } finally {
      proxy.closeAllConnections();
      await new Promise((done) => proxy.close(done));
    }
  });

  it('refuses what is no receipt', async () => {
    await writeFile(`${dir}/r.json`, '{"kind":"receipt"}');
    await expect(unloaded('r.json')).rejects.toMatchObject({ code: 'USAGE' });
    await expect(unloaded('none.json')).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    await merge({ out: `${dir}/copy.tar`, bundles: [all.path] }, contextOf());
    await loadOnto(`${dir}/copy.tar`, 'good.json');
    await expect(unloaded('good.json', { targets: ['nexus'] })).rejects.toMatchObject({ code: 'USAGE' });
  });
});
