import { describe, expect, it } from 'vitest';
import { blobName, foundEntries, HashList } from '../../src/bundle/entries.ts';
import { blake3Of, digestOf } from '../../src/io/verify.ts';

const digests = Array.from({ length: 300 }, (_, i) => digestOf(`${i}`));
const entries = [
  { name: 'oci-layout', size: 31, offset: 512 },
  ...digests.map((d, i) => ({ name: blobName(d), size: i * 1e9, offset: i * 1e12 })),
  { name: 'B3SUMS', size: 0, offset: 9e15 },
];

describe('a list of entries', () => {
  it('gives back what was put in, in its order, also sizes and offsets beyond 32 bits', () => {
    const list = foundEntries(entries);
    expect(list.length).toBe(entries.length);
    expect([...list]).toEqual(entries);
    expect(list.bytes()).toBe(entries.reduce((sum, e) => sum + e.size, 0));
    expect(() => list.at(entries.length)).toThrow(RangeError);
  });

  it('finds entries by name and blobs by digest, and of two with one name the first', () => {
    const again = entries.map((e) => ({ ...e, offset: 1 }));
    const list = foundEntries([...entries, ...again]);
    expect(entries.map((e) => list.indexOf(e.name))).toEqual([...entries.keys()]);
    expect(digests.map((d) => list.findBlob(d))).toEqual(entries.slice(1, -1));
    expect(list.find('B3SUMS')).toEqual(entries.at(-1));
    expect([...list].slice(entries.length)).toEqual(again);
    expect(list.find('absent')).toBeUndefined();
    expect(list.findBlob(digestOf('absent'))).toBeUndefined();
  });
});

describe('a list of hashes', () => {
  it('knows the hashes that were set and no others', () => {
    const hashes = new HashList(3);
    hashes.set(0, blake3Of('a'));
    hashes.set(2, blake3Of('b'));
    expect([0, 1, 2, 3].map((i) => hashes.at(i))).toEqual([
      blake3Of('a'),
      undefined,
      blake3Of('b'),
      undefined,
    ]);
  });
});
