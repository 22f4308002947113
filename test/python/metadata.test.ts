import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import { parseMetadata } from '../../src/python/metadata.ts';
import {
  checkPackage,
  metadataTap,
  type PackageBlob,
  readPackageMetadata,
} from '../../src/python/package-file.ts';
import { metadataText, sdist, wheel, zip } from '../support/wheels.ts';

function blobOf(bytes: Buffer): PackageBlob & { readonly reads: number[] } {
  const reads: number[] = [];
  return {
    size: bytes.length,
    reads,
    read: async (from, length) => {
      reads.push(length);
      return bytes.subarray(from, from + length);
    },
    async *open() {
      for (let at = 0; at < bytes.length; at += 1_000) yield bytes.subarray(at, at + 1_000);
    },
  };
}

async function tapped(fileName: string, bytes: Buffer) {
  const tap = metadataTap(fileName, bytes.length);
  for (let at = 0; at < bytes.length; at += 50_000) await tap.feed(bytes.subarray(at, at + 50_000));
  return tap.end();
}

const TEXT = `Metadata-Version: 2.4
Name: Ship.App
Version: 1.0
Summary: a summary: with a colon
Classifier: A :: B
Classifier: C
Requires-Dist: x>=1; extra == "y"
Project-URL: Home, https://example.org
Requires-Python: >=3.8
License: one
        two
       |three
X-Nobody-Knows: 1
Keywords: UNKNOWN

A text: not a header

Ende äöü
`;

describe('metadata of a package', () => {
  it('is read with repeated and folded fields, and the text behind them', () => {
    const { name, version, fields } = parseMetadata(Buffer.from(TEXT), 'x');
    expect([name, version]).toEqual(['Ship.App', '1.0']);
    expect(fields).toEqual([
      ['metadata_version', '2.4'],
      ['name', 'Ship.App'],
      ['version', '1.0'],
      ['summary', 'a summary: with a colon'],
      ['classifiers', 'A :: B'],
      ['classifiers', 'C'],
      ['requires_dist', 'x>=1; extra == "y"'],
      ['project_urls', 'Home, https://example.org'],
      ['requires_python', '>=3.8'],
      ['license', 'one\ntwo\nthree'],
      ['description', 'A text: not a header\n\nEnde äöü\n'],
    ]);
  });

  it('is read with the line ends of Windows', () => {
    const { fields } = parseMetadata(Buffer.from(TEXT.replaceAll('\n', '\r\n')), 'x');
    expect(fields).toContainEqual(['classifiers', 'C']);
    expect(fields.at(-1)?.[0]).toBe('description');
  });

  it('is refused without name or version, with either twice, and with too many fields', () => {
    const refused = (text: string): void =>
      expect(() => parseMetadata(Buffer.from(text), 'x.whl'), text.slice(0, 40)).toThrow(/^x\.whl: /);
    refused('Version: 1\n');
    refused('Name: a\n\nVersion: 1\n');
    refused('Name: a\nVersion: 1\nVersion: 2\n');
    refused('Name: a\nName: b\nVersion: 1\n');
    refused(`Name: a\nVersion: 1\n${'Classifier: x\n'.repeat(LIMITS.packageFields)}`);
    refused('');
  });

  it('comes out of wheels, read from their end, and out of source archives', async () => {
    const of = { name: 'ship-app', version: '1.0', padding: 3_000_000, requires: ['a', 'b'] };
    const made = wheel(of);
    const blob = blobOf(made.bytes);
    const metadata = await readPackageMetadata(blob, made.fileName);
    expect(metadata?.fields).toContainEqual(['requires_dist', 'b']);
    expect(blob.reads.reduce((a, b) => a + b)).toBeLessThan(500_000);
    const source = await sdist(of);
    expect(await readPackageMetadata(blobOf(source.bytes), source.fileName)).toEqual(metadata);
    const zipped = zip([{ name: 'ship_app-1.0/PKG-INFO', data: metadataText(of) }]);
    expect(await readPackageMetadata(blobOf(zipped), 'ship_app-1.0.zip')).toEqual(metadata);
  });

  it('is the same from what passes once', async () => {
    const of = { name: 'ship-app', version: '1.0', padding: 6_000_000 };
    for (const { fileName, bytes } of [wheel(of), await sdist(of)]) {
      expect(await tapped(fileName, bytes)).toEqual(await readPackageMetadata(blobOf(bytes), fileName));
    }
  });

  it('is not known of a passing wheel that has it at its beginning', async () => {
    const text = metadataText({ name: 'a', version: '1' });
    const bytes = zip([
      { name: 'a-1.dist-info/METADATA', data: text },
      { name: 'data', data: Buffer.alloc(6_000_000, 'x'), compress: false },
    ]);
    expect(await tapped('a-1-py3-none-any.whl', bytes)).toBeUndefined();
    expect(await readPackageMetadata(blobOf(bytes), 'a-1-py3-none-any.whl')).toMatchObject({ name: 'a' });
  });

  it('ends where what passes does not come to its end', async () => {
    const { fileName, bytes } = await sdist({ name: 'a', version: '1', padding: 3_000_000 });
    const tap = metadataTap(fileName, bytes.length);
    await tap.feed(bytes.subarray(0, 1_000_000));
    tap.close();
    await expect(tap.end()).rejects.toThrow();
  });

  it('does not wait for a reader that has failed or has enough', async () => {
    const junk = Buffer.alloc(5_000_000, 'x');
    await expect(tapped('a-1.tar.gz', junk)).rejects.toMatchObject({ code: 'PACKAGE_INVALID' });
  });
});

