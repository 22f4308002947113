import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { LIMITS } from '../../src/core/limits.ts';
import { parseYaml, type YamlPath, type YamlText } from '../../src/io/yaml.ts';

const options = { file: 'x.yaml', code: 'MANIFEST_INVALID' } as const;

function read(text: string): YamlText {
  const { yaml, faults } = parseYaml(text, options);
  expect(faults).toEqual([]);
  if (yaml === undefined) throw new Error('nothing was read');
  return yaml;
}

function faultsOf(text: string): string[] {
  const { yaml, faults } = parseYaml(text, options);
  expect(yaml).toBeUndefined();
  return faults.map((f) => `${f.message} @${f.position?.line}:${f.position?.column}`);
}

describe('a YAML text', () => {
  it('keeps numbers as they were written', () => {
    const text = 'a: 1.10\nb: 0755\nc: 1e3\nd: 0x1F\ne: 2026-11-01\nf: yes\ng: .inf\nh: 1_000\n';
    expect(read(text).value).toEqual({
      a: '1.10',
      b: '0755',
      c: '1e3',
      d: '0x1F',
      e: '2026-11-01',
      f: 'yes',
      g: '.inf',
      h: '1_000',
    });
  });

  it('has booleans and null only where they are not quoted', () => {
    const text = 'a: true\nb: "true"\nc: False\nd:\ne: ~\nf: "null"\ng: ""\nh: !!str true\ni: |\n  true\n';
    expect(read(text).value).toEqual({
      a: true,
      b: 'true',
      c: false,
      d: null,
      e: null,
      f: 'null',
      g: '',
      h: 'true',
      i: 'true\n',
    });
  });

  it('knows where every node and every key stands', () => {
    const yaml = read('\ufeffa: 1\nlist:\n  - x\n  - {k: v, e: }\nb:\r\n  "c d":   y\r\nempty:\n');
    const at = (path: YamlPath, part?: 'key'): string => {
      const { file, line, column } = yaml.positionOf(path, part);
      expect(file).toBe('x.yaml');
      return `${line}:${column}`;
    };
    expect(at([])).toBe('1:1');
    expect(at(['a'])).toBe('1:4');
    expect(at(['a'], 'key')).toBe('1:1');
    expect(at(['list', 0])).toBe('3:5');
    expect(at(['list', 1])).toBe('4:5');
    expect(at(['list', 1, 'k'])).toBe('4:9');
    expect(at(['list', 1, 'k'], 'key')).toBe('4:6');
    expect(at(['list', 1, 'e'])).toBe('4:12');
    expect(at(['b', 'c d'])).toBe('6:12');
    expect(at(['empty'])).toBe('7:1');
    expect(at(['list', 7, 'x'])).toBe('3:3');
    expect(at(['list', 1, 'missing', 'x'])).toBe('4:5');
  });

  it('follows aliases, each to the anchor before it, and finds places behind them', () => {
    const yaml = read('a: &x [1, {k: v}]\nb: *x\nc: &x [2]\nd: *x\n');
    expect(yaml.value).toEqual({ a: ['1', { k: 'v' }], b: ['1', { k: 'v' }], c: ['2'], d: ['2'] });
    expect(yaml.positionOf(['b', 1, 'k'])).toMatchObject({ line: 1, column: 15 });
    expect(yaml.positionOf(['b'])).toMatchObject({ line: 2, column: 4 });
  });

  it('reads back what a YAML writer wrote', () => {
    const text = fc.string({ unit: 'grapheme' });
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 4 },
        text,
        fc.boolean(),
        fc.constant(null),
        fc.array(tie('tree')),
        fc.dictionary(
          text.filter((k) => k !== '__proto__'),
          tie('tree'),
          { noNullPrototype: true },
        ),
      ),
    }));
    fc.assert(
      fc.property(tree, fc.constantFrom('QUOTE_DOUBLE', 'PLAIN' as const), (value, defaultStringType) => {
        const written = stringify(value, {
          defaultStringType: defaultStringType === 'PLAIN' ? 'PLAIN' : 'QUOTE_DOUBLE',
          aliasDuplicateObjects: false,
        });
        expect(read(written).value).toEqual(value);
      }),
    );
  });
});

