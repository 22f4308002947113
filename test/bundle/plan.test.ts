import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fileArtifactOf } from '../../src/bundle/artifacts.ts';
import { type Artifact, contentsOf } from '../../src/bundle/contents.ts';
import { HashList } from '../../src/bundle/entries.ts';
import { type BundlePlan, b3sumsText, planBundle } from '../../src/bundle/plan.ts';
import type { Descriptor } from '../../src/core/descriptor.ts';
import { EMPTY_DIGEST, hexOf } from '../../src/core/digest.ts';
import { SealiftError } from '../../src/core/errors.ts';
import { blake3Of, digestOf } from '../../src/io/verify.ts';
import type { Lock } from '../../src/lock/schema.ts';
import { formatLock, lockBytes } from '../../src/lock/write.ts';
import type { Graph, GraphNode } from '../../src/oci/graph.ts';
import { file, image, lockOf } from '../lock/locks.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

function descriptor(mediaType: string, name: string, size: number): Descriptor {
  return { mediaType, digest: digestOf(name), size };
}

/** An image of one manifest, a config and these layers (name → bytes). */
function imageOf(name: string, layers: Readonly<Record<string, number>>): Artifact {
  const config = descriptor(CONFIG, `config of ${name}`, 100 + name.length);
  const blobs = Object.entries(layers).map(([key, size]) => descriptor(LAYER, key, size));
  const root = descriptor(MANIFEST, `manifest of ${name}`, 400 + blobs.length);
  const nodes: GraphNode[] = [
    ...[config, ...blobs].map(
      (d): GraphNode => ({ descriptor: d, kind: d === config ? 'config' : 'blob', children: [], left: [] }),
    ),
    { descriptor: root, kind: 'manifest', children: [config, ...blobs], left: [] },
  ];
  const graph: Graph = { root, nodes: new Map(nodes.map((n) => [n.descriptor.digest, n])) };
  return { kind: 'image', name, root, graph };
}

function planOf(lock: Lock, artifacts: readonly Artifact[]): BundlePlan {
  const bytes = lockBytes(lock);
  return planBundle({ value: lock, digest: digestOf(bytes), size: bytes.length }, contentsOf(artifacts));
}

function text(plan: BundlePlan, name: string): string {
  const text = plan.entries.find(name)?.text;
  return text === undefined ? 'absent' : Buffer.concat([...text.pieces()]).toString('utf8');
}

/** Every entry, documents with their text. */
function facts(plan: BundlePlan): unknown[] {
  return [...plan.entries].map((e) => [e.name, e.kind, e.size, e.offset, text(plan, e.name)]);
}

const artifacts: readonly Artifact[] = [
  imageOf('a.example/web:1', { shared: 5000, web: 1024 }),
  imageOf('a.example/api:1', { shared: 5000, api: 3 }),
  imageOf('a.example/tiny:1', {}),
  fileArtifactOf(file('bin/tool')).artifact,
  fileArtifactOf(file('a.txt', { size: 0, sha256: EMPTY_DIGEST })).artifact,
];
const lock = lockOf({
  images: ['api', 'tiny', 'web'].map((n) => image(`a.example/${n}:1`)),
  files: [file('a.txt', { size: 0, sha256: EMPTY_DIGEST }), file('bin/tool')],
});

