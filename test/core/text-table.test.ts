import { describe, expect, it } from 'vitest';
import { TextTable } from '../../src/core/text-table.ts';

describe('a table of texts', () => {
  it('numbers each text once, in the order in which they came', () => {
    const table = new TextTable();
    expect(['b', 'a', 'b', '', 'a'].map((text) => table.add(text))).toEqual([0, 1, 0, 2, 1]);
    expect([0, 1, 2, 3, -1].map((number) => table.at(number))).toEqual(['b', 'a', '', undefined, undefined]);
  });
});
