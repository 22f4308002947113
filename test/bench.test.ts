import { describe, expect, it } from 'vitest';
import {
  type Figures,
  judge,
  median,
  medianOf,
  number,
  type Results,
  ratio,
  ratioOf,
  table,
} from '../bench/figures.mjs';

/** Seconds of the rounds 1, 2, … of each contestant. */
function stage(seconds: Readonly<Record<string, readonly (number | undefined)[]>>) {
  const runs = (times: readonly (number | undefined)[]) =>
    new Map<number, Figures>(
      times.flatMap((time, i) =>
        time === undefined ? [] : [[i + 1, { seconds: time, memory: time * 1e6 }]],
      ),
    );
  return new Map(Object.entries(seconds).map(([name, times]) => [name, runs(times)]));
}

const results: Results = new Map([
  ['pack', stage({ sealift: [1, 4, 1], hauler: [2, 16, 4], crane: [undefined, 2, undefined] })],
  ['again', stage({ sealift: [0.2, 0.4, 0.3] })],
]);

describe('the median', () => {
  it('is the middle one, whatever the order', () => expect(median([9, 1, 5])).toBe(5));
  it('is between the two middle ones of an even number', () => expect(median([4, 1, 2, 9])).toBe(3));
  it('sorts by value and not by text', () => expect(median([10, 9, 100])).toBe(10));
  it('of nothing is undefined', () => expect(median([])).toBeUndefined());
});

describe('the ratio', () => {
  it('is taken within each round, so that a burdened round does not count twice', () => {
    expect(ratioOf(results, { stage: 'pack', against: 'hauler' })).toBe(0.25);
    const [ours, theirs] = [medianOf(results, { stage: 'pack', name: 'sealift' }), 4];
    expect(ours).toBe(1);
    expect(theirs).toBe(medianOf(results, { stage: 'pack', name: 'hauler' }));
  });
  it('leaves out rounds that only one of them has', () => {
    expect(ratioOf(results, { stage: 'pack', against: 'crane' })).toBe(2);
  });
  it('is undefined without a common round, or against nothing at all', () => {
    expect(ratio(new Map([[1, 2]]), new Map([[2, 2]]))).toBeUndefined();
    expect(ratio(new Map([[1, 2]]), new Map([[1, 0]]))).toBeUndefined();
    expect(ratioOf(results, { stage: 'pack', against: 'zarf' })).toBeUndefined();
  });
});

describe('a target', () => {
  it('holds where the ratio is not above its bound', () => {
    const target = { what: 'pack', stage: 'pack', against: 'hauler' };
    expect(judge(results, [{ ...target, most: 0.25 }])[0]).toMatchObject({ value: 0.25, holds: true });
    expect(judge(results, [{ ...target, most: 0.24 }])[0]).toMatchObject({ holds: false });
  });
  it('is in seconds where it names no other', () => {
    expect(judge(results, [{ what: 'again', stage: 'again', most: 0.3 }])[0]).toMatchObject({
      value: 0.3,
      holds: true,
    });
  });
  it('is neither held nor missed where somebody did not run', () => {
    const [judged] = judge(results, [{ what: 'pack', stage: 'pack', against: 'zarf', most: 1 }]);
    expect(judged).toMatchObject({ value: undefined, holds: undefined });
  });
  it('of memory looks at the worst run of all stages', () => {
    const [judged] = judge(results, [{ what: 'memory', field: 'memory', most: 3e6 }]);
    expect(judged).toMatchObject({ value: 4e6, holds: false });
  });
});

describe('a table', () => {
  it('aligns the first column left and figures right', () => {
    const text = table([
      ['', 'ours', 'a'],
      ['pack', '1.0', '20'],
    ]);
    expect(text.split('\n')).toEqual(['      ours   a', '──────────────', 'pack   1.0  20']);
  });
  it('shows seconds, megabytes and counts with the digits that matter', () => {
    expect([number(0.0304), number(2.345), number(undefined)]).toEqual(['0.030', '2.35', '–']);
    expect([number(719_400_000, 'bytes'), number(1_250_000, 'bytes'), number(1.6, 'count')]).toEqual([
      '719',
      '1.3',
      '2',
    ]);
  });
});
