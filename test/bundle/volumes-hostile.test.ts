/** Volumes whose names or documents claim what is not there: each ends soon, and says what is wrong. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { verify } from '../../src/ops/verify.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from './site.ts';

let site: Site;
let good: Packed;
const SIZE = 8192;

beforeAll(async () => {
  site = await openSite();
  good = await packSite(site);
});
afterAll(() => site.close());

beforeEach(async () => {
  await rm(site.path('volumes'), { recursive: true, force: true });
  await mkdir(site.path('volumes'));
});

const volume = (number: number | string): string =>
  site.path('volumes', `b.tar.${String(number).padStart(3, '0')}`);

/** Writes volumes of some bytes and returns everything that verify says of them. */
async function saidOf(bytes: Buffer, nameOf: (number: number) => string | undefined): Promise<string> {
  for (let n = 1; (n - 1) * SIZE < bytes.length; n += 1) {
    const path = nameOf(n);
    if (path !== undefined) await writeFile(path, bytes.subarray((n - 1) * SIZE, n * SIZE));
  }
  try {
    const result = await verify({ bundle: site.path('volumes') }, contextOf());
    return result.faults.map((f) => `${f.code} ${f.message}`).join('\n');
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    return [error, ...error.faults].map((f) => `${f.code} ${f.message}`).join('\n');
  }
}

describe('volumes', () => {
  it('are read where all are there', async () => {
    expect(await saidOf(good.bytes, volume)).toBe('');
  });

  it('without the first are named, and nothing is read as if it were there', async () => {
    const said = await saidOf(good.bytes, (n) => (n === 1 ? undefined : volume(n)));
    expect(said).toContain('BUNDLE_VOLUME_MISSING');
    expect(said).toContain('b.tar.001 is missing');
  });

  it('of which only one with a large number is there end soon', async () => {
    const said = await saidOf(good.bytes, (n) => (n === 1 ? volume(9_999) : undefined));
    expect(said).toContain('b.tar.0001 to b.tar.9998 are missing: volumes 1 to 9998 of 9999');
  });

  it('with a number above the limit are refused with its name', async () => {
    const alone = await saidOf(good.bytes, (n) => (n === 1 ? volume(999_999) : undefined));
    expect(alone).toContain('CONTENT_TOO_LARGE');
    expect(alone).toContain('more than 10000 volumes');
  });

  it('of more bytes than any volumes could have, as their sealift.json says, are refused', async () => {
    const text = good.bytes.toString('latin1').replace(/"size": "\d{16}"/, '"size": "9007199254740992"');
    const said = await saidOf(Buffer.from(text, 'latin1'), volume);
    expect(said).toContain('CONTENT_TOO_LARGE');
    expect(said).toContain('more than 10000 volumes');
  });
});