describe('a hostile package', () => {
  const name = 'a-1-py3-none-any.whl';
  const text = metadataText({ name: 'a', version: '1' });
  const entry = { name: 'a-1.dist-info/METADATA', data: text };
  const refused = async (bytes: Buffer, fileName = name): Promise<void> => {
    await expect(readPackageMetadata(blobOf(bytes), fileName)).rejects.toMatchObject({
      code: 'PACKAGE_INVALID',
      message: expect.stringContaining(fileName),
    });
  };

  it('that is no zip, or a cut or empty one, is refused', async () => {
    const good = zip([entry]);
    await refused(Buffer.alloc(0));
    await refused(Buffer.from('PK'));
    await refused(Buffer.alloc(100_000, 'PK\x05\x06'));
    await refused(good.subarray(0, good.length - 30));
    await refused(good.subarray(40));
    await refused(zip([]));
  });

  it('with two such files, or one that is too large or larger than it says, is refused', async () => {
    await refused(zip([entry, entry]));
    await refused(zip([entry, { ...entry, name: 'b-1.dist-info/METADATA' }]));
    await refused(zip([{ ...entry, data: Buffer.alloc(LIMITS.packageMetadata + 1, ' ') }]));
    await refused(zip([{ ...entry, data: Buffer.alloc(50_000_000), statedSize: 1_000 }]));
  });

  it('with its metadata elsewhere is no wheel', async () => {
    await refused(zip([{ ...entry, name: 'x/a-1.dist-info/METADATA' }]));
    await refused(zip([{ ...entry, name: 'a-1.dist-info/metadata' }]));
    await refused(zip([{ ...entry, name: '../a-1.dist-info/METADATA' }]));
  });

  it('that is a damaged gzip or tar is refused; one without PKG-INFO is not', async () => {
    const { bytes } = await sdist({ name: 'a', version: '1', padding: 100_000 });
    await refused(bytes.subarray(0, 50_000), 'a-1.tar.gz');
    await refused(Buffer.from('no gzip'), 'a-1.tar.gz');
    await refused(gzipSync(Buffer.alloc(5_000, 'x')), 'a-1.tar.gz');
    expect(await readPackageMetadata(blobOf(gzipSync(Buffer.alloc(1_024))), 'a-1.tar.gz')).toBeUndefined();
  });

  it('does not hide what its own reading failed with', async () => {
    const { bytes } = wheel({ name: 'a', version: '1' });
    const failure = new Error('the disk is gone');
    const blob = {
      ...blobOf(bytes),
      read: async () => {
        throw failure;
      },
    };
    await expect(readPackageMetadata(blob, name)).rejects.toBe(failure);
    const source = {
      ...blobOf(bytes),
      // biome-ignore lint/correctness/useYield: it fails before its first byte
      async *open(): AsyncGenerator<Uint8Array> {
        throw failure;
      },
    };
    await expect(readPackageMetadata(source, 'a-1.tar.gz')).rejects.toBe(failure);
  });
});

describe('name, metadata and lock', () => {
  const metadata = parseMetadata(Buffer.from(metadataText({ name: 'Ship.App', version: '1.0' })), 'x');
  it('agree in any spelling', () => {
    for (const fileName of ['ship_app-1.0-py3-none-any.whl', 'Ship.App-1.0.0.tar.gz']) {
      checkPackage(fileName, { project: 'ship-app', version: 'v1', metadata });
    }
    const local = parseMetadata(Buffer.from(metadataText({ name: 'a', version: '1.0+cu-12' })), 'x');
    checkPackage('a-1.0+cu_12-py3-none-any.whl', { project: 'a', version: '1.0+cu.12', metadata: local });
    expect(metadata.name).toBe('Ship.App');
  });

  it('are refused where they differ', () => {
    const refused = (fileName: string, project = 'ship-app', version = '1.0'): void =>
      expect(() => checkPackage(fileName, { project, version, metadata }), fileName).toThrow(fileName);
    refused('ship_app-1.1-py3-none-any.whl');
    refused('ship_apps-1.0-py3-none-any.whl');
    refused('ship_app-1.0-py3-none-any.whl', 'ship-apps');
    refused('ship_app-1.0-py3-none-any.whl', 'ship-app', '1.0.1');
    refused('ship_app-1.0.whl');
    refused('ship_app.tgz');
  });
});
