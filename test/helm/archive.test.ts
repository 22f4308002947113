import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { LIMITS } from '../../src/core/limits.ts';
import { readChartArchive } from '../../src/helm/archive.ts';
import { type ChartContent, missingDependencies } from '../../src/helm/content.ts';
import {
  chartArchive,
  demoFiles,
  inPieces,
  padded,
  rawHeader,
  type TarSpec,
  tarOf,
  tgzOf,
} from '../support/charts.ts';

const read = (bytes: Uint8Array, piece?: number): Promise<ChartContent> =>
  readChartArchive(inPieces(bytes, piece), { what: 'x.tgz' });

async function errorFor(bytes: Uint8Array): Promise<SealiftError> {
  const error = await read(bytes).catch((e: unknown) => e);
  if (error instanceof SealiftError) return error;
  throw new Error(`expected a refusal, got ${String(error)}`);
}

async function codeFor(bytes: Uint8Array): Promise<string> {
  return (await errorFor(bytes)).code;
}

const withEntries = async (...more: TarSpec[]): Promise<Buffer> =>
  tgzOf([...Object.entries(demoFiles()).map(([path, data]) => ({ name: `demo/${path}`, data })), ...more]);

const sha = (data: string | Uint8Array): string => createHash('sha256').update(data).digest('hex');
const END = Buffer.alloc(1024);
const chartBlock = Buffer.concat([
  rawHeader({ name: 'demo/Chart.yaml', size: Buffer.byteLength(String(demoFiles()['Chart.yaml'])) }),
  padded(String(demoFiles()['Chart.yaml'])),
]);

