import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { parseYaml } from '../../src/io/yaml.ts';

/** Items of a list as they may be written, two columns in. */
const ITEMS = [
  '- nginx:1.25.2',
  '- a',
  '-   spaced',
  '- ghcr.io/a/b@sha256:00',
  '- "quoted"',
  "- 'quoted'",
  '- two words',
  '- folded\n    here',
  '- {ref: x}',
  '- ref: x\n    replace: y',
  '- commented   # why',
  '# alone\n  - below',
  '\n  - behind',
  '- &anchor word',
  '- *other',
  '- !!str tagged',
  '- null',
  '- true',
  '- 1.10',
  '-',
  '- - nested\n    - twice\n    - thrice\n    - more',
  '- key:\n    - a\n    - b\n    - c\n    - d',
];
const listText = fc
  .array(fc.constantFrom(...ITEMS.slice(0, 4), ...ITEMS), { minLength: 1, maxLength: 12 })
  .map((items) => `before: &other [1]\nlist:\n  ${items.join('\n  ')}\nafter: x\n`);

/** What plain words mean: another reader leaves them as they are. */
function meant(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(meant);
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, meant(one)]));
  if (value === '' || value === 'null') return null;
  return value === 'true' ? true : value;
}

const found = (text: string) => parseYaml(text, { file: 'f', code: 'MANIFEST_INVALID' });

describe('a block list', () => {
  it('is read as any reader reads it, whatever words stand first', () => {
    fc.assert(
      fc.property(listText, (text) => {
        const { yaml, faults } = found(text);
        expect(faults).toEqual([]);
        expect(yaml?.value).toEqual(meant(parse(text, { schema: 'failsafe' })));
      }),
      { numRuns: 1000 },
    );
  });

  it('has the place of each item where it is written', () => {
    const names = Array.from({ length: 30 }, (_, i) => `app-${i}`);
    const text = `list:\n${names.map((name, i) => `${i % 7 === 3 ? '\n' : ''}  -  ${name}\n`).join('')}  - {a: b}\n  - last\n`;
    const lines = text.split('\n');
    const { yaml } = found(text);
    expect(yaml?.value).toEqual({ list: [...names, { a: 'b' }, 'last'] });
    for (const [i, name] of names.entries()) {
      const line = lines.indexOf(`  -  ${name}`) + 1;
      expect(yaml?.positionOf(['list', i])).toEqual({ file: 'f', line, column: 6 });
      expect(yaml?.positionOf(['list', i, 'deeper'])).toEqual({ file: 'f', line, column: 6 });
    }
    expect(yaml?.positionOf(['list', 30, 'a'])).toEqual({ file: 'f', line: lines.length - 2, column: 9 });
    expect(yaml?.positionOf(['list', 31])).toEqual({ file: 'f', line: lines.length - 1, column: 5 });
  });

  it('that is repeated by an alias has its words again, and they count', () => {
    const { yaml } = found('a: &list\n  - x\n  - y\n  - z\n  - w\nb: *list\n');
    expect(yaml?.value).toEqual({ a: ['x', 'y', 'z', 'w'], b: ['x', 'y', 'z', 'w'] });
  });

  it.each([
    ['no dash', 'list:\n  - a\n  - b\n  - c\n  d\n'],
    ['a tab', 'list:\n  - a\n  - b\n  - c\n\t- d\n'],
    ['a key below', 'list:\n  - a\n  - b\n  - c\n  key: value\n'],
  ])('with an item that is wrong is a fault: %s', (_, text) => {
    expect(found(text).faults.length).toBeGreaterThan(0);
  });
});