describe('a YAML text that is refused', () => {
  it('has wrong syntax: every fault with its place', () => {
    expect(faultsOf('a: [1,\nb: }\n').map((f) => f.replace(/.*@/, ''))).toEqual(['2:1', '2:4']);
    expect(faultsOf('a: b\n\tc: d\n')).toEqual(['not valid YAML: Tabs are not allowed as indentation @2:1']);
    expect(faultsOf('a: "b\n').length).toBeGreaterThan(0);
  });

  it('has two documents', () => {
    expect(faultsOf('a: 1\n---\nb: 2\n')).toEqual(['a second YAML document starts here @2:1']);
    expect(read('---\na: 1\n...\n').value).toEqual({ a: '1' });
  });

  it('says one key twice, and says where both are', () => {
    expect(faultsOf('a: 1\nb: {c: 1, c: 2}\n"a": 3\n')).toEqual([
      'the key "c" is written twice; first at line 2 @2:11',
      'the key "a" is written twice; first at line 1 @3:1',
    ]);
  });

  it('has keys that are not text, tags, or __proto__', () => {
    expect(faultsOf('? [a]\n: 1\n')).toEqual(['a key must be plain text @1:3']);
    expect(faultsOf('a: !!int 3\nb: !env X\n').map((f) => f.replace(/ is .*@/, ' @'))).toEqual([
      'the tag tag:yaml.org,2002:int @1:10',
      'the tag !env @2:9',
    ]);
    expect(faultsOf('__proto__: {a: 1}\n')).toEqual(['the key "__proto__" is not allowed @1:1']);
  });

  it('has an alias to nothing or to itself', () => {
    expect(faultsOf('a: *x\nb: &x 1\n')).toEqual(['the alias *x has no anchor before it @1:4']);
    expect(faultsOf('a: &x [1, *x]\n')).toEqual(['the alias *x stands inside what it repeats @1:11']);
  });

  it('grows without end through aliases', () => {
    const laughs = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
    for (let i = 1; i < 12; i += 1) {
      laughs.push(`a${i}: &a${i} [${Array.from({ length: 10 }, () => `*a${i - 1}`).join(', ')}]`);
    }
    expect(faultsOf(laughs.join('\n'))).toEqual([
      expect.stringContaining(`larger than ${LIMITS.yamlNodes} nodes`),
    ]);
    const chain = ['a0: &a0 [x]'];
    for (let i = 1; i < 20_000; i += 1) chain.push(`a${i}: &a${i} [*a${i - 1}]`);
    expect(faultsOf(chain.join('\n'))[0]).toContain(`deeper than ${LIMITS.yamlDepth} levels`);
  });

  it('is nested so deeply that reading it would end the process', () => {
    for (const unit of ['[', '- ', '? ', '{a: ']) {
      expect(faultsOf(unit.repeat(500_000))).toEqual([
        expect.stringContaining(`more than ${LIMITS.yamlDepth} levels`),
      ]);
    }
    expect(faultsOf('- a\n'.repeat(300_000))[0]).toContain(`more than ${LIMITS.yamlNodes} tokens`);
  });

  it('is any text: there is a value or a fault, and never a crash', () => {
    const bits = fc.constantFrom(
      'a',
      ':',
      ' ',
      '\n',
      '-',
      '[',
      ']',
      '{',
      '}',
      '"',
      "'",
      '&x',
      '*x',
      '#',
      '|',
      '!',
      '\t',
      '\r',
      '%',
      '---',
      '?',
      ',',
    );
    fc.assert(
      fc.property(fc.array(bits, { maxLength: 30 }), (parts) => {
        const { yaml, faults } = parseYaml(parts.join(''), options);
        expect(yaml === undefined).toBe(faults.length > 0);
      }),
      { numRuns: 2000 },
    );
  });
});