describe('reading a chart archive', () => {
  it('tells name, versions, files, sizes and the tree hash, however the bytes arrive', async () => {
    const files = demoFiles();
    const expected = sha(
      Object.entries(files)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([path, data]) => `${sha(data)}  ${path}\n`)
        .join(''),
    );
    const bytes = await chartArchive(files);
    for (const piece of [1, 7, 100_000]) {
      const content = await read(bytes, piece);
      expect(content.chart).toMatchObject({
        name: 'demo',
        version: '1.2.3',
        appVersion: '7.0',
        apiVersion: 'v2',
      });
      expect(content.tree).toBe(`sha256:${expected}`);
      expect(content.files).toBe(3);
      expect(content.unpackedSize).toBe(Object.values(files).join('').length);
      expect([...content.entries.keys()]).toEqual(['Chart.yaml', 'templates/cm.yaml', 'values.yaml']);
      expect(content.warnings).toEqual([]);
    }
  });

  it('has a tree hash that depends on paths and content, not on order, mode, time or base folder', async () => {
    const arbitrary = fc.dictionary(
      fc.stringMatching(/^[a-z]{1,8}(\/[a-zé]{1,8}){0,2}\.txt$/),
      fc.string({ maxLength: 2000 }),
      { maxKeys: 8 },
    );
    await fc.assert(
      fc.asyncProperty(arbitrary, fc.nat(), async (extra, time) => {
        const files = Object.entries({ ...extra, ...demoFiles() });
        const a = await read(await tgzOf(files.map(([p, data]) => ({ name: `demo/${p}`, data }))));
        const b = await read(
          await tgzOf(
            [...files].reverse().map(([p, data]) => ({
              name: `other/./${p}`,
              data,
              mode: 0o700,
              mtime: new Date(time),
            })),
          ),
        );
        expect(b.tree).toBe(a.tree);
        const c = await read(
          await tgzOf([...files, ['new', 'x'] as const].map(([p, data]) => ({ name: `demo/${p}`, data }))),
        );
        expect(c.tree).not.toBe(a.tree);
      }),
      { numRuns: 25 },
    );
  });

  it('gives every file once, without its byte order mark', async () => {
    const got = new Map<string, string>();
    const bytes = await chartArchive({ ...demoFiles(), 'values.yaml': '\ufeffa: 1\n' });
    const content = await readChartArchive(inPieces(bytes), {
      what: 'x',
      onFile: (path, data) => void got.set(path, data.toString()),
    });
    expect(got.get('values.yaml')).toBe('a: 1\n');
    expect(content.entries.get('values.yaml')).toBe(`sha256:${sha('a: 1\n')}`);
    expect([...got.keys()].sort()).toEqual([...content.entries.keys()]);
  });

  it('reads long names, names beyond ASCII, folders, global headers and names from Windows', async () => {
    const long = `templates/${'deep/'.repeat(40)}file-with-a-name.yaml`;
    const bytes = await withEntries(
      { name: `demo/${long}`, data: 'long' },
      { name: 'demo/docs/한국어.md', data: 'ko' },
      { name: 'demo/empty/', type: 'directory' },
      { name: 'demo\\win\\notes.txt', data: 'w' },
    );
    const { entries } = await read(bytes);
    expect([...entries.keys()]).toContain(long);
    expect([...entries.keys()]).toContain('docs/한국어.md');
    expect([...entries.keys()]).toContain('win/notes.txt');
    const comment = '26 comment=0123456789abcd\n';
    const global = [
      rawHeader({ name: 'pax_global_header', size: comment.length, type: 'g' }),
      padded(comment),
    ];
    expect((await read(gzipSync(Buffer.concat([...global, chartBlock, END])))).files).toBe(1);
  });

  it('reads GNU long names, the old v7 format and several gzip members', async () => {
    const name = `demo/${'n'.repeat(150)}\0`;
    const gnu = [
      rawHeader({ name: '././@LongLink', size: name.length, type: 'L', magic: 'ustar  \0' }),
      padded(name),
    ];
    const file = [rawHeader({ name: 'demo/nnn', size: 2, magic: '\0\0\0\0\0\0\0\0' }), padded('hi')];
    const tar = Buffer.concat([chartBlock, ...gnu, ...file, END]);
    const split = Buffer.concat([gzipSync(tar.subarray(0, 700)), gzipSync(tar.subarray(700))]);
    for (const bytes of [gzipSync(tar), split]) {
      expect((await read(bytes, 50)).entries.get('n'.repeat(150))).toBe(`sha256:${sha('hi')}`);
    }
  });

  it('lists charts inside it at any depth, in folders and in archives', async () => {
    const inner = await chartArchive(
      { ...demoFiles('inner', '0.1.0'), 'charts/leaf/Chart.yaml': 'name: leaf\nversion: 9.0.0\n' },
      'inner',
    );
    const content = await read(
      await chartArchive({
        ...demoFiles(),
        'Chart.yaml':
          'apiVersion: v2\nname: demo\nversion: 1.0.0\ndependencies:\n- {name: inner, version: "0.x", repository: "https://r.example"}\n- {name: gone, version: 1.0.0, repository: ""}\n- {name: leaf, version: 9.0.0}\n',
        'charts/inner-0.1.0.tgz': inner,
        'charts/inner-0.1.0.tgz.prov': 'x',
        'charts/folder/Chart.yaml': 'apiVersion: v2\nname: folder\nversion: v2.0\n',
        'charts/_ignored/x.yaml': '',
        'templates/charts/no/Chart.yaml': '{{ not yaml',
      }),
    );
    expect(content.vendored).toEqual([
      { name: 'folder', version: 'v2.0', path: 'charts/folder' },
      { name: 'inner', version: '0.1.0', path: 'charts/inner-0.1.0.tgz', archive: `sha256:${sha(inner)}` },
      { name: 'leaf', version: '9.0.0', path: 'charts/inner-0.1.0.tgz/charts/leaf' },
    ]);
    expect(missingDependencies(content).map((d) => d.name)).toEqual(['gone', 'leaf']);
    expect(content.warnings).toEqual([]);
  });

  it('takes the dependencies of an old chart from requirements.yaml and reads its lock', async () => {
    const { chart, lock } = await read(
      await chartArchive({
        'Chart.yaml': 'name: demo\nversion: 1.0.0\n',
        'requirements.yaml': 'dependencies:\n- {name: redis, version: ~1.10, repository: "@stable"}\n',
        'requirements.lock':
          'digest: sha256:abc\ndependencies:\n- {name: redis, version: 1.10, repository: "@stable"}\n',
      }),
    );
    expect(chart.apiVersion).toBe('v1');
    expect(chart.dependencies).toEqual([{ name: 'redis', version: '~1.10', repository: '@stable' }]);
    expect(lock?.dependencies).toEqual([{ name: 'redis', version: '1.10', repository: '@stable' }]);
  });

  it('warns about what Helm would not load, and about names that differ only by case', async () => {
    const { warnings } = await read(
      await chartArchive({
        ...demoFiles(),
        'Values.yaml': '',
        'charts/README.md': '',
        'big.bin': Buffer.alloc(LIMITS.chartFileWarn + 1),
      }),
    );
    const text = warnings.map((w) => w.message).join('\n');
    expect(warnings).toHaveLength(3);
    expect(text).toMatch(/"values\.yaml" and "Values\.yaml"/);
    expect(text).toMatch(/charts\/README\.md is not a chart/);
    expect(text).toMatch(/big\.bin has 5242881 bytes/);
  });
});

