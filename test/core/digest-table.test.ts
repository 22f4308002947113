import { describe, expect, it } from 'vitest';
import { DigestTable } from '../../src/core/digest-table.ts';
import { digestOf } from '../../src/io/verify.ts';

const MANY = 5000;

describe('a table of digests', () => {
  it('numbers each digest once, in the order in which they came, and gives every one back', () => {
    const table = new DigestTable();
    const digests = Array.from({ length: MANY }, (_, i) => digestOf(`${i}`));
    expect(digests.map((d) => table.add(d))).toEqual([...digests.keys()]);
    expect(digests.toReversed().map((d) => table.add(d))).toEqual([...digests.keys()].reverse());
    expect(table.size).toBe(MANY);
    expect(digests.map((d) => table.indexOf(d))).toEqual([...digests.keys()]);
    expect([...digests.keys()].map((i) => table.at(i))).toEqual(digests);
    expect(table.indexOf(digestOf('absent'))).toBe(-1);
  });

  it('tells digests apart that differ in their last digit alone', () => {
    const table = new DigestTable();
    const alike = [...'0123456789abcdef'].map((digit) => `sha256:${'a'.repeat(63)}${digit}` as const);
    for (const digest of alike) table.add(digest);
    expect(alike.map((d) => table.indexOf(d))).toEqual([...alike.keys()]);
  });

  it.each([
    ['end', (hex: string) => hex.padStart(64, '0')],
    ['beginning', (hex: string) => hex.padEnd(64, '0')],
    ['middle', (hex: string) => hex.padStart(32, 'f').padEnd(64, 'f')],
  ])('takes very many that somebody chose to be alike but for their %s', (_, hexOf) => {
    // Were they to want the same place, each would be compared with all others: minutes instead of a moment.
    const table = new DigestTable();
    const chosen = Array.from(
      { length: 40_000 },
      (_, i) => `sha256:${hexOf(i.toString(16).padStart(8, '0'))}` as const,
    );
    expect(chosen.map((d) => table.add(d))).toEqual([...chosen.keys()]);
    expect(chosen.map((d) => table.indexOf(d))).toEqual([...chosen.keys()]);
  });

  it('compares as the texts of the digests compare', () => {
    const table = new DigestTable();
    const digests = Array.from({ length: 200 }, (_, i) => digestOf(`${i}`));
    for (const digest of digests) table.add(digest);
    const sorted = [...digests.keys()].sort((a, b) => table.compare(a, b));
    expect(sorted.map((i) => table.at(i))).toEqual(digests.toSorted());
  });
});
