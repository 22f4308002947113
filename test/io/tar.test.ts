import fc from 'fast-check';
import { extract, type Header } from 'tar-stream';
import { describe, expect, it } from 'vitest';
import { GIB } from '../../src/core/limits.ts';
import {
  readTarHeader,
  TAR_BLOCK,
  TAR_END,
  tarHeader,
  tarHeaderLength,
  tarPadding,
} from '../../src/io/tar.ts';

const names = fc
  .array(fc.integer({ min: 0x21, max: 0x7e }), { minLength: 1, maxLength: 100 })
  .map((codes) => String.fromCharCode(...codes));
const around8 = fc.integer({ min: -3, max: 3 }).map((d) => 8 * GIB + d);
const sizes = fc.oneof(fc.maxSafeNat(), fc.nat(2000), around8);

describe('a tar header', () => {
  it('is read back as it was written (property)', () => {
    fc.assert(
      fc.property(names, sizes, (name, size) => {
        const header = tarHeader(name, size);
        expect(header).toHaveLength(tarHeaderLength(size));
        expect(readTarHeader(header)).toEqual({ name, size });
        // What stands behind the header is not looked at.
        expect(readTarHeader(Buffer.concat([header, Buffer.alloc(700, 1)]))).toEqual({ name, size });
      }),
    );
  });

  it('needs a PAX record from 8 GiB on, and not one byte before', () => {
    expect(tarHeaderLength(8 * GIB - 1)).toBe(TAR_BLOCK);
    expect(tarHeaderLength(8 * GIB)).toBe(3 * TAR_BLOCK);
    expect(
      tarHeader('blob', 8 * GIB - 1)
        .subarray(124, 136)
        .toString(),
    ).toBe('77777777777\0');
    expect(
      tarHeader('blob', 8 * GIB)
        .subarray(512, 532)
        .toString(),
    ).toBe('19 size=8589934592\n\0');
  });

  it('counts its own length in a PAX record (property)', () => {
    fc.assert(
      fc.property(fc.integer({ min: 8 * GIB, max: Number.MAX_SAFE_INTEGER }), (size) => {
        const text = tarHeader('blob', size).toString('latin1', 512, 1024);
        const record = text.slice(0, text.indexOf('\n') + 1);
        expect(record).toBe(`${record.length} size=${size}\n`);
      }),
    );
  });

  for (const size of [0, 1, 511, 8 * GIB - 1, 8 * GIB, 8 * GIB + 1, Number.MAX_SAFE_INTEGER]) {
    it(`of ${size} bytes shows any change: every byte counts`, () => {
      const name = `blobs/sha256/${'ab'.repeat(32)}`;
      const header = tarHeader(name, size);
      const passed: unknown[] = [];
      for (let at = 0; at < header.length; at++) {
        for (const change of [1, 0x20, 0x80, 0xff]) {
          const wrong = Buffer.from(header);
          wrong[at] = (header[at] ?? 0) ^ change;
          const read = readTarHeader(wrong);
          // A PAX record has no checksum: another digit there is the right header of an entry of another size.
          const otherSize = size >= 8 * GIB && at >= 520 && read?.name === name && read.size !== size;
          if (read !== undefined && !otherSize) passed.push({ at, change, read });
        }
      }
      expect(passed).toEqual([]);
    });
  }

  it('that is cut short is none', () => {
    for (const size of [5, 9 * GIB]) {
      const header = tarHeader('x', size);
      for (const length of [0, 1, 511, 512, 1023, 1024, 1535]) {
        if (length < header.length) expect(readTarHeader(header.subarray(0, length))).toBeUndefined();
      }
    }
    expect(readTarHeader(Buffer.alloc(TAR_END))).toBeUndefined();
  });

  it('in another form is refused although other tools read it', () => {
    const size = 8 * GIB;
    // A PAX record for a size that needs none.
    const pax = tarHeader('x', size);
    const small = Buffer.from(pax);
    small.fill(0, 512, 1024);
    small.write('10 size=5\n', 512, 'latin1');
    expect(readTarHeader(small)).toBeUndefined();
    const signed = Buffer.from(pax);
    signed.fill(0, 512, 1024);
    signed.write('20 size=+8589934592\n', 512, 'latin1');
    expect(readTarHeader(signed)).toBeUndefined();
  });

  it('is not made for names and sizes that it cannot hold', () => {
    for (const name of ['', 'a'.repeat(101), 'a b', 'ä', 'a\0b', 'a\n'])
      expect(() => tarHeader(name, 1)).toThrow(RangeError);
    for (const size of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53])
      expect(() => tarHeader('a', size)).toThrow(RangeError);
  });

  it('is read by another tar library, also above 8 GiB', async () => {
    for (const size of [3, 8 * GIB + 5]) {
      const reader = extract();
      const seen = new Promise<Header>((resolve, reject) => {
        reader.on('entry', (header) => resolve(header));
        reader.on('error', reject);
      });
      reader.write(tarHeader('dir/file', size));
      expect(await seen).toMatchObject({
        name: 'dir/file',
        size,
        mode: 0o644,
        uid: 0,
        gid: 0,
        type: 'file',
        mtime: new Date(0),
      });
      reader.destroy();
    }
  });
});

it('padding goes up to the next block and is never a whole block (property)', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (size) => {
      const padding = tarPadding(size);
      expect(padding).toBeGreaterThanOrEqual(0);
      expect(padding).toBeLessThan(TAR_BLOCK);
      expect((BigInt(size) + BigInt(padding)) % BigInt(TAR_BLOCK)).toBe(0n);
    }),
  );
});
