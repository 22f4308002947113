import { describe, expect, it } from 'vitest';
import { NumberList } from '../../src/core/number-list.ts';

describe('a list of numbers', () => {
  it('gives back what was put in, over many blocks', () => {
    const list = new NumberList('float64');
    const numbers = Array.from({ length: 20_000 }, (_, i) => i * 2 ** 33);
    expect(numbers.map((number) => list.push(number))).toEqual([...numbers.keys()]);
    expect(list).toHaveLength(20_000);
    expect(numbers.map((_, i) => list.at(i))).toEqual(numbers);
  });

  it('is set at any place, and 0 where it never was', () => {
    const list = new NumberList('int32');
    list.set(10_000, -7);
    list.set(3, 5);
    expect(list).toHaveLength(10_001);
    expect([3, 4, 9_999, 10_000, 10_001, 99_999, -1].map((i) => list.at(i))).toEqual([5, 0, 0, -7, 0, 0, 0]);
  });
});
