import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { Descriptor } from '../../src/core/descriptor.ts';
import { LIMITS } from '../../src/core/limits.ts';
import { digestOf } from '../../src/io/verify.ts';
import { EMPTY_CONFIG, fileArtifact } from '../../src/oci/artifact.ts';
import { collectGraph, type Graph, isSparse } from '../../src/oci/graph.ts';
import { parseManifest } from '../../src/oci/manifest.ts';
import { carriedManifests, filterIndexes } from '../../src/oci/sparse.ts';
import { failureOf } from '../io/server.ts';
import { blobOf, INDEX, MANIFEST, manifestOf } from './bench.ts';

vi.mock('../../src/core/limits.ts', async (original) => {
  const real = await original<typeof import('../../src/core/limits.ts')>();
  return { ...real, LIMITS: { ...real.LIMITS, bundleEntries: 500 } };
});

type Made = ReturnType<typeof manifestOf>;

/** Content in memory, and how often each piece was read. */
function store() {
  const content = new Map<string, Buffer>();
  const reads: string[] = [];
  const keep = (made: Made): Descriptor => {
    content.set(made.descriptor.digest, made.bytes);
    return made.descriptor;
  };
  const image = (name: string, platform?: Record<string, string>): Descriptor => {
    const config = blobOf(`config ${name}`).descriptor;
    const layers = [blobOf('shared').descriptor, blobOf(`layer ${name}`).descriptor];
    const at = keep(manifestOf({ schemaVersion: 2, mediaType: MANIFEST, config, layers }));
    return platform === undefined ? at : ({ ...at, platform } as unknown as Descriptor);
  };
  const index = (manifests: readonly unknown[], more: Record<string, unknown> = {}): Descriptor =>
    keep(manifestOf({ schemaVersion: 2, mediaType: INDEX, manifests, ...more }, INDEX));
  const read = async (descriptor: Descriptor): Promise<Uint8Array> => {
    reads.push(descriptor.digest);
    const bytes = content.get(descriptor.digest);
    if (bytes === undefined) throw new Error(`absent: ${descriptor.digest}`);
    return bytes;
  };
  return { image, index, read, reads, content };
}

const amd64 = { os: 'linux', architecture: 'amd64' };
const arm64 = { os: 'linux', architecture: 'arm64' };
const onlyAmd64 = (child: Descriptor): boolean => child.platform?.architecture === 'amd64';

function order(graph: Graph): string[] {
  return [...graph.nodes.keys()];
}

describe('a content graph', () => {
  it('has children before parents and the root last', async () => {
    const { image, index, read } = store();
    const [a, b] = [image('a', amd64), image('b', arm64)];
    const root = index([a, b]);
    const graph = await collectGraph(root, { read });
    const places = order(graph);
    for (const node of graph.nodes.values()) {
      for (const child of node.children) {
        expect(places.indexOf(child.digest)).toBeLessThan(places.indexOf(node.descriptor.digest));
      }
    }
    expect(places.at(-1)).toBe(root.digest);
    expect([...graph.nodes.values()].map((n) => n.kind)).toEqual([
      'config',
      'blob',
      'blob',
      'manifest',
      'config',
      'blob',
      'manifest',
      'index',
    ]);
    expect(isSparse(graph)).toBe(false);
  });

  it('is read once for each manifest, however many name it', async () => {
    const { image, index, read, reads } = store();
    const a = image('a', amd64);
    const inner = index([a, a]);
    const root = index([inner, a, inner]);
    const graph = await collectGraph(root, { read });
    expect(reads).toHaveLength(3);
    expect(graph.nodes.get(root.digest)?.children).toHaveLength(3);
  });

  it('knows what was left out, and does not read it', async () => {
    const { image, index, read, reads } = store();
    const [a, b] = [image('a', amd64), image('b', arm64)];
    const root = index([a, b]);
    const graph = await collectGraph(root, { read, keep: onlyAmd64 });
    expect(graph.nodes.get(root.digest)).toMatchObject({ children: [a], left: [b] });
    expect(reads).not.toContain(b.digest);
    expect(isSparse(graph)).toBe(true);
    expect(carriedManifests(graph)).toEqual([a]);
  });

  it('may hold children that are neither manifest nor index', async () => {
    const { index, read } = store();
    const blob = blobOf('something').descriptor;
    const graph = await collectGraph(index([blob]), { read });
    expect(graph.nodes.get(blob.digest)?.kind).toBe('blob');
  });

  it('may start at a manifest', async () => {
    const { image, read } = store();
    const root = image('a');
    expect((await collectGraph(root, { read })).nodes.size).toBe(4);
  });
});

describe('a graph that is refused', () => {
  it('is nested too deeply', async () => {
    const { image, index, read } = store();
    let root = index([image('a')]);
    for (let depth = 1; depth < LIMITS.indexDepth; depth++) root = index([root]);
    await collectGraph(root, { read });
    root = index([index([root])]);
    expect(await failureOf(collectGraph(root, { read }))).toMatchObject({
      code: 'OCI_MANIFEST_INVALID',
      message: expect.stringContaining(`deeper than ${LIMITS.indexDepth} levels`),
    });
  });

  it('has more parts than a bundle may have', async () => {
    const { index, read } = store();
    const blobs = Array.from({ length: LIMITS.bundleEntries + 1 }, (_, i) => blobOf(`${i}`).descriptor);
    expect(await failureOf(collectGraph(index(blobs), { read }))).toMatchObject({
      code: 'OCI_MANIFEST_INVALID',
    });
  });

  it('names one digest as a manifest and as a blob, in either order', async () => {
    const { image, index, read, content } = store();
    const inner = image('inner');
    const config = blobOf('{}').descriptor;
    const outer = manifestOf({ schemaVersion: 2, config, layers: [{ ...inner, mediaType: 'x/y' }] });
    content.set(outer.descriptor.digest, outer.bytes);
    for (const children of [
      [inner, outer.descriptor],
      [outer.descriptor, inner],
    ]) {
      expect(await failureOf(collectGraph(index(children), { read }))).toMatchObject({
        code: 'OCI_MANIFEST_INVALID',
        message: expect.stringContaining('both'),
      });
    }
  });

  it('says one kind outside and another inside (CVE-2021-41190)', async () => {
    const { image, index, read } = store();
    const a = image('a');
    const root = index([{ ...a, mediaType: INDEX }]);
    expect(await failureOf(collectGraph(root, { read }))).toMatchObject({ code: 'OCI_MANIFEST_INVALID' });
  });

  it('lacks something: the reader says so', async () => {
    const { index, read } = store();
    const absent = manifestOf({ schemaVersion: 2 }).descriptor;
    expect(await failureOf(collectGraph(index([absent]), { read }))).toMatchObject({ message: /absent/ });
  });
});