describe('a hostile archive', () => {
  it.each([
    ['demo/../../etc/passwd'],
    ['../demo/Chart.yaml'],
    ['/demo/values.yaml'],
    ['//x'],
    ['demo/..hidden'],
    ['demo\\..\\x'],
    ['demo/a\\..\\b'],
    ['C:/x/y'],
    ['demo/c:/x'],
    ['demo\\C:\\x'],
  ])('with the path %s is refused as traversal', async (name) => {
    expect(await codeFor(await withEntries({ name, data: 'x' }))).toBe('CHART_ARCHIVE_TRAVERSAL');
  });

  it('is refused for a folder entry that leads out, too', async () => {
    expect(await codeFor(await withEntries({ name: 'demo/../../x/', type: 'directory' }))).toBe(
      'CHART_ARCHIVE_TRAVERSAL',
    );
  });

  it.each(['symlink', 'link'] as const)('with a %s is refused', async (type) => {
    const error = await errorFor(await withEntries({ name: 'demo/values', type, linkname: '/etc/passwd' }));
    expect(error.code).toBe('CHART_ARCHIVE_LINK');
    expect(error.message).toMatch(/"demo\/values" is a (symbolic|hard) link/);
  });

  it.each(['character-device', 'block-device', 'fifo'] as const)('with a %s is refused', async (type) => {
    expect(await codeFor(await withEntries({ name: 'demo/dev', type }))).toBe('CHART_ARCHIVE_SPECIAL');
  });

  it.each([
    ['an unknown entry type', rawHeader({ name: 'demo/x', type: 'S' })],
    ['a file whose mode says symbolic link', rawHeader({ name: 'demo/x', mode: '0120777' })],
  ])('with %s is refused', async (_what, header) => {
    expect(await codeFor(gzipSync(Buffer.concat([chartBlock, header, END])))).toBe('CHART_ARCHIVE_SPECIAL');
  });

  it.each([['second/file.txt'], ['README.md'], ['Chart.yaml']])(
    'with %s beside its base folder is refused',
    async (name) => {
      expect(await codeFor(await withEntries({ name, data: 'x' }))).toBe('CHART_ARCHIVE_ROOTS');
    },
  );

  it.each([
    ['the same path twice', ['demo/values.yaml']],
    ['the same path in another spelling', ['demo/./values.yaml']],
    ['a file where a folder is', ['demo/templates']],
    ['a file below a file', ['demo/values.yaml/x']],
    ['a line break in a path', ['demo/a\nb']],
    ['a replacement character in a path, which no tree could be compared with', ['demo/\ufffd']],
    ['a path longer than 4096 bytes', [`demo/${'x/'.repeat(2100)}y`]],
    ['folders nested beyond reason', [`demo/${'x/'.repeat(100)}y`]],
  ])('with %s is refused', async (_what, names) => {
    const bytes = await withEntries(...names.map((name) => ({ name, data: 'x' })));
    expect(await codeFor(bytes)).toBe('CHART_ARCHIVE_INVALID');
  });

  it('shows every faulty entry at once', async () => {
    const error = await errorFor(
      await withEntries(
        { name: 'demo/l', type: 'symlink', linkname: 'x' },
        { name: 'demo/../y', data: '' },
        { name: 'z/y', data: '' },
      ),
    );
    expect(error.faults.map((f) => f.code)).toEqual([
      'CHART_ARCHIVE_LINK',
      'CHART_ARCHIVE_TRAVERSAL',
      'CHART_ARCHIVE_ROOTS',
    ]);
  });

  it('is refused when the fault is in an archive inside it', async () => {
    const inner = await withEntries({ name: 'demo/l', type: 'symlink', linkname: 'x' });
    const error = await errorFor(await chartArchive({ ...demoFiles(), 'charts/in-1.tgz': inner }));
    expect(error.code).toBe('CHART_ARCHIVE_LINK');
    expect(error.message).toContain('charts/in-1.tgz');
  });

  it('with charts nested too deeply is refused', async () => {
    let bytes = await chartArchive();
    for (let i = 0; i < LIMITS.chartDepth + 1; i++)
      bytes = await chartArchive({ ...demoFiles(), 'charts/c.tgz': bytes });
    expect(await codeFor(bytes)).toBe('CHART_ARCHIVE_INVALID');
    const folders = `${'charts/c/'.repeat(LIMITS.chartDepth + 1)}Chart.yaml`;
    expect(
      await codeFor(await chartArchive({ ...demoFiles(), [folders]: 'name: c\nversion: 1.0.0\n' })),
    ).toBe('CHART_ARCHIVE_INVALID');
  });
});

