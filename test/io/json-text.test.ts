import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { setJsonMember } from '../../src/io/json-text.ts';

const set = (text: string, key: string, value: unknown): string =>
  setJsonMember(text, { outer: 'auths', key }, value);

describe('one member of a JSON text', () => {
  it('is set and removed, and nothing else changes (property)', () => {
    const key = fc.oneof(fc.string({ maxLength: 6 }), fc.constantFrom('a', 'auths', '__proto__', '"\\'));
    // JSON cannot write -0.
    const json = fc.jsonValue({ maxDepth: 3 }).map((v) => JSON.parse(JSON.stringify(v)) as unknown);
    const indent = fc.constantFrom(undefined, '\t', '  ', '    ');
    fc.assert(
      fc.property(
        fc.dictionary(key, json, { maxKeys: 5 }),
        fc.dictionary(key, json, { maxKeys: 5 }),
        fc.record({ key, value: json, indent }),
        (rest, auths, change) => {
          const before: Record<string, unknown> = JSON.parse(JSON.stringify({ ...rest, auths }));
          const text = JSON.stringify(before, null, change.indent);
          const after = set(text, change.key, change.value);
          const inside = Object.entries(auths).filter(([k]) => k !== change.key);
          const expected = { ...before, auths: Object.fromEntries([...inside, [change.key, change.value]]) };
          expect(JSON.parse(after)).toEqual(JSON.parse(JSON.stringify(expected)));
          expect(set(after, change.key, change.value)).toBe(after);
          const without = { ...before, auths: Object.fromEntries(inside) };
          expect(JSON.parse(set(after, change.key, undefined))).toEqual(JSON.parse(JSON.stringify(without)));
        },
      ),
    );
  });

  it('leaves every other byte: numbers, order, spaces, escapes', () => {
    const text =
      '{ "big": 12345678901234567890.10,\n   "auths": {"b":{},  "a": 1e400 } ,"\\u0061x":"\\/" }\n';
    expect(set(text, 'b', { auth: 'x' })).toBe(
      '{ "big": 12345678901234567890.10,\n   "auths": {"b":{\n\t\t\t"auth": "x"\n\t\t},  "a": 1e400 } ,"\\u0061x":"\\/" }\n',
    );
    expect(set(text, 'b', undefined)).toBe(text.replace('"b":{},  ', ''));
    expect(set(text, 'a', undefined)).toBe(text.replace(',  "a": 1e400', ''));
    expect(set(text, 'none', undefined)).toBe(text);
  });

  it('is written with the indentation of the text, and its object is made where there is none', () => {
    expect(set('{}', 'h', {})).toBe('{\n\t"auths": {\n\t\t"h": {}\n\t}\n}');
    expect(set('{\n  "x": 1\n}\n', 'h', { a: 1 })).toBe(
      '{\n  "x": 1,\n  "auths": {\n    "h": {\n      "a": 1\n    }\n  }\n}\n',
    );
    expect(set('{"auths":null}', 'h', {})).toContain('"h": {}');
    expect(set('{"x":1}', 'h', undefined)).toBe('{"x":1}');
  });

  it('is not touched in a text of another shape', () => {
    for (const text of ['[]', '7', '', '{"auths":[]}', '{"auths":7}', '{"auths":{}', '{"auths":{}}x']) {
      expect(() => set(text, 'h', {}), text).toThrow(SyntaxError);
    }
  });

  it('counts as its last, as every reader has it, when it is there twice', () => {
    const text = '{"auths":{"h":{"old":1}},"auths":{"h":{"new":1}}}';
    expect(JSON.parse(set(text, 'h', { newest: 1 }))).toEqual({ auths: { h: { newest: 1 } } });
    expect(() => set('{"auths":{"h":{"a":1},"h":{"b":1}}}', 'h', undefined)).toThrow(SyntaxError);
  });
});