describe('a filtered index', () => {
  it('[1.6-filtered] is the original with only the carried children, keys in their order, and no white space', async () => {
    const { image, index, read } = store();
    const [a, b] = [image('a', amd64), image('b', arm64)];
    const root = index([a, b], { zebra: 1, annotations: { b: '2', a: '1' }, alpha: [1.5, null] });
    const graph = await collectGraph(root, { read, keep: onlyAmd64 });
    const made = (await filterIndexes(graph, read)).get(root.digest);
    expect(made?.bytes.toString()).toBe(
      `{"schemaVersion":2,"mediaType":"${INDEX}","manifests":[${JSON.stringify(a)}],"zebra":1,"annotations":{"b":"2","a":"1"},"alpha":[1.5,null]}`,
    );
    expect(made?.descriptor).toEqual({
      mediaType: INDEX,
      digest: digestOf(made?.bytes ?? ''),
      size: made?.bytes.length,
    });
  });

  it('is not made when nothing was left out, and nothing is read for it', async () => {
    const { image, index, read, reads } = store();
    const graph = await collectGraph(index([image('a', amd64)]), { read });
    reads.length = 0;
    expect((await filterIndexes(graph, read)).size).toBe(0);
    expect(reads).toEqual([]);
  });

  it('points to the filtered form of the indexes inside, and drops those with nothing left', async () => {
    const { image, index, read } = store();
    const [a, b, c] = [image('a', amd64), image('b', arm64), image('c', amd64)];
    const mixed = index([a, b]);
    const whole = index([c]);
    const gone = index([b]);
    const root = index([
      { ...mixed, data: Buffer.from(await read(mixed)).toString('base64'), annotations: { k: 'v' } },
      whole,
      gone,
    ]);
    const graph = await collectGraph(root, { read, keep: onlyAmd64 });
    const made = await filterIndexes(graph, read);
    expect([...made.keys()]).toEqual([mixed.digest, gone.digest, root.digest]);
    expect(made.get(gone.digest)).toBeUndefined();
    const inner = made.get(mixed.digest)?.descriptor;
    const body = JSON.parse(made.get(root.digest)?.bytes.toString() ?? '');
    // The embedded copy of the old index would not fit its new digest.
    expect(body.manifests).toEqual([{ ...inner, annotations: { k: 'v' } }, whole]);
  });

  it('[1.6-filtered] is the same every time, is a valid index, and names only what is carried (property)', async () => {
    const archs = ['amd64', 'arm64', 's390x', 'ppc64le'];
    const nested = fc.array(fc.array(fc.constantFrom(...archs), { minLength: 1, maxLength: 4 }), {
      minLength: 1,
      maxLength: 3,
    });
    await fc.assert(
      fc.asyncProperty(nested, fc.subarray(archs), async (groups, wanted) => {
        const { image, index, read } = store();
        const images = groups.map((group) => group.map((a) => image(a, { os: 'linux', architecture: a })));
        const root = index([...images.slice(1).map((inner) => index(inner)), ...(images[0] ?? [])]);
        const keep = (child: Descriptor): boolean => wanted.includes(child.platform?.architecture ?? '');
        const graph = await collectGraph(root, { read, keep });
        const [once, twice] = [await filterIndexes(graph, read), await filterIndexes(graph, read)];
        expect(twice).toEqual(once);
        const known = new Set<string>([...graph.nodes.keys()].filter((d) => !once.has(d)));
        for (const made of once.values()) if (made !== undefined) known.add(made.descriptor.digest);
        for (const made of once.values()) {
          if (made === undefined) continue;
          expect(digestOf(made.bytes)).toBe(made.descriptor.digest);
          const parsed = parseManifest(made.bytes, made.descriptor);
          if (parsed.kind !== 'index') throw new Error('an index stays an index');
          for (const child of parsed.manifests) expect(known.has(child.digest)).toBe(true);
        }
      }),
      { numRuns: 30 },
    );
  });
});

describe('the artifact of a file', () => {
  const content = { digest: digestOf('file'), size: 4 };

  it('is the same everywhere and names the file', () => {
    const made = fileArtifact({ title: 'kubectl', content });
    expect(fileArtifact({ title: 'kubectl', content })).toEqual(made);
    expect(made.descriptor.digest).toBe(digestOf(made.bytes));
    expect(parseManifest(made.bytes, made.descriptor)).toMatchObject({
      kind: 'manifest',
      config: EMPTY_CONFIG,
      layers: [{ ...content, annotations: { 'org.opencontainers.image.title': 'kubectl' } }],
      artifactType: 'application/vnd.unknown.artifact.v1',
    });
    expect(made.bytes.toString()).not.toContain('created');
  });
});
