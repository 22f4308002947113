import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { type LoadResult, load } from '../../src/ops/load.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { makeSite, placeOf, type Site, testContext } from '../support/bundles.ts';
import { demoFiles } from '../support/charts.ts';
import { type FleetImage, makeFleet, makeImage, pushImage } from '../support/fleet.ts';

let site: Site;
let target: RunningRegistry;

async function digestAt(registry: RunningRegistry, repository: string, tag: string): Promise<string | null> {
  const response = await fetch(`${registry.url}/v2/${repository}/manifests/${tag}`, {
    method: 'HEAD',
    headers: { accept: '*/*' },
  });
  return response.headers.get('docker-content-digest');
}

function entriesOf(result: LoadResult): LoadResult['targets'][number]['entries'] {
  return result.targets.flatMap((t) => t.entries);
}

beforeEach(async () => {
  site = await makeSite();
  target = await startRegistry({ storage: 'memory' });
});

afterEach(async () => {
  await target.close();
  await site.close();
});

describe('an image of which some platforms are carried (registry.md 1.6)', () => {
  const manifest = (ref: string, platforms: string): string =>
    `images:\n  - {ref: "${ref}", platforms: ${platforms}}\n`;
  let image: FleetImage;
  let ref: string;

  beforeEach(async () => {
    image = makeImage({ platforms: ['linux/amd64', 'linux/arm64', 'linux/s390x'], kinds: ['oci'], seed: 5 });
    ref = await site.addImage(image);
  });

  it('[1.6-single, 1.6-refusal] becomes its single manifest on a registry that refuses sparse indexes, when one is carried', async () => {
    const bundle = await site.bundle('one', manifest(ref, '[linux/arm64]'));
    const [entry] = entriesOf(await load({ bundle, registries: [placeOf(target)] }, testContext()));
    expect(entry?.pushedDigest).toBe(image.platforms['linux/arm64']);
    expect(await digestAt(target, image.name, image.tag)).toBe(image.platforms['linux/arm64']);
  });

  /** A registry that answers the original index in its own way, and what was put there of manifests. */
  async function answeringIndex(
    status: number,
    body: string,
  ): Promise<{ registry: RunningRegistry; put: string[] }> {
    const put: string[] = [];
    const registry = await startRegistry({
      storage: 'memory',
      intercept: (request, response) => {
        if (request.method !== 'PUT' || request.url?.includes('/manifests/') !== true) return false;
        const reference = request.url.split('/').at(-1) ?? '';
        put.push(reference);
        if (reference !== image.index.digest) return false;
        request.resume();
        response.writeHead(status).end(body);
        return true;
      },
    });
    onTestFinished(() => registry.close());
    return { registry, put };
  }

  const errors = (code: string): string => JSON.stringify({ errors: [{ code, message: 'no' }] });

  it.each([
    [400, errors('MANIFEST_BLOB_UNKNOWN')],
    [404, errors('BLOB_UNKNOWN')],
    [404, errors('MANIFEST_UNKNOWN')],
    [400, errors('MANIFEST_INVALID')],
  ])('[1.6-refusal] becomes a filtered index where it is refused with HTTP %i %s', async (status, body) => {
    const bundle = await site.bundle('absent', manifest(ref, '[linux/amd64, linux/arm64]'));
    const { registry } = await answeringIndex(status, body);
    const [entry] = entriesOf(await load({ bundle, registries: [placeOf(registry)] }, testContext()));
    expect(entry?.state).toBe('written');
    expect(await digestAt(registry, image.name, image.tag)).toBe(entry?.pushedDigest);
  });

  it.each([
    [400, errors('TAG_INVALID')],
    [400, '<html>bad request</html>'],
    [403, errors('MANIFEST_BLOB_UNKNOWN')],
    [413, errors('SIZE_INVALID')],
    [500, errors('MANIFEST_INVALID')],
  ])('[1.6-refusal] becomes nothing else where it is refused with HTTP %i %s', async (status, body) => {
    const bundle = await site.bundle('other', manifest(ref, '[linux/amd64, linux/arm64]'));
    const { registry, put } = await answeringIndex(status, body);
    const [entry] = entriesOf(await load({ bundle, registries: [placeOf(registry)] }, testContext()));
    expect(entry?.state).toBe('failed');
    expect(entry?.fault?.message).toContain(`HTTP ${status}`);
    const carried = ['linux/amd64', 'linux/arm64'].map((p) => image.platforms[p]);
    expect(put.filter((reference) => reference !== image.index.digest).sort()).toEqual(carried.sort());
  });

  it('[1.6-filtered] becomes a filtered index there when several are carried, the same one every time', async () => {
    const bundle = await site.bundle('two', manifest(ref, '[linux/amd64, linux/arm64]'));
    const [entry] = entriesOf(await load({ bundle, registries: [placeOf(target)] }, testContext()));
    const response = await fetch(`${target.url}/v2/${image.name}/manifests/${image.tag}`);
    const pushed = await response.text();
    expect(pushed).not.toContain('s390x');
    expect(entry?.digest).toBe(image.index.digest);
    expect(entry?.pushedDigest).toBe(response.headers.get('docker-content-digest'));
    const other = await startRegistry({ storage: 'memory' });
    try {
      await load({ bundle, registries: [placeOf(other)] }, testContext());
      expect(await (await fetch(`${other.url}/v2/${image.name}/manifests/${image.tag}`)).text()).toBe(pushed);
    } finally {
      await other.close();
    }
  });

  it('[1.6-sparse] keeps its original index on a registry that takes it', async () => {
    const lenient = await startRegistry({ storage: 'memory', acceptSparse: true });
    try {
      const bundle = await site.bundle('lenient', manifest(ref, '[linux/amd64]'));
      const [entry] = entriesOf(await load({ bundle, registries: [placeOf(lenient)] }, testContext()));
      expect(entry?.pushedDigest).toBeNull();
      expect(await digestAt(lenient, image.name, image.tag)).toBe(image.index.digest);
    } finally {
      await lenient.close();
    }
  });

  it('counts as present whichever of the three it was loaded as', async () => {
    const bundle = await site.bundle('again', manifest(ref, '[linux/amd64]'));
    for (const indexPolicy of ['single', 'filtered'] as const) {
      await load(
        { bundle, registries: [placeOf(target, { indexPolicy, prefix: indexPolicy })] },
        testContext(),
      );
      const sent = target.requests.length;
      const again = await load(
        { bundle, registries: [placeOf(target, { prefix: indexPolicy })] },
        testContext(),
      );
      expect(entriesOf(again).map((e) => e.state)).toEqual(['present']);
      expect(target.requests.slice(sent).filter((r) => r.method === 'PUT' || r.method === 'POST')).toEqual(
        [],
      );
    }
  });

  it("[1.6-preserve] fails with the registry's own words when only the original may be sent", async () => {
    const bundle = await site.bundle('only', manifest(ref, '[linux/amd64]'));
    const result = await load(
      { bundle, registries: [placeOf(target, { indexPolicy: 'original' })] },
      testContext(),
    );
    expect(result.failed).toBe(1);
    expect(entriesOf(result)[0]?.fault?.message).toContain('MANIFEST_BLOB_UNKNOWN');
    expect(await digestAt(target, image.name, image.tag)).toBeNull();
  });

  it('is completed when the registry has the same index with other platforms only', async () => {
    const lenient = await startRegistry({ storage: 'memory', acceptSparse: true });
    try {
      const one = await site.bundle('first', manifest(ref, '[linux/amd64]'));
      const two = await site.bundle('second', manifest(ref, '[linux/amd64, linux/arm64]'));
      await load({ bundle: one, registries: [placeOf(lenient)] }, testContext());
      const result = await load({ bundle: two, registries: [placeOf(lenient)] }, testContext());
      expect(entriesOf(result).map((e) => e.state)).toEqual(['written']);
      const arm = image.platforms['linux/arm64'] ?? '';
      expect(await digestAt(lenient, image.name, arm)).toBe(arm);
    } finally {
      await lenient.close();
    }
  });

  it('is written anew in the form that a policy forces', async () => {
    const bundle = await site.bundle('forced', manifest(ref, '[linux/amd64]'));
    await load({ bundle, registries: [placeOf(target)] }, testContext());
    const filtered = placeOf(target, { indexPolicy: 'filtered' });
    const result = await load({ bundle, registries: [filtered] }, testContext());
    expect(entriesOf(result).map((e) => e.state)).toEqual(['written']);
    expect(await digestAt(target, image.name, image.tag)).toBe(entriesOf(result)[0]?.pushedDigest);
    expect(entriesOf(result)[0]?.pushedDigest).not.toBe(image.platforms['linux/amd64']);
  });

  it('drops a nested index below which nothing is carried', async () => {
    const nested = makeImage({
      platforms: ['linux/amd64', 'linux/arm64'],
      kinds: ['nested'],
      seed: 6,
      prefix: 'nested/',
    });
    const nestedRef = await site.addImage(nested);
    const bundle = await site.bundle('nested', manifest(nestedRef, '[linux/amd64]'));
    const filtered = placeOf(target, { indexPolicy: 'filtered' });
    const result = await load({ bundle, registries: [filtered] }, testContext());
    expect(result.failed).toBe(0);
    const index: unknown = await (
      await fetch(`${target.url}/v2/${nested.name}/manifests/${nested.tag}`)
    ).json();
    expect(index).toMatchObject({ manifests: [{ digest: nested.platforms['linux/amd64'] }] });
  });
});

