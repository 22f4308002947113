import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PackedList } from '../../src/core/packed-list.ts';

describe('a packed list', () => {
  it('gives back what was put in, in its order and by its place', () => {
    fc.assert(
      fc.property(fc.array(fc.jsonValue({ noUnicodeString: false })), (things) => {
        // What JSON itself changes (-0) is not for such a list.
        const plain = things.map((thing): unknown => JSON.parse(JSON.stringify(thing)));
        const list = new PackedList(plain);
        expect(list).toHaveLength(plain.length);
        expect([...list]).toEqual(plain);
        expect(plain.map((_, at) => list.at(at))).toEqual(plain);
      }),
    );
  });

  it('keeps small and very long things one behind the other', () => {
    const texts = ['a', 'é'.repeat(100_000), 'b', '\ud800', 'c'.repeat(70_000), ''];
    expect([...new PackedList(texts)]).toEqual(texts);
  });

  it('has nothing at places that it does not have', () => {
    const list = new PackedList(['a']);
    expect([list.at(1), list.at(2)]).toEqual([undefined, undefined]);
  });

  it('makes a thing anew each time, so that what is changed outside stays outside', () => {
    const list = new PackedList([{ names: ['a'] }]);
    list.at(0)?.names.push('b');
    expect(list.at(0)).toEqual({ names: ['a'] });
  });
});
