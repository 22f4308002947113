import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as wire from '../../src/oci/containerd/wire.ts';
import { build, parse } from './containerd-fake.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytes = (...parts: (string | number[])[]): Buffer =>
  Buffer.concat(parts.map((p) => (typeof p === 'string' ? Buffer.from(p) : Buffer.from(p))));

describe('requests are the bytes that protobuf prescribes', () => {
  it('writes one string as field 1', () => {
    expect(hex(wire.encodeName('abc'))).toBe('0a03616263');
    expect(wire.encodeEmpty()).toHaveLength(0);
  });

  it('writes a Content.Write message with all fields, and leaves defaults out', () => {
    const all = wire.encodeWrite({
      action: 'commit',
      ref: 'r',
      total: 300,
      expected: 'e',
      offset: 5,
      data: Buffer.from([0xff, 0]),
      labels: new Map([['k', 'v']]),
    });
    expect(hex(Buffer.concat(all))).toBe(
      hex(
        bytes(
          [0x08, 2], // action = COMMIT
          [0x12, 1],
          'r',
          [0x18, 0xac, 0x02], // total = 300
          [0x22, 1],
          'e',
          [0x28, 5],
          [0x32, 2, 0xff, 0],
          [0x3a, 6, 0x0a, 1],
          'k',
          [0x12, 1],
          'v',
        ),
      ),
    );
    expect(hex(Buffer.concat(wire.encodeWrite({ action: 'stat', ref: 'r', total: 0 })))).toBe('120172');
  });

  it('writes totals beyond 32 bits', () => {
    const message = parse(
      Buffer.concat(wire.encodeWrite({ action: 'write', total: 2 ** 40, offset: 2 ** 33 })),
    );
    expect([message.get(3), message.get(5)]).toEqual([[2 ** 40], [2 ** 33]]);
  });

  it('writes a label update with one mask path for each label', () => {
    expect(hex(wire.encodeUpdateLabels('d', new Map([['a.b', 'v']])))).toBe(
      hex(
        bytes(
          [0x0a, 13, 0x0a, 1],
          'd',
          [0x2a, 8, 0x0a, 3],
          'a.b',
          [0x12, 1],
          'v',
          [0x12, 12, 0x0a, 10],
          'labels.a.b',
        ),
      ),
    );
  });

  it('writes leases: labels as 3, id and sync, the resource of type content', () => {
    expect(hex(wire.encodeCreateLease(new Map([['k', 'v']])))).toBe('1a060a016b120176');
    expect(hex(wire.encodeDeleteLease('L', { sync: true }))).toBe('0a014c1001');
    expect(hex(wire.encodeDeleteLease('L', { sync: false }))).toBe('0a014c');
    expect(hex(wire.encodeAddContent('L', 'd'))).toBe(
      hex(bytes([0x0a, 1], 'L', [0x12, 12, 0x0a, 1], 'd', [0x12, 7], 'content')),
    );
  });

  it('writes an image record, and masks the target and each label in an update', () => {
    const record = {
      name: 'n',
      labels: new Map([['k', 'v']]),
      target: { mediaType: 'm', digest: 'd', size: 7 },
    };
    const image = bytes(
      [0x0a, 21, 0x0a, 1],
      'n',
      [0x12, 6, 0x0a, 1],
      'k',
      [0x12, 1],
      'v',
      [0x1a, 8, 0x0a, 1],
      'm',
      [0x12, 1],
      'd',
      [0x18, 7],
    );
    expect(hex(wire.encodeCreateImage(record))).toBe(hex(image));
    expect(hex(wire.encodeUpdateImage(record))).toBe(
      hex(bytes([...image], [0x12, 18, 0x0a, 6], 'target', [0x0a, 8], 'labels.k')),
    );
  });
});

describe('answers are read by field number', () => {
  it('reads content info and skips fields that it does not know', () => {
    const info = build({
      1: 'sha256:x',
      2: 5,
      3: build({ 1: 1_700_000_000 }),
      5: new Map([['k', 'v']]),
      99: 'new',
    });
    const read = wire.decodeInfo(build({ 1: info, 7: 1 }));
    expect(read).toEqual({ digest: 'sha256:x', size: 5, labels: new Map([['k', 'v']]) });
  });

  it('reads an image, a lease, a version and a write answer', () => {
    const target = build({ 1: 'm', 2: 'd', 3: 9 });
    expect(wire.decodeImage(build({ 1: build({ 1: 'n', 2: new Map([['k', 'v']]), 3: target }) }))).toEqual({
      name: 'n',
      labels: new Map([['k', 'v']]),
      target: { mediaType: 'm', digest: 'd', size: 9 },
    });
    expect(wire.decodeLease(build({ 1: build({ 1: 'id', 3: new Map([['k', 'v']]) }) }))).toBe('id');
    expect(wire.decodeName(build({ 1: 'v2.2.0', 2: 'rev' }))).toBe('v2.2.0');
    expect(wire.decodeWrite(Buffer.from('080220e8073a00', 'hex'))).toEqual({
      action: 'commit',
      offset: 1000,
      total: 0,
      digest: '',
    });
  });

  it('takes a field of another wire type for an unknown one', () => {
    expect(wire.decodeInfo(build({ 1: build({ 1: 5, 2: 'five' }) }))).toEqual({
      digest: '',
      size: 0,
      labels: new Map(),
    });
  });

  it('refuses sizes that are negative or too large to count', () => {
    expect(() => wire.decodeWrite(build({ 4: -1 }))).toThrow(RangeError);
    expect(() => wire.decodeInfo(build({ 1: build({ 2: 2 ** 60 }) }))).toThrow(RangeError);
  });

  it('reads no hostile bytes as anything but an answer or an error', () => {
    const labels = fc.array(fc.tuple(fc.string(), fc.string())).map((pairs) => new Map(pairs));
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (any) => {
        for (const decode of [wire.decodeInfo, wire.decodeImage, wire.decodeWrite, wire.decodeLease]) {
          try {
            expect(decode(any)).toBeDefined();
          } catch (error) {
            expect(error).toBeInstanceOf(Error);
          }
        }
      }),
    );
    fc.assert(
      fc.property(labels, fc.nat(), (some, size) => {
        const info = build({ 1: build({ 1: 'd', 2: size, 5: some }) });
        expect(wire.decodeInfo(info)).toEqual({ digest: 'd', size, labels: some });
      }),
    );
  });
});