describe('names on a registry', () => {
  it('lose the source host, keep it on request, and go below a prefix', async () => {
    const image = makeImage({ seed: 8 });
    const ref = await site.addImage(image);
    const bundle = await site.bundle('names', `platforms: all\nimages: ["${ref}"]\n`);
    await load(
      { bundle, registries: [placeOf(target), placeOf(target, { prefix: 'a/b', naming: 'keep-host' })] },
      testContext(),
    );
    const kept = `a/b/${site.source.host.replace(':', '_')}/${image.name}`;
    for (const repository of [image.name, kept]) {
      expect(await digestAt(target, repository, image.tag)).toBe(image.index.digest);
    }
  });

  it('given twice are a mistake that is told', async () => {
    const bundle = await site.bundle(
      'twice',
      `images: ["${await site.addImage(makeImage({ seed: 16 }))}"]\n`,
    );
    const twice = load({ bundle, registries: [placeOf(target), placeOf(target)] }, testContext());
    await expect(twice).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('that two different images would share are refused before anything is written', async () => {
    const other = await startRegistry({ storage: 'memory' });
    try {
      const [a, b] = [makeImage({ seed: 1 }), makeImage({ seed: 2 })];
      const refA = await site.addImage(a);
      await pushImage(other.host, b, { repository: a.name, tag: a.tag });
      const refs = `["${refA}", "${other.host}/${a.name}:${a.tag}"]`;
      const bundle = await site.bundle('collide', `platforms: all\nimages: ${refs}\n`);
      const failure = await load({ bundle, registries: [placeOf(target)] }, testContext()).catch(
        (e: unknown) => e,
      );
      expect(failure).toBeInstanceOf(SealiftError);
      expect(failure).toMatchObject({ code: 'TARGET_NAME_COLLISION' });
      expect(target.requests).toEqual([]);
      const kept = await load(
        { bundle, registries: [placeOf(target, { naming: 'keep-host' })] },
        testContext(),
      );
      expect(kept.failed).toBe(0);
    } finally {
      await other.close();
    }
  });

  it('of charts and files are those that helm and oras look for', async () => {
    await site.addChart('web', '1.2.3+4', demoFiles('web', '1.2.3+4'));
    await site.put('artifacts/bin/Tool_X', 'bytes\n');
    const bundle = await site.bundle(
      'artifacts',
      `charts:\n  - {name: web, version: 1.2.3+4, repo: "${site.source.url}/charts"}\nfiles:\n  - {path: bin/Tool_X, name: bin/Tool_X}\n`,
    );
    const result = await load({ bundle, registries: [placeOf(target)] }, testContext());
    expect(result.failed).toBe(0);
    expect(entriesOf(result).map((e) => e.as.replace(`${target.host}/`, ''))).toEqual([
      'charts/web:1.2.3_4',
      'files/bin/tool_x:95cc8e8ec552',
    ]);
    const manifest: unknown = await (
      await fetch(`${target.url}/v2/files/bin/tool_x/manifests/95cc8e8ec552`)
    ).json();
    expect(manifest).toMatchObject({
      layers: [{ annotations: { 'org.opencontainers.image.title': 'Tool_X' } }],
    });
  });
});

describe('blobs on a registry', () => {
  it('[1.4-2-mount] that two images share are uploaded once and mounted into the second repository', async () => {
    const images = makeFleet({ images: 2, sharedBases: 1, kinds: ['oci'], seed: 3 });
    const refs: string[] = [];
    for (const image of images) refs.push(await site.addImage(image));
    const bundle = await site.bundle('shared', `platforms: all\nimages: ${JSON.stringify(refs)}\n`);
    const result = await load({ bundle, registries: [placeOf(target)] }, testContext());
    const tally = result.targets[0]?.tally;
    expect(tally?.blobsMounted).toBeGreaterThan(0);
    const different = new Set(images.flatMap((i) => [...i.blobs.keys()])).size;
    expect(tally?.blobsWritten).toBe(different);
    const puts = target.requests.filter((r) => r.method === 'PUT' && r.path.includes('/blobs/'));
    expect(puts).toHaveLength(different);
  });

  it.each([400, 404, 405, 500])(
    '[1.4-2-refused] that two images share are uploaded to both where mounts are answered with HTTP %i',
    async (status) => {
      const images = makeFleet({ images: 2, sharedBases: 1, kinds: ['oci'], seed: 3 });
      const refs: string[] = [];
      for (const image of images) refs.push(await site.addImage(image));
      const bundle = await site.bundle('unshared', `platforms: all\nimages: ${JSON.stringify(refs)}\n`);
      let mounts = 0;
      const without = await startRegistry({
        storage: 'memory',
        intercept: (request, response) => {
          if (request.method !== 'POST' || request.url?.includes('mount=') !== true) return false;
          mounts += 1;
          response.writeHead(status).end();
          return true;
        },
      });
      try {
        const result = await load({ bundle, registries: [placeOf(without)] }, testContext());
        expect([result.failed, result.targets[0]?.tally.blobsMounted]).toEqual([0, 0]);
        expect(mounts).toBeGreaterThan(0);
        for (const image of images) {
          expect(await digestAt(without, image.name, image.tag)).toBe(image.index.digest);
          for (const digest of image.blobs.keys()) {
            const blob = await fetch(`${without.url}/v2/${image.name}/blobs/${digest}`, { method: 'HEAD' });
            expect(blob.status).toBe(200);
          }
        }
      } finally {
        await without.close();
      }
    },
  );

  it('[1.4-1-broken] that the registry lost although it says that it has them are sent again once', async () => {
    const image = makeImage({ kinds: ['single'], seed: 4 });
    const ref = await site.addImage(image);
    const bundle = await site.bundle('lost', `platforms: all\nimages: ["${ref}"]\n`);
    let lied = 0;
    const liar = await startRegistry({
      storage: 'memory',
      intercept: (request, response) => {
        if (request.method !== 'HEAD' || request.url?.includes('/blobs/') !== true) return false;
        lied += 1;
        response.writeHead(200).end();
        return true;
      },
    });
    try {
      const result = await load({ bundle, registries: [placeOf(liar)] }, testContext());
      expect(lied).toBeGreaterThan(0);
      expect(result.failed).toBe(0);
      expect(entriesOf(result)[0]?.notes.join()).toContain('sent again');
      expect(await digestAt(liar, image.name, image.tag)).toBe(image.index.digest);
    } finally {
      await liar.close();
    }
  });

  it('[1.4-1-broken] are not sent again when the registry refuses the manifest for another reason', async () => {
    const image = makeImage({ kinds: ['single'], seed: 14 });
    const ref = await site.addImage(image);
    const bundle = await site.bundle('refusing', `platforms: all\nimages: ["${ref}"]\n`);
    const refusing = await startRegistry({
      storage: 'memory',
      intercept: (request, response) => {
        if (request.method !== 'PUT' || request.url?.includes('/manifests/') !== true) return false;
        const body = '{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}';
        response.writeHead(400, { 'content-type': 'application/json' }).end(body);
        return true;
      },
    });
    try {
      const result = await load({ bundle, registries: [placeOf(refusing)] }, testContext());
      expect(result.failed).toBe(1);
      expect(result.targets[0]?.tally.blobsWritten).toBe(image.blobs.size);
    } finally {
      await refusing.close();
    }
  });

  it('of one refused repository do not keep the others back', async () => {
    const images = makeFleet({ images: 3, seed: 15 });
    const refs: string[] = [];
    for (const image of images) refs.push(await site.addImage(image));
    await site.addChart('Web', '1.0.0', demoFiles('Web', '1.0.0'));
    const bundle = await site.bundle(
      'refused',
      `platforms: all\nimages: ${JSON.stringify(refs)}\ncharts: [{name: Web, version: 1.0.0, repo: "${site.source.url}/charts"}]\n`,
    );
    const [first] = images;
    const picky = await startRegistry({
      storage: 'memory',
      intercept: (request, response) => {
        if (request.url?.includes(`/v2/${first?.name}/`) !== true) return false;
        response.writeHead(403).end();
        return true;
      },
    });
    try {
      const result = await load({ bundle, registries: [placeOf(picky)] }, testContext());
      const states = Object.fromEntries(entriesOf(result).map((e) => [e.name, e.fault?.code ?? e.state]));
      expect(Object.values(states).sort()).toEqual([
        'AUTH_DENIED',
        'REFERENCE_INVALID',
        'written',
        'written',
      ]);
      expect(states['Web-1.0.0']).toBe('REFERENCE_INVALID');
      const plan = await load({ bundle, registries: [placeOf(picky)], dryRun: true }, testContext());
      expect(entriesOf(plan)).toHaveLength(4);
    } finally {
      await picky.close();
    }
  });

  it('that one repository refuses still reach the others', async () => {
    for (const name of ['aone', 'btwo']) await site.put(`both/${name}`, `${name}\n`);
    const bundle = await site.bundle('both', 'files: [{path: aone, name: aone}, {path: btwo, name: btwo}]\n');
    const half = await startRegistry({
      storage: 'memory',
      intercept: (request, response) => {
        if (request.method !== 'POST' || request.url?.startsWith('/v2/files/aone/') !== true) return false;
        response.writeHead(403).end();
        return true;
      },
    });
    try {
      const result = await load({ bundle, registries: [placeOf(half)] }, testContext());
      expect(entriesOf(result).map((e) => [e.name, e.state])).toEqual([
        ['aone', 'failed'],
        ['btwo', 'written'],
      ]);
    } finally {
      await half.close();
    }
  });

  it('reach the healthy target when the other one fails, and the next run completes the rest', async () => {
    const image = makeImage({ seed: 9 });
    const ref = await site.addImage(image);
    const bundle = await site.bundle('half', `platforms: all\nimages: ["${ref}"]\n`);
    let broken = true;
    const flaky = await startRegistry({
      storage: 'memory',
      intercept: (request, response) => {
        if (!broken || request.method !== 'POST') return false;
        response
          .writeHead(403, { 'content-type': 'application/json' })
          .end('{"errors":[{"code":"DENIED","message":"no"}]}');
        return true;
      },
    });
    try {
      const options = { bundle, registries: [placeOf(flaky), placeOf(target)] };
      const first = await load(options, testContext());
      expect(first.targets.map((t) => t.entries[0]?.state)).toEqual(['failed', 'written']);
      expect(first.targets[0]?.entries[0]?.fault).toMatchObject({ code: 'AUTH_DENIED' });
      expect(first.targets[0]?.entries[0]?.fault?.hint).toContain('sealift login');
      broken = false;
      const second = await load(options, testContext());
      expect(second.targets.map((t) => t.entries[0]?.state)).toEqual(['written', 'present']);
    } finally {
      await flaky.close();
    }
  });

  it('stay unsent in a dry run, which says how many bytes they are', async () => {
    const image = makeImage({ kinds: ['single'], seed: 10 });
    const ref = await site.addImage(image);
    const bundle = await site.bundle('dry', `platforms: all\nimages: ["${ref}"]\n`);
    const plan = await load({ bundle, registries: [placeOf(target)], dryRun: true }, testContext());
    const bytes = [...image.blobs.values()].reduce((sum, b) => sum + b.size, 0);
    expect(entriesOf(plan)[0]).toMatchObject({ state: 'write', writeBytes: bytes });
    expect(target.requests.filter((r) => r.method !== 'GET' && r.method !== 'HEAD')).toEqual([]);
  });

  it('go nowhere when a target cannot be reached, and the others are loaded', async () => {
    const image = makeImage({ seed: 12 });
    const ref = await site.addImage(image);
    const bundle = await site.bundle('gone', `platforms: all\nimages: ["${ref}"]\n`);
    const gone = await startRegistry({ storage: 'memory' });
    await gone.close();
    const result = await load({ bundle, registries: [placeOf(gone), placeOf(target)] }, testContext());
    expect(result.targets[0]?.fault).toMatchObject({ code: 'TARGET_UNREACHABLE' });
    expect(result.targets[1]?.entries[0]?.state).toBe('written');
  });
});