describe('the plan of a bundle', () => {
  it('does not depend on the order in which images, files or manifests were read', () => {
    const expected = planOf(lock, artifacts);
    fc.assert(
      fc.property(
        fc.shuffledSubarray([...artifacts], { minLength: artifacts.length }),
        fc.shuffledSubarray([...lock.images], { minLength: lock.images.length }),
        fc.shuffledSubarray([...lock.files], { minLength: lock.files.length }),
        (shuffled, images, files) => {
          const reversed = shuffled.map((a) => ({
            ...a,
            graph: { ...a.graph, nodes: new Map([...a.graph.nodes].reverse()) },
          }));
          const plan = planOf({ ...lock, images, files }, reversed);
          expect(plan.id).toBe(expected.id);
          expect(facts(plan)).toEqual(facts(expected));
        },
      ),
    );
  });

  it('changes its identity with anything that is carried', () => {
    const ids = [
      planOf(lock, artifacts),
      planOf({ ...lock, version: '2026.12' }, artifacts),
      planOf(lock, artifacts.slice(1)),
      planOf(lock, [...artifacts, imageOf('a.example/more:1', { more: 1 })]),
      planOf(lock, [...artifacts.slice(1), { ...imageOf('a.example/web:2', { shared: 5000, web: 1024 }) }]),
    ].map((p) => p.id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('orders entries: documents, manifests by hex, configs by hex, other blobs by hex, B3SUMS', () => {
    const entries = [...planOf(lock, artifacts).entries];
    const names = entries.map((e) => e.name);
    expect(names.slice(0, 5)).toEqual([
      'oci-layout',
      'index.json',
      'versions.lock',
      'sealift.json',
      'SHA256SUMS',
    ]);
    expect(names.at(-1)).toBe('B3SUMS');
    const kinds = entries.slice(5, -1).map((e) => e.kind);
    expect(kinds).toEqual([
      ...Array.from({ length: 5 }, () => 'manifest'),
      ...Array.from({ length: 4 }, () => 'config'),
      ...Array.from({ length: 5 }, () => 'blob'),
    ]);
    for (const kind of ['manifest', 'config', 'blob'] as const) {
      const own = entries.filter((e) => e.kind === kind).map((e) => e.name);
      expect(own).toEqual(own.toSorted());
    }
  });

  it('carries a blob that several images share once', () => {
    const { entries } = planOf(lock, artifacts);
    const name = `blobs/sha256/${hexOf(digestOf('shared'))}`;
    expect([...entries].filter((e) => e.name === name)).toHaveLength(1);
    expect(entries.findBlob(digestOf('shared'))?.size).toBe(5000);
  });

  it('puts every content on a block boundary behind one header block, with the end right behind the last', () => {
    const { entries, size } = planOf(lock, artifacts);
    let at = 0;
    for (const e of entries) {
      expect([e.name, e.offset]).toEqual([e.name, at + 512]);
      at = Math.ceil((e.offset + e.size) / 512) * 512;
    }
    expect(size).toBe(at + 1024);
  });

  it('gives a blob of 8 GiB or more three header blocks, and one byte less only one', () => {
    for (const [size, header] of [
      [8 * 1024 ** 3 - 1, 512],
      [8 * 1024 ** 3, 1536],
      [40 * 1024 ** 3 + 7, 1536],
    ] as const) {
      const plan = planOf(lockOf({ images: [image('a.example/big:1')] }), [
        imageOf('a.example/big:1', { big: size }),
      ]);
      const at = plan.entries.indexOfBlob(digestOf('big'));
      const [before, big, after] = [at - 1, at, at + 1].map((i) => plan.entries.at(i));
      const end = Math.ceil(((before?.offset ?? 0) + (before?.size ?? 0)) / 512) * 512;
      expect(big?.offset).toBe(end + header);
      expect(after?.offset).toBe(Math.ceil((end + header + size) / 512) * 512 + 512);
      expect(text(plan, 'sealift.json')).toContain(`"size": "${String(plan.size).padStart(16, '0')}"`);
    }
  });

  it('writes sealift.json with exactly the fixed keys', () => {
    const plan = planOf(lock, artifacts);
    expect(text(plan, 'sealift.json')).toBe(
      [
        '{',
        '  "formatVersion": 1,',
        '  "minReader": 1,',
        '  "name": "astrago",',
        '  "version": "2026.11",',
        `  "lock": "${digestOf(formatLock(lock))}",`,
        `  "size": "${String(plan.size).padStart(16, '0')}",`,
        `  "entries": ${plan.entries.length},`,
        '  "base": null',
        '}',
        '',
      ].join('\n'),
    );
  });

  it('names images so that other tools find them, and everything else so that they do not', () => {
    const index = JSON.parse(text(planOf(lock, artifacts), 'index.json')) as {
      schemaVersion: number;
      manifests: { digest: string; annotations: Record<string, string> }[];
    };
    expect(index.schemaVersion).toBe(2);
    expect(index.manifests.map((m) => m.annotations)).toEqual([
      ...['api', 'tiny', 'web'].map((n) => ({
        'io.containerd.image.name': `a.example/${n}:1`,
        'org.opencontainers.image.ref.name': `a.example/${n}:1`,
      })),
      { 'dev.sealift.name': 'a.txt' },
      { 'dev.sealift.name': 'bin/tool' },
    ]);
  });

  it('lists every document before it and every blob in SHA256SUMS, in tar order', () => {
    const plan = planOf(lock, artifacts);
    const expected = [...plan.entries]
      .filter((e) => e.name !== 'SHA256SUMS' && e.name !== 'B3SUMS')
      .map((e) => `${hexOf(e.digest ?? digestOf(text(plan, e.name)))}  ${e.name}\n`);
    expect(text(plan, 'SHA256SUMS')).toBe(expected.join(''));
  });

  it('knows the length of B3SUMS before any hash is known', () => {
    const plan = planOf(lock, artifacts);
    const hashes = new HashList(plan.entries.length);
    for (const { index, name } of plan.entries) hashes.set(index, blake3Of(name));
    const sums = Buffer.concat([...b3sumsText(plan, hashes)]);
    expect(sums.length).toBe(plan.entries.find('B3SUMS')?.size);
    expect(sums.toString()).toContain(`${blake3Of('SHA256SUMS')}  SHA256SUMS\n`);
    expect(sums.toString()).not.toContain('  B3SUMS\n');
    const none = new HashList(plan.entries.length);
    expect(() => [...b3sumsText(plan, none)]).toThrow('no BLAKE3 of oci-layout');
  });

  it('refuses manifests that disagree about the size of a blob', () => {
    const lying = imageOf('a.example/lie:1', { shared: 5001 });
    expect(() => planOf(lock, [...artifacts, lying])).toThrow(SealiftError);
    expect(() => planOf(lock, [...artifacts, lying])).toThrow('5000 and 5001 bytes');
  });
});