describe('a bomb', () => {
  it('is stopped at the header when a file states too much', async () => {
    const header = rawHeader({ name: 'demo/big', size: LIMITS.chartUnpacked + 1 });
    expect(await codeFor(gzipSync(Buffer.concat([chartBlock, header])))).toBe('CHART_ARCHIVE_BOMB');
    const base256 = Buffer.from(rawHeader({ name: 'demo/big', sizeField: '\x80\0\0\0\0\0\0\x7f\0\0\0\0' }));
    expect(await codeFor(gzipSync(Buffer.concat([chartBlock, base256])))).toBe('CHART_ARCHIVE_BOMB');
  });

  it('is stopped when files add up to too much', async () => {
    const mib = 1024 * 1024;
    const parts = ['a', 'b', 'c', 'd'].map((n) =>
      gzipSync(Buffer.concat([rawHeader({ name: `demo/${n}`, size: 30 * mib }), Buffer.alloc(30 * mib)])),
    );
    expect(Buffer.concat(parts).length).toBeLessThan(mib);
    expect(await codeFor(Buffer.concat([gzipSync(chartBlock), ...parts, gzipSync(END)]))).toBe(
      'CHART_ARCHIVE_BOMB',
    );
  });

  it('with zeros behind it is refused, in whatever pieces it comes', async () => {
    const bytes = Buffer.concat([await chartArchive(), Buffer.alloc(9000)]);
    for (const size of [1, 100, 700, 65_536]) {
      const pieces = (async function* () {
        for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
      })();
      const failure: unknown = await readChartArchive(pieces, { what: 'demo' }).catch((e: unknown) => e);
      expect(failure).toMatchObject({
        code: 'CHART_ARCHIVE_INVALID',
        message: expect.stringContaining('data after the end of the gzip archive'),
      });
    }
  });

  it('of zeros after the end, in many gzip members, is stopped before its end', async () => {
    const zeros = gzipSync(Buffer.alloc(16 * 1024 * 1024));
    let given = 0;
    const source = async function* (): AsyncGenerator<Uint8Array> {
      yield gzipSync(Buffer.concat([chartBlock, END]));
      for (; given < 200; given++) yield zeros;
    };
    await expect(readChartArchive(source(), { what: 'x' })).rejects.toMatchObject({
      code: 'CHART_ARCHIVE_BOMB',
    });
    expect(given).toBeLessThan(50);
  });

  it('of nested archives shares one limit', async () => {
    const inner = gzipSync(
      Buffer.concat([
        chartBlock,
        rawHeader({ name: 'demo/z', size: 40 * 1024 * 1024 }),
        Buffer.alloc(40 * 1024 * 1024),
        END,
      ]),
    );
    const files = { ...demoFiles(), 'charts/a.tgz': inner, 'charts/b.tgz': inner, 'charts/c.tgz': inner };
    expect(await codeFor(await chartArchive(files))).toBe('CHART_ARCHIVE_BOMB');
  });

  it('of entries or of header records is stopped', async () => {
    const many = Array.from({ length: LIMITS.chartFiles + 1 }, (_, i) => rawHeader({ name: `demo/f${i}` }));
    expect(await codeFor(gzipSync(Buffer.concat([chartBlock, ...many, END])))).toBe('CHART_ARCHIVE_BOMB');
    const pax = rawHeader({ name: 'pax', size: 2 * 1024 * 1024, type: 'x' });
    expect(await codeFor(gzipSync(Buffer.concat([pax, Buffer.alloc(2 * 1024 * 1024)])))).toBe(
      'CHART_ARCHIVE_BOMB',
    );
  });
});

