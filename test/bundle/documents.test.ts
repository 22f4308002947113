/** What sealift.json, SHA256SUMS and B3SUMS may say, and what is made of a bundle of a later format. */
import { writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseInfo, readSums, type SumLine } from '../../src/bundle/documents.ts';
import { hexOf } from '../../src/core/digest.ts';
import { exitCodeOf, SealiftError } from '../../src/core/errors.ts';
import { digestOf } from '../../src/io/verify.ts';
import { ls } from '../../src/ops/ls.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from './site.ts';
import { joined, type Part, partsOf, withBody } from './tar-parts.ts';

const INFO = {
  formatVersion: 1,
  minReader: 1,
  name: 'site',
  version: '1',
  lock: digestOf(''),
  size: '0000000000001024',
  entries: 6,
  base: null,
};

function errorOf(body: unknown): SealiftError {
  const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  try {
    parseInfo(bytes, 'b.tar');
  } catch (error) {
    if (error instanceof SealiftError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('sealift.json', () => {
  it('is read when it has exactly the fixed keys', () => {
    expect(parseInfo(Buffer.from(JSON.stringify(INFO)), 'b.tar')).toEqual({
      formatVersion: 1,
      minReader: 1,
      name: 'site',
      version: '1',
      lock: INFO.lock,
      size: 1024,
      entries: 6,
      base: null,
    });
  });

  it('is refused with other keys, other types or no JSON at all, and the place is named', () => {
    for (const [body, place] of [
      [{ ...INFO, size: '1024' }, 'size'],
      [{ ...INFO, size: 1024 }, 'size'],
      [{ ...INFO, entries: 0 }, 'entries'],
      [{ ...INFO, lock: 'sha256:12' }, 'lock'],
      [{ ...INFO, base: { lock: INFO.lock, leftOut: [] } }, 'base'],
      [{ ...INFO, name: '' }, 'name'],
      [{ ...INFO, more: 1 }, 'more'],
      [{ ...INFO, minReader: '1' }, 'minReader'],
      ['[]', 'sealift.json'],
      ['{"formatVersion": 1', 'not JSON'],
      ['', 'not JSON'],
    ] as const) {
      const error = errorOf(body);
      expect(error.code).toBe('BUNDLE_NOT_CANONICAL');
      expect(error.message).toContain(place);
    }
  });

  it('of a later format is refused as too new, whatever else it says: exit 2', () => {
    for (const body of [
      { ...INFO, minReader: 2 },
      { minReader: 1000, everything: 'else is new' },
      { ...INFO, minReader: Number.MAX_SAFE_INTEGER },
    ]) {
      const error = errorOf(body);
      expect([error.code, exitCodeOf(error.code)]).toEqual(['BUNDLE_TOO_NEW', 2]);
      expect(error.hint).toContain('newer');
    }
  });
});

describe('SHA256SUMS and B3SUMS', () => {
  const hex = 'ab'.repeat(32);

  /** What is read of a text that comes in pieces of 50 bytes: lines begin and end anywhere in them. */
  async function linesOf(text: string) {
    const lines: SumLine[] = [];
    const starts = Array.from({ length: Math.ceil(text.length / 50) }, (_, i) => 50 * i);
    const source = Readable.from(starts.map((at) => Buffer.from(text.slice(at, at + 50))));
    return { faults: await readSums(source, 'SUMS', (line) => lines.push(line)), lines };
  }

  it('are read line by line, and the first wrong line is named', async () => {
    expect(await linesOf(`${hex}  a\n${hex}  b/c\n`)).toEqual({
      lines: [
        { hex, name: 'a' },
        { hex, name: 'b/c' },
      ],
      faults: [],
    });
    for (const bad of [
      `${hex} a\n`,
      `${hex} *a\n`,
      `${hex}  a`,
      `${hex}  a\r\n`,
      `${hex.toUpperCase()}  a\n`,
      `${hex}  a b\n`,
      `${hex}  \n`,
      '\n',
      `${hex}  ${'n'.repeat(101)}\n`,
    ]) {
      const { lines, faults } = await linesOf(`${hex}  first\n${bad}${hex}  last\n`);
      expect(lines).toEqual([{ hex, name: 'first' }]);
      expect(faults.map((f) => [f.code, f.message])).toEqual([
        ['BUNDLE_NOT_CANONICAL', 'SUMS: line 2 is not "<hex>  <name>"'],
      ]);
    }
  });
});

describe('a bundle of a later format', () => {
  let site: Site;
  let good: Packed;
  let parts: Part[];

  beforeAll(async () => {
    site = await openSite({ fleet: { images: 1 } });
    good = await packSite(site);
    parts = partsOf(good);
  });

  afterAll(() => site.close());

  /** The bundle with these documents, its size as it was. */
  async function withDocuments(change: (name: string, text: string) => string): Promise<string> {
    const path = site.path('later.tar');
    const made = parts.map((p) => {
      const body = Buffer.from(change(p.name, p.body.toString('latin1')), 'latin1');
      return body.equals(p.body) ? p : withBody(p, body);
    });
    await writeFile(path, joined(made));
    return path;
  }

  const later = (text: string): string => text.replace('"minReader": 1', '"minReader": 2');

  it('is refused as too new by every verb when its checksums agree: exit 2', async () => {
    const info = later(parts[3]?.body.toString('latin1') ?? '');
    const path = await withDocuments((name, text) => {
      if (name === 'sealift.json') return info;
      if (name !== 'SHA256SUMS') return text;
      return text.replace(/^.{64}(?= {2}sealift\.json$)/m, hexOf(digestOf(info)));
    });
    await expect(verify({ bundle: path }, contextOf())).rejects.toMatchObject({ code: 'BUNDLE_TOO_NEW' });
    await expect(ls(path, contextOf())).rejects.toMatchObject({ code: 'BUNDLE_TOO_NEW' });
  });

  it('is damage, not a later format, when its checksums say so: exit 5', async () => {
    const path = await withDocuments((name, text) => (name === 'sealift.json' ? later(text) : text));
    const error: unknown = await verify({ bundle: path }, contextOf()).catch((e: unknown) => e);
    expect(error).toMatchObject({
      code: 'BUNDLE_CHECKSUM_MISMATCH',
      faults: [{ details: { entry: 'sealift.json', offset: good.entries[3]?.offset } }],
    });
  });
});
