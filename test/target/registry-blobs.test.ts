/** What a load asks a registry about blobs, and what it makes of the answers. */
import { beforeEach, describe, expect, it } from 'vitest';
import { Registry } from '../../src/oci/registry.ts';
import { type BlobWorks, planBlobs } from '../../src/target/registry-blobs.ts';
import type { PlacedEntry } from '../../src/target/registry-plan.ts';
import { newEntry } from '../../src/target/target.ts';
import { type Answer, startServer, testClient, testContext } from '../io/server.ts';
import { createStore, makeImage, type Store } from './containerd-fixture.ts';

let store: Store;

beforeEach(() => {
  store = createStore();
});

/** An image of one platform with these layers, and one of its own, all of so many bytes. */
async function placed(
  repository: string,
  options: { readonly layers?: readonly string[]; readonly size?: number; readonly isNew?: boolean },
): Promise<PlacedEntry> {
  const { layers = [], size = 1000, isNew = false } = options;
  const ref = `a.test/${repository}:${layers.join('.') || 'own'}`;
  const image = await makeImage(store, ref, { layers, layerSize: size, platforms: ['linux/amd64'] });
  const place = { repository, tag: '1' };
  return { ...newEntry(image, ref), place, accepted: [image.root.digest], isNew };
}

/** What was asked (`repository digest`) while this was planned; `has` says what is there. */
async function planned(
  entries: readonly PlacedEntry[],
  has: (repository: string, digest: string) => number,
): Promise<{ works: BlobWorks; asked: string[] }> {
  const asked: string[] = [];
  const answer: Answer = ({ url = '' }, response) => {
    const [, repository = '', digest = ''] = /^\/v2\/(.+)\/blobs\/(.+)$/.exec(url) ?? [];
    if (digest === '') {
      const errors = [{ code: 'NAME_UNKNOWN', message: 'no' }];
      return response.writeHead(404, { 'content-type': 'application/json' }).end(JSON.stringify({ errors }));
    }
    asked.push(`${repository} ${digest}`);
    return response.writeHead(has(repository, digest), { 'content-length': 0 }).end();
  };
  const { host } = await startServer(answer);
  const context = testContext();
  const registry = new Registry(host, { http: testClient(context), context, config: { plainHttp: true } });
  return { works: await planBlobs(entries, { registry, signal: context.signal }), asked };
}

const sizesOf = (entry: PlacedEntry): number =>
  [...entry.item.graph.nodes.values()]
    .filter(({ kind }) => kind === 'config' || kind === 'blob')
    .reduce((sum, { descriptor }) => sum + descriptor.size, 0);

describe('blobs of a load', () => {
  it('are asked for once in each repository, however many entries of it use them', async () => {
    const entries = [
      await placed('one', { layers: ['base'] }),
      await placed('one', { layers: ['base', 'more'] }),
      await placed('two', { layers: ['base'] }),
    ];
    const { works, asked } = await planned(entries, () => 404);
    expect(new Set(asked).size).toBe(asked.length);
    const base = works
      .inOrder()
      .map((blob) => works.at(blob))
      .filter(({ users }) => users.length === 3);
    expect(base).toMatchObject([{ wanted: ['one', 'two'], present: [], users: entries }]);
  });

  it('are sent largest first', async () => {
    const entries = [
      await placed('small', { size: 10 }),
      await placed('large', { size: 5000 }),
      await placed('middle', { size: 700 }),
    ];
    const { works } = await planned(entries, () => 404);
    const sizes = works.inOrder().map((blob) => works.at(blob).descriptor.size);
    expect(sizes).toEqual(sizes.toSorted((a, b) => b - a));
    expect(new Set(sizes).size).toBeGreaterThan(2);
  });

  it('that several use count for the first, as there where one repository has them', async () => {
    const [one, two, three] = [
      await placed('b', { layers: ['base'] }),
      await placed('a', { layers: ['base'] }),
      await placed('b', { layers: ['base', 'more'] }),
    ];
    // The own layer and the config of each, and the base once.
    const own = [sizesOf(one) - 1000, sizesOf(two) - 1000, sizesOf(three) - 1000];
    await planned([one, two, three], () => 404);
    expect([one, two, three].map((e) => e.writeBytes)).toEqual([(own[0] ?? 0) + 1000, own[1], own[2]]);

    const again = [await placed('b', { layers: ['base'] }), await placed('a', { layers: ['base'] })];
    const base = [...one.item.graph.nodes.keys()].find((d) => two.item.graph.nodes.has(d));
    const { works } = await planned(again, (repository, digest) =>
      repository === 'a' && digest === base ? 200 : 404,
    );
    expect(again.map((e) => e.presentBytes)).toEqual([1000, 0]);
    const shared = works
      .inOrder()
      .map((blob) => works.at(blob))
      .filter(({ users }) => users.length === 2);
    expect(shared).toMatchObject([{ present: ['a'], wanted: ['b'] }]);
  });

  it('that one repository does not tell of fail what goes there, and nothing else', async () => {
    const entries = [
      await placed('open', { layers: ['base'] }),
      await placed('closed', { layers: ['base'] }),
      await placed('open', { layers: ['base', 'more'] }),
    ];
    await planned(entries, (repository) => (repository === 'closed' ? 403 : 404));
    expect(entries.map((e) => e.state)).toEqual(['write', 'failed', 'write']);
  });

  it('are asked for in repositories that are not there only as long as nothing is: the largest ten', async () => {
    const sizes = Array.from({ length: 15 }, (_, i) => 100 + 50 * ((i * 7) % 15));
    const entries = await Promise.all(sizes.map((size, i) => placed(`new-${i}`, { size, isNew: true })));
    const { works, asked } = await planned(entries, () => 404);
    const largest = works
      .inOrder()
      .slice(0, 10)
      .map((blob) => works.at(blob).descriptor.digest);
    expect(asked.map((one) => one.split(' ')[1]).sort()).toEqual(largest.toSorted());
    expect(works.inOrder().every((blob) => works.at(blob).wanted.length === 1)).toBe(true);
    const found = await planned(entries, (_, digest) => (digest === largest[9] ? 200 : 404));
    expect(found.asked.length).toBe(works.inOrder().length);
  });
});