describe('a damaged archive', () => {
  it('is refused wherever it is cut off', async () => {
    const bytes = await chartArchive();
    for (const cut of [
      0,
      1,
      2,
      3,
      10,
      50,
      Math.floor(bytes.length / 2),
      bytes.length - 9,
      bytes.length - 1,
    ]) {
      expect(await codeFor(bytes.subarray(0, cut)), `cut at ${cut}`).toBe('CHART_ARCHIVE_INVALID');
    }
    const tar = await tarOf([{ name: 'demo/Chart.yaml', data: String(demoFiles()['Chart.yaml']) }]);
    for (const cut of [100, 513, 600]) {
      expect(await codeFor(gzipSync(tar.subarray(0, cut))), `tar cut at ${cut}`).toBe(
        'CHART_ARCHIVE_INVALID',
      );
    }
  });

  it('is refused with anything after its end', async () => {
    const bytes = await chartArchive();
    for (const tail of [Buffer.from('garbage'), Buffer.from([0]), Buffer.alloc(5000, 7)]) {
      expect(await codeFor(Buffer.concat([bytes, tail]))).toBe('CHART_ARCHIVE_INVALID');
    }
    const apart = async function* (): AsyncGenerator<Uint8Array> {
      yield bytes;
      yield Buffer.from('more');
    };
    await expect(readChartArchive(apart(), { what: 'x' })).rejects.toMatchObject({
      code: 'CHART_ARCHIVE_INVALID',
    });
    const second = Buffer.concat([chartBlock, END, rawHeader({ name: 'demo/x' }), END]);
    expect(await codeFor(gzipSync(second))).toBe('CHART_ARCHIVE_INVALID');
  });

  it('is refused for a wrong checksum, size, PAX record or name', async () => {
    const flipped = Buffer.from(chartBlock);
    flipped[0] = 0x45;
    const pax = (record: string): Buffer =>
      Buffer.concat([rawHeader({ name: 'p', size: record.length, type: 'x' }), padded(record), chartBlock]);
    const notUtf8 = Buffer.from(rawHeader({ name: 'demo/~' }));
    notUtf8[5] = 0xff;
    notUtf8.write('        ', 148, 'latin1');
    notUtf8.write(
      `${notUtf8
        .reduce((a, b) => a + b, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
      'latin1',
    );
    const cases: Buffer[] = [
      flipped,
      rawHeader({ name: 'demo/x', sizeField: '0000000009z' }),
      rawHeader({ name: 'demo/x', sizeField: '\xff\xff\xff\xff' }),
      pax('99 path=demo/x\n'),
      pax('xx path=demo/x\n'),
      pax('15 path=demo/xx'),
      pax('13 size=1e99\n'),
      pax('25 GNU.sparse.major=1234\n'),
      notUtf8,
    ];
    for (const block of cases) {
      expect(await codeFor(gzipSync(Buffer.concat([block, END])))).toBe('CHART_ARCHIVE_INVALID');
    }
    const global = '15 path=demo/x\n';
    const header = rawHeader({ name: 'g', size: global.length, type: 'g' });
    expect(await codeFor(gzipSync(Buffer.concat([header, padded(global), chartBlock, END])))).toBe(
      'CHART_ARCHIVE_INVALID',
    );
  });

  it('is refused when it is no gzip, and a failing source keeps its own error', async () => {
    expect(await codeFor(Buffer.from('apiVersion: v2\nname: not-an-archive\n'))).toBe(
      'CHART_ARCHIVE_INVALID',
    );
    const failing = async function* (): AsyncGenerator<Uint8Array> {
      yield (await chartArchive()).subarray(0, 20);
      throw new SealiftError('NETWORK_FAILED', 'the line is cut');
    };
    await expect(readChartArchive(failing(), { what: 'x' })).rejects.toMatchObject({
      code: 'NETWORK_FAILED',
    });
  });

  it('is refused as a chart when it has no Chart.yaml or bad ones, all shown', async () => {
    expect(await codeFor(await chartArchive({ 'values.yaml': '' }))).toBe('CHART_INVALID');
    const error = await errorFor(
      await chartArchive({ 'Chart.yaml': 'name: a/b\nversion: x\n', 'charts/c/Chart.yaml': 'name: c\n' }),
    );
    expect(error.faults.map((f) => f.message)).toEqual([
      expect.stringContaining('"a/b" is not a name'),
      expect.stringContaining('"x" is not a semantic version'),
      expect.stringContaining('charts/c/Chart.yaml: version is required'),
    ]);
  });
});
