import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bytesText,
  contentText,
  count,
  durationText,
  exactBytes,
  harmless,
  jsonText,
  pad,
  shellWord,
  shortDigests,
  shorten,
  table,
  widthOf,
} from '../../src/cli/words.ts';

describe('numbers in words', () => {
  it('gives bytes three digits and the unit that a disk is sold in', () => {
    const cases: readonly (readonly [number, string])[] = [
      [0, '0 bytes'],
      [999, '999 bytes'],
      [1000, '1.00 kB'],
      [12_345, '12.3 kB'],
      [999_499, '999 kB'],
      [999_500, '1.00 MB'],
      [1_234_567_890, '1.23 GB'],
      [9_996_000_000, '10.0 GB'],
      [5e15, '5.00 PB'],
    ];
    for (const [bytes, text] of cases) expect(bytesText(bytes)).toBe(text);
    expect(exactBytes(1_234_567)).toBe('1234567 bytes (1.23 MB)');
    expect(exactBytes(18)).toBe('18 bytes');
  });

  it('gives times their two largest units', () => {
    expect([0, 400, 1000, 59_400, 61_000, 3_599_400, 3_600_000, 90_000_000].map(durationText)).toEqual([
      '0.0 s',
      '0.4 s',
      '1 s',
      '59 s',
      '1 min 1 s',
      '59 min 59 s',
      '1 h 0 min',
      '25 h 0 min',
    ]);
  });

  it('counts things in the right number', () => {
    expect([count(1, 'entry'), count(2, 'entry'), count(0, 'blob'), count(3, 'key')]).toEqual([
      '1 entry',
      '2 entries',
      '0 blobs',
      '3 keys',
    ]);
    expect(contentText({ images: 2, charts: 1, files: 0, packages: 0 })).toBe('2 images, 1 chart');
    expect(contentText({ images: 0, charts: 0, files: 1, packages: 12 })).toBe('1 file, 12 Python packages');
    expect(contentText({ images: 0, charts: 0, files: 0, packages: 0 })).toBe('nothing');
  });

  it('shortens digests and leaves everything else', () => {
    expect(shortDigests(`a sha256:${'ab'.repeat(32)}, sha256:12`)).toBe('a sha256:abababababab, sha256:12');
  });
});

describe('text from outside', () => {
  it('is one line without controls, turned text or lone surrogates, whatever comes in', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), (a, b) => {
        const text = harmless(`${a}\u001b[31m\u009b2J\u202e\n\r${b}\ud800`);
        expect(text).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/);
        expect(text).not.toMatch(/[\ud800-\udfff]/u);
      }),
    );
  });

  it('stays readable: Korean, accents and signs are left as they are', () => {
    const text = '가나다 café → "x" \\ 日本 🚀';
    expect(harmless(text)).toBe(text);
    expect(harmless('a\tb\nc\u0007\u202e\u{e0041}')).toBe('a\\tb\\nc\\x07\\u202e\\u{e0041}');
  });

  it('reads back from JSON as the same value, though nothing in it moves a terminal', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.string({ unit: 'binary' }), (value, name) => {
        const all = { value, name: `${name}\u009b\u202e\u{e0041}` };
        const text = jsonText(all, 2);
        expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(all)));
      }),
    );
  });

  it('is quoted for a shell only where it must be', () => {
    expect(['a.tar', '127.0.0.1:5000/gpu', 'my file', "it's", '', '$(x)'].map(shellWord)).toEqual([
      'a.tar',
      '127.0.0.1:5000/gpu',
      "'my file'",
      "'it'\\''s'",
      "''",
      "'$(x)'",
    ]);
  });
});

describe('columns', () => {
  it('counts two for Hangul and other wide letters, none for marks', () => {
    expect(widthOf('abc')).toBe(3);
    expect(widthOf('도커')).toBe(4);
    expect(widthOf('도커'.normalize('NFD'))).toBe(4);
    expect(widthOf('e\u0301')).toBe(1);
    expect(widthOf('🚀日')).toBe(4);
  });

  it('never shortens to more columns than asked, and leaves what fits', () => {
    const text = fc.string({ unit: fc.constantFrom('a', '가', '-', '日', 'e\u0301', '9') });
    fc.assert(
      fc.property(text, fc.integer({ min: 0, max: 60 }), (name, width) => {
        const short = shorten(name, width);
        expect(widthOf(short)).toBeLessThanOrEqual(width);
        if (widthOf(name) <= width) expect(short).toBe(name);
      }),
    );
    expect(shorten('registry.example/some/very/long/name:1.2.3', 20)).toBe('registry...ame:1.2.3');
  });

  it('line up in tables, with Korean cells too', () => {
    expect(
      table(
        [
          ['이름', 'SIZE'],
          ['nginx', '9'],
        ],
        [1],
      ),
    ).toEqual(['이름   SIZE', 'nginx     9']);
    expect(pad('가', 4)).toBe('가  ');
  });
});
