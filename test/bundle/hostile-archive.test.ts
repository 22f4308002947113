/** One test for each way in which an archive can be another encoding of the same entries, or of none. */
import { execFileSync } from 'node:child_process';
import { truncate, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBundle } from '../../src/bundle/reader.ts';
import { exitCodeOf, type Fault, SealiftError } from '../../src/core/errors.ts';
import { tarHeader } from '../../src/io/tar.ts';
import { load } from '../../src/ops/load.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from './site.ts';
import { changedHeader, END, joined, type Part, partsOf, withBody } from './tar-parts.ts';

let site: Site;
let good: Packed;
let parts: Part[];

beforeAll(async () => {
  site = await openSite();
  good = await packSite(site);
  parts = partsOf(good);
});

afterAll(() => site.close());

/** What verify finds, whether it reports or throws. Nothing but a SealiftError may come out. */
async function faultsOf(path: string): Promise<readonly Fault[]> {
  try {
    return (await verify({ bundle: path }, contextOf())).faults;
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    return error.faults.length > 0 ? error.faults : [{ code: error.code, message: error.message }];
  }
}

/** Writes an archive, and expects that verify names it, that load refuses it, and that nothing was written. */
async function refused(bytes: Buffer): Promise<readonly Fault[]> {
  const path = site.path('hostile.tar');
  await writeFile(path, bytes);
  const faults = await faultsOf(path);
  expect(faults.length).toBeGreaterThan(0);
  expect(faults.map((f) => exitCodeOf(f.code))).toEqual(faults.map(() => 5));
  const dir = site.path('never');
  const loading = load({ bundle: path, chartTrees: [dir], files: [dir] }, contextOf());
  const error: unknown = await loading.catch((e: unknown) => e);
  expect(error).toBeInstanceOf(SealiftError);
  expect(exitCodeOf((error as SealiftError).code)).toBe(5);
  await expect(openBundle(dir, { signal: contextOf().signal })).rejects.toThrow('no such file');
  return faults;
}

function at(index: number): Part {
  const part = parts.at(index);
  if (part === undefined) throw new Error(`no part ${index}`);
  return part;
}

/** The archive with one part replaced by others. */
function replaced(index: number, ...others: Part[]): Buffer {
  return joined(parts.flatMap((p, i) => (i === index ? others : [p])));
}

const layer = (): number => parts.length - 3;

