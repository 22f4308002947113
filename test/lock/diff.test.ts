import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { diffLocks } from '../../src/lock/diff.ts';
import { formatLock } from '../../src/lock/write.ts';
import { chart, digestOf, file, image, lockArbitrary, lockOf } from './locks.ts';

describe('the difference of two locks', () => {
  it('of one lock and itself is nothing', () => {
    fc.assert(
      fc.property(lockArbitrary, (lock) => {
        expect(diffLocks(lock, lock)).toEqual({ added: [], removed: [], changed: [] });
      }),
    );
  });

  it('is nothing only where their texts are equal', () => {
    const one = chart('a', '1');
    const dependency = { name: 'd', version: '1', repository: 'https://x.example', from: 'fetched' as const };
    const source = {
      type: 'http',
      repo: 'https://other.example',
      url: 'https://charts.example/a-1.tgz',
    } as const;
    const others: Partial<typeof one>[] = [
      { source },
      { config: { ...one.config, digest: digestOf('9') } },
      { config: { ...one.config, size: 100 } },
      { manifest: { ...one.manifest, mediaType: 'application/x' } },
      { manifest: { ...one.manifest, size: 1 } },
      { dependencies: [{ ...dependency, alias: 'e' }] },
      { dependencies: [{ ...dependency, repository: 'https://y.example' }] },
      { usedBy: ['a, b'] },
      { usedBy: ['a', 'b'] },
      {
        integrity: {
          ...one.integrity,
          provenance: 'unverified',
          provenanceDigest: digestOf('5'),
          provenanceSize: 1,
        },
      },
      {
        integrity: {
          ...one.integrity,
          provenance: 'unverified',
          provenanceDigest: digestOf('5'),
          provenanceSize: 2,
        },
      },
    ];
    const locks = [{}, { dependencies: [dependency] }, ...others].map((more) =>
      lockOf({ charts: [{ ...one, ...more }] }),
    );
    for (const a of locks) {
      for (const b of locks) {
        const { changed } = diffLocks(a, b);
        expect(changed.length === 0).toBe(formatLock(a) === formatLock(b));
      }
    }
  });

  it('turned round swaps added and removed', () => {
    fc.assert(
      fc.property(lockArbitrary, lockArbitrary, (a, b) => {
        const there = diffLocks(a, b);
        const back = diffLocks(b, a);
        expect(back.added).toEqual(there.removed);
        expect(back.removed).toEqual(there.added);
        expect(back.changed.length).toBe(there.changed.length);
        const projects = ({ python }: typeof a): number =>
          python === undefined ? 0 : 1 + new Set(python.pins.map((p) => `${p.name} ${p.version}`)).size;
        const total = (x: typeof a): number =>
          x.images.length + x.charts.length + x.files.length + projects(x);
        expect(total(b) - total(a)).toBe(there.added.length - there.removed.length);
      }),
    );
  });

  it('shows a tag that moved with its old and new facts', () => {
    const a = lockOf({ images: [image('a.example/x:1')] });
    const b = lockOf({
      images: [
        image('a.example/x:1', {
          digest: digestOf('9'),
          size: 1700,
          platforms: { 'linux/amd64': digestOf('8'), 'linux/arm64': digestOf('7') },
        }),
      ],
    });
    expect(diffLocks(a, b).changed).toEqual([
      {
        kind: 'image',
        name: 'a.example/x:1',
        changes: [
          { fact: 'digest', from: digestOf('a'), to: digestOf('9') },
          { fact: 'platforms', from: 'linux/amd64', to: 'linux/amd64, linux/arm64' },
          {
            fact: 'manifests',
            from: `linux/amd64 ${digestOf('b')}`,
            to: `linux/amd64 ${digestOf('8')}, linux/arm64 ${digestOf('7')}`,
          },
          { fact: 'size', from: '1609', to: '1700' },
        ],
      },
    ]);
  });

  it('shows a new tag or version of one thing as a change', () => {
    const a = lockOf({
      version: '1',
      images: [image('127.0.0.1:5000/x:1'), image('b.example/y:1')],
      charts: [chart('podinfo', '6.7.0')],
      files: [file('a')],
    });
    const b = lockOf({
      version: '2',
      images: [image('127.0.0.1:5000/x:2'), image('c.example/y:1')],
      charts: [chart('podinfo', '6.8.0', { appVersion: '6.8' })],
      files: [file('a', { mode: '0644' })],
    });
    const diff = diffLocks(a, b);
    expect(diff.changed.map((c) => [c.kind, c.name, ...c.changes.map((f) => f.fact)])).toEqual([
      ['bundle', 'astrago', 'version'],
      ['image', '127.0.0.1:5000/x:2', 'tag'],
      ['chart', 'podinfo-6.8.0', 'version', 'source', 'appVersion'],
      ['file', 'a', 'mode'],
    ]);
    expect(diff.changed[2]?.changes.at(-1)).toEqual({ fact: 'appVersion', from: null, to: '6.8' });
    expect(diff.added.map((e) => e.name)).toEqual(['c.example/y:1']);
    expect(diff.removed.map((e) => e.name)).toEqual(['b.example/y:1']);
    expect(diff.added[0]?.facts).toMatchObject({
      digest: digestOf('a'),
      platforms: 'linux/amd64',
      size: '1609',
    });
  });

  it('does not guess when several tags of one repository moved', () => {
    const a = lockOf({ images: [image('a.example/x:1'), image('a.example/x:2')] });
    const b = lockOf({ images: [image('a.example/x:3'), image('a.example/x:4')] });
    const diff = diffLocks(a, b);
    expect([diff.added.length, diff.removed.length, diff.changed.length]).toEqual([2, 2, 0]);
  });

  it('pairs images that are known by digest only', () => {
    const a = lockOf({ images: [image(`a.example/x@${digestOf('1')}`)] });
    const b = lockOf({ images: [image(`a.example/x@${digestOf('2')}`, { digest: digestOf('2') })] });
    expect(diffLocks(a, b).changed[0]?.changes.map((c) => c.fact)).toEqual(['digest']);
  });
});
