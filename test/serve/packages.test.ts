import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeWheel, packPackages } from '../support/packages.ts';
import { serveBundles } from './bundle-site.ts';

const JSON_TYPE = 'application/vnd.pypi.simple.v1+json';
const alpha = makeWheel('alpha-lib', '1.0', { requiresPython: '>=3.8,<4', yanked: 'say "why" <b>' });
const next = makeWheel('alpha-lib', '2.0', { yanked: '' });
const plain = makeWheel('alpha-lib', '3.0');

let dir: string;
let bundle: string;
let serving: Awaited<ReturnType<typeof serveBundles>>;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-packages-'));
  const file = (name: string, { lock }: typeof plain) => {
    const source = { path: `wheels/${lock.file}` };
    return { name, source, size: lock.size, sha256: lock.sha256, mode: '0644' };
  };
  // The third is carried as a plain file.
  await packPackages(join(dir, 'w'), [alpha, next, plain]);
  bundle = await packPackages(join(dir, 'w'), [alpha, next], {
    files: [file(`wheels/${plain.lock.file}`, plain), file(`other/${alpha.lock.file}`, next)],
  });
  serving = await serveBundles([bundle]);
});

afterAll(async () => {
  await serving.close();
  await rm(dir, { recursive: true, force: true });
});

const get = (path: string, accept = '*/*'): Promise<Response> =>
  fetch(`${serving.url}${path}`, { headers: { accept } });

interface List {
  readonly versions: readonly string[];
  readonly files: readonly { readonly url: string }[];
}

/** What the index answers: it is proved by what the tests compare. */
const listOf = async (answer: Response): Promise<List> => (await answer.json()) as List;

describe('Python packages of a bundle that is served', () => {
  it('are in the index beside wheels that are plain files, with what their publishers said', async () => {
    expect([serving.packages, serving.files]).toEqual([2, 2]);
    const told = serving.context.events.flatMap((e) => (e.type === 'warning' ? e.fault.message : []));
    expect(told.join()).toContain(`the Python index has packages/${alpha.lock.file}, not files/other/`);
    const listed = await listOf(await get('/simple/alpha-lib/', JSON_TYPE));
    const hashes = ({ lock }: typeof plain) => ({ sha256: lock.sha256.slice(7) });
    const at = (folder: string, { lock }: typeof plain) => ({
      filename: lock.file,
      url: `../../${folder}/${lock.file}`,
      size: lock.size,
    });
    expect(listed.files).toEqual([
      {
        ...at('packages', alpha),
        hashes: hashes(alpha),
        'requires-python': '>=3.8,<4',
        yanked: 'say "why" <b>',
      },
      { ...at('packages', next), hashes: hashes(next), yanked: true },
      { ...at('files/wheels', plain), hashes: hashes(plain) },
    ]);
    expect(listed.versions).toEqual(['1.0', '2.0', '3.0']);
    const page = await (await get('/simple/alpha-lib/')).text();
    expect(page).toContain(
      ' data-requires-python="&gt;=3.8,&lt;4" data-yanked="say &quot;why&quot; &lt;b&gt;">alpha_lib-1.0-py3',
    );
    expect(page).toContain(' data-yanked="">alpha_lib-2.0-py3');
    expect(page).toMatch(/#sha256=[0-9a-f]{64}">alpha_lib-3\.0-py3/);
  });

  it('have their bytes under both spellings of the project', async () => {
    for (const project of ['alpha-lib', 'Alpha.Lib']) {
      const index = await get(`/simple/${project}/`, JSON_TYPE);
      const { files } = await listOf(index);
      const answer = await fetch(new URL(files[0]?.url ?? '', index.url));
      expect(Buffer.from(await answer.arrayBuffer()).equals(alpha.bytes)).toBe(true);
    }
    expect((await get('/packages/other-1.0.tar.gz')).status).toBe(404);
    expect((await get('/packages/')).status).toBe(404);
    expect(serving.text).toContain(`pip install --index-url ${serving.url}/simple/ alpha-lib`);
  });

  it('of which two bundles have other bytes are refused', async () => {
    const other = makeWheel('alpha-lib', '1.0', { requires: ['x'] });
    const second = await packPackages(join(dir, 'o'), [other], { version: '2' });
    await expect(serveBundles([bundle, second])).rejects.toMatchObject({ code: 'TARGET_NAME_COLLISION' });
  });
});