describe('an archive that is not the one canonical encoding', () => {
  it('is taken apart and put together by these tests without a change', () => {
    expect(joined(parts).equals(good.bytes)).toBe(true);
  });

  it('is refused with an entry twice', async () => {
    const faults = await refused(replaced(layer(), at(layer()), at(layer())));
    expect(faults[0]).toMatchObject({ code: 'BUNDLE_NOT_CANONICAL', details: { entry: at(layer()).name } });
    expect(faults[0]?.message).toContain('twice');
  });

  it('is refused with a document twice, and the second with other bytes', async () => {
    const other = withBody(at(0), Buffer.from('{"imageLayoutVersion":"9.0.0"}\n'));
    const faults = await refused(joined([...parts, other]));
    expect(faults.map((f) => f.message).join('\n')).toContain('oci-layout is there twice');
  });

  for (const [what, name] of [
    ['a name that begins with ./', (n: string) => `./${n}`],
    ['an absolute name', (n: string) => `/${n}`],
    ['a name that climbs out', (n: string) => `../${n}`],
    ['a name with two slashes', (n: string) => n.replace('blobs/', 'blobs//')],
    ['a name in upper case', (n: string) => n.toUpperCase()],
    ['an unknown name', () => 'README.md'],
    ['a name with a byte behind its end', (n: string) => `${n}\0x`],
  ] as const) {
    it(`is refused with ${what}`, async () => {
      const part = at(layer());
      const field = Buffer.alloc(100);
      field.write(name(part.name), 'latin1');
      const faults = await refused(
        replaced(layer(), { ...part, header: changedHeader(part.header, { 0: field }) }),
      );
      expect(faults[0]?.code).toBe('BUNDLE_NOT_CANONICAL');
      expect(faults.map((f) => f.message).join('\n')).toContain(part.name);
    });
  }

  for (const [what, fields] of [
    ['a symbolic link', { 156: '2' }],
    ['a hard link', { 156: '1' }],
    ['a folder', { 156: '5' }],
    ['a device', { 156: '3' }],
    ['the old type NUL of a regular file', { 156: '\0' }],
    ['another mode', { 100: '0000755\0' }],
    ['a set-uid mode', { 100: '0004644\0' }],
    ['an owner', { 108: '0001750\0' }],
    ['a group', { 116: '0001750\0' }],
    ['a time', { 136: '14524132300\0' }],
    ['an owner name', { 265: 'root' }],
    ['a group name', { 297: 'root' }],
    ['a device number', { 329: '0000001\0' }],
    ['a prefix', { 345: 'x' }],
    ['a link name', { 157: '/etc/passwd' }],
    ['a byte in the unused end of the header', { 511: 'x' }],
    ['the header of GNU tar', { 257: 'ustar  \0' }],
    ['the header of tar before ustar', { 257: '\0\0\0\0\0\0\0\0' }],
    ['a size with a space at its end', { 124: '00000000000 ' }],
    ['a size in base 256', { 124: Buffer.from([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]) }],
  ] as const) {
    it(`is refused with ${what}`, async () => {
      const part = at(layer());
      const faults = await refused(
        replaced(layer(), { ...part, header: changedHeader(part.header, fields) }),
      );
      const offset = good.entries[layer()]?.offset ?? 0;
      expect(faults[0]).toMatchObject({
        code: 'BUNDLE_NOT_CANONICAL',
        details: { offset: offset - 512 },
      });
      const missing = faults.find((f) => f.code === 'BUNDLE_ENTRY_MISSING');
      expect(missing?.details).toMatchObject({ entry: part.name, offset });
    });
  }

  it('is refused with a wrong checksum', async () => {
    const part = at(layer());
    const header = Buffer.from(part.header);
    header.write('000001\0 ', 148, 'latin1');
    const faults = await refused(replaced(layer(), { ...part, header }));
    expect(faults[0]?.code).toBe('BUNDLE_NOT_CANONICAL');
  });

  it('is refused with a checksum that is right and written in another way', async () => {
    const part = at(layer());
    const header = Buffer.from(part.header);
    const sum = part.header.toString('latin1', 148, 154);
    header.write(` ${sum.slice(1)}\0 `, 148, 'latin1');
    expect((await refused(replaced(layer(), { ...part, header })))[0]?.code).toBe('BUNDLE_NOT_CANONICAL');
  });

  it('is refused with a PAX header where none is needed', async () => {
    const body = Buffer.alloc(512);
    body.write('12 mtime=0.5\n');
    const header = changedHeader(at(0).header, { 0: 'PaxHeaders/x\0', 124: '00000000014\0', 156: 'x' });
    const pax: Part = { name: 'pax', header, body, padding: Buffer.alloc(0) };
    expect((await refused(replaced(layer(), pax, at(layer()))))[0]?.code).toBe('BUNDLE_NOT_CANONICAL');
  });

  it.each<[string, (lines: string[]) => string[]]>([
    ['two lines exchanged', (lines) => [...lines.slice(0, -2), ...lines.slice(-2).reverse()]],
    ['one line in place of another', (lines) => [...lines.slice(0, -1), ...lines.slice(-2, -1)]],
    ['one line too few', (lines) => lines.slice(0, -1)],
    ['one line too many', (lines) => [...lines, ...lines.slice(-1)]],
  ])('is refused with a B3SUMS that has %s', async (_, change) => {
    const sums = at(-1);
    const lines = sums.body.toString('latin1').split('\n').slice(0, -1);
    const body = Buffer.from(`${change(lines).join('\n')}\n`, 'latin1');
    const faults = await refused(replaced(parts.length - 1, withBody(sums, body)));
    expect(faults.map((f) => f.message)).toContainEqual(
      expect.stringContaining('B3SUMS does not list exactly the entries, in order'),
    );
  });

  it('is refused with entries in another order', async () => {
    const swapped = [...parts];
    swapped.splice(layer(), 2, at(layer() + 1), at(layer()));
    const faults = await refused(joined(swapped));
    expect(faults[0]?.message).toContain('out of order');
  });

  it('is refused without one of its blobs', async () => {
    const faults = await refused(replaced(layer()));
    expect(faults).toContainEqual(
      expect.objectContaining({
        code: 'BUNDLE_ENTRY_MISSING',
        message: expect.stringContaining(at(layer()).name),
      }),
    );
  });

  it('is refused without a manifest of one of its images', async () => {
    const index = good.entries.findIndex((e) => e.digest === site.images[0]?.index.digest);
    const faults = await refused(replaced(index));
    const incomplete = faults.find((f) => f.code === 'BUNDLE_GRAPH_INCOMPLETE');
    expect(incomplete?.message).toContain(site.images[0]?.name);
    expect(incomplete?.message).toContain(at(index).name);
  });

  for (const name of ['oci-layout', 'index.json', 'versions.lock', 'sealift.json', 'SHA256SUMS', 'B3SUMS']) {
    it(`is refused without ${name}`, async () => {
      const faults = await refused(replaced(parts.findIndex((p) => p.name === name)));
      expect(faults.map((f) => f.code)).toContain('BUNDLE_ENTRY_MISSING');
      expect(faults.map((f) => f.message).join('\n')).toContain(name);
    });
  }

  it('is refused with a blob that the lock does not name', async () => {
    const extra = withBody(at(layer()), Buffer.from('extra'));
    const field = Buffer.alloc(100);
    field.write(`blobs/sha256/${'f'.repeat(64)}`);
    const header = changedHeader(extra.header, { 0: field });
    const faults = await refused(replaced(layer(), at(layer()), { ...extra, header }));
    expect(faults[0]).toMatchObject({
      code: 'BUNDLE_ENTRY_EXTRA',
      details: { entry: `blobs/sha256/${'f'.repeat(64)}` },
    });
  });

  it('is refused with very many blobs that the lock does not name', async () => {
    const nameOf = (i: number): string => `blobs/sha256/${i.toString(16).padStart(64, '0')}`;
    const extra = Array.from({ length: 130_000 }, (_, i) => tarHeader(nameOf(i), 0));
    const path = site.path('many.tar');
    await writeFile(path, Buffer.concat([good.bytes.subarray(0, -END.length), ...extra, END]));
    const bundle = await openBundle(path, { signal: contextOf().signal, strict: false });
    await bundle.close();
    expect(bundle.faults.filter((f) => f.code === 'BUNDLE_ENTRY_EXTRA').length).toBe(130_000);
  });

  it('is refused with one byte more', async () => {
    const faults = await refused(Buffer.concat([good.bytes, Buffer.alloc(1)]));
    expect(faults).toEqual([
      expect.objectContaining({
        code: 'BUNDLE_NOT_CANONICAL',
        details: expect.objectContaining({ expected: good.bytes.length, found: good.bytes.length + 1 }),
      }),
    ]);
  });

  it('is refused with zero blocks up to 10240 bytes, as tar itself would write it', async () => {
    const rest = Buffer.alloc(10240 - (good.bytes.length % 10240));
    const faults = await refused(Buffer.concat([good.bytes, rest]));
    expect(faults[0]?.message).toContain(`${rest.length} bytes too many`);
  });

  it('is refused with a second archive behind the first', async () => {
    const faults = await refused(Buffer.concat([good.bytes, good.bytes]));
    expect(faults[0]).toMatchObject({ details: { offset: good.bytes.length - 1024 } });
    expect(faults.map((f) => f.message).join('\n')).toContain('twice');
  });

  it('is refused without its end, with half of it, and with an end that is not zero', async () => {
    expect((await refused(joined(parts, Buffer.alloc(0))))[0]?.code).toBe('BUNDLE_TRUNCATED');
    expect((await refused(joined(parts, Buffer.alloc(512))))[0]?.code).toBe('BUNDLE_TRUNCATED');
    for (const place of [0, 511, 512, 1023]) {
      const end = Buffer.from(END);
      end[place] = 1;
      const faults = await refused(joined(parts, end));
      const offset = good.bytes.length - 1024 + (place < 512 ? 0 : place);
      expect(faults[0]).toMatchObject({ code: 'BUNDLE_NOT_CANONICAL', details: { offset } });
    }
  });

  it('is refused when a header was overwritten with zeros, and what follows is still judged', async () => {
    const index = layer();
    const zeroed = { ...at(index), header: Buffer.alloc(512) };
    const bytes = replaced(index, zeroed);
    const last = good.entries.at(-2);
    if (last === undefined) throw new Error('a bundle has blobs');
    bytes[last.offset] = (bytes[last.offset] ?? 0) ^ 1;
    const faults = await refused(bytes);
    expect(faults[0]?.message).toContain('zeros where a header belongs');
    const named = faults.map((f) => f.details?.entry).filter((e) => e !== undefined);
    expect(named).toEqual([at(index).name, last.name]);
  });

  it('is named by verify with padding that is not zero, at the very byte', async () => {
    const index = parts.findIndex((p) => p.padding.length > 1);
    const padding = Buffer.from(at(index).padding);
    padding[padding.length - 1] = 1;
    const path = site.path('padding.tar');
    await writeFile(path, replaced(index, { ...at(index), padding }));
    const entry = good.entries[index];
    const offset = (entry?.offset ?? 0) + (entry?.size ?? 0) + padding.length - 1;
    expect(await faultsOf(path)).toEqual([
      expect.objectContaining({ code: 'BUNDLE_NOT_CANONICAL', details: { offset } }),
    ]);
  });

  it('is refused with a size that is larger than the file, up to the largest number', async () => {
    for (const size of ['77777777777\0', '00100000000\0']) {
      const part = at(layer());
      const faults = await refused(
        replaced(layer(), { ...part, header: changedHeader(part.header, { 124: size }) }),
      );
      expect(faults[0]).toMatchObject({ code: 'BUNDLE_TRUNCATED', details: { entry: part.name } });
    }
    const body = Buffer.alloc(512);
    body.write('25 size=9007199254740991\n');
    const pax = {
      name: 'pax',
      header: changedHeader(at(0).header, { 0: 'pax\0\0\0\0\0\0\0', 124: '00000000031\0', 156: 'x' }),
      body,
      padding: Buffer.alloc(0),
    };
    const huge = { ...at(layer()), header: changedHeader(at(layer()).header, { 124: '00000000000\0' }) };
    const faults = await refused(replaced(layer(), pax, huge));
    expect(faults[0]).toMatchObject({
      code: 'BUNDLE_TRUNCATED',
      details: { entry: huge.name, expected: Number.MAX_SAFE_INTEGER },
    });
  });

  it('is refused with a document of many gigabytes, without holding it', async () => {
    const path = site.path('hole.tar');
    const size = 7 * 1024 ** 3;
    const header = changedHeader(at(3).header, { 124: `${size.toString(8).padStart(11, '0')}\0` });
    const before = joined(parts.slice(0, 3), Buffer.alloc(0));
    await writeFile(path, Buffer.concat([before, header]));
    await truncate(path, before.length + 512 + size + 1024);
    const faults = await faultsOf(path);
    expect(faults.map((f) => exitCodeOf(f.code))).toEqual(faults.map(() => 5));
    expect(faults.map((f) => f.message).join('\n')).toContain('more than 134217728 bytes');
  });

  it('is refused with nothing in it: no bytes, no entries, or something else entirely', async () => {
    for (const bytes of [
      Buffer.alloc(0),
      END,
      Buffer.alloc(100_000),
      Buffer.from('PK\u0003\u0004 this is a zip, is it not'),
      Buffer.alloc(70_000, 'ustar'),
    ]) {
      expect((await refused(bytes)).length).toBeGreaterThan(0);
    }
  });

  it('is refused when tar itself wrote the same entries', async () => {
    const dir = site.path('again');
    execFileSync('mkdir', [dir]);
    execFileSync('tar', ['-xf', good.path, '-C', dir]);
    const names = good.entries.map((e) => e.name);
    const tar = execFileSync('tar', ['--format=gnu', '-c', '-C', dir, ...names], {
      maxBuffer: 64 * 1024 * 1024,
    });
    const codes = (await refused(tar)).map((f) => f.code);
    expect(codes).toContain('BUNDLE_NOT_CANONICAL');
  });

  it('is never a named pipe: that would wait for ever', async () => {
    const path = site.path('pipe');
    execFileSync('mkfifo', [path]);
    const error: unknown = await verify({ bundle: path }, contextOf()).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'BUNDLE_NOT_FOUND' });
  });
});
