import { describe, expect, it } from 'vitest';
import {
  findChart,
  highestMatch,
  parseRepositoryIndex,
  resolveChartUrl,
  resolveConstraint,
} from '../../src/helm/index-file.ts';

const HEX = 'ab'.repeat(32);
const parse = (text: string) => parseRepositoryIndex(Buffer.from(text), 'https://r.example/index.yaml');

const index = parse(`
apiVersion: v1
generated: 2026-01-01T00:00:00Z
entries:
  demo:
  - {apiVersion: v2, name: demo, version: 1.2.0, appVersion: 1.10, urls: [demo-1.2.0.tgz, https://other.example/x.tgz], digest: ${HEX}}
  - {name: demo, version: 1.10, urls: [a.tgz], digest: sha256:${HEX.toUpperCase()}}
  - {name: demo, version: v1.3.0, urls: [b.tgz]}
  - {name: demo, version: 2.0.0-rc.1, urls: [c.tgz]}
  - {name: demo, version: nonsense, urls: [d.tgz]}
  - {name: demo, version: 9.0.0, urls: []}
  - {version: 9.0.0, urls: [x.tgz]}
  - {name: demo, version: 0.1.0, urls: [e.tgz], digest: md5}
  - null
  constructor:
  - {name: constructor, version: 1.0.0, urls: [k.tgz]}
`);

describe('a repository index', () => {
  it('gives versions highest first with their first URL and digest, and warns about the entries that it skips', () => {
    expect(index.entriesOf('demo').map((e) => e.version)).toEqual([
      '2.0.0-rc.1',
      '1.10',
      'v1.3.0',
      '1.2.0',
      '0.1.0',
    ]);
    expect(findChart(index, { name: 'demo', version: '1.2.0' })).toEqual({
      name: 'demo',
      version: '1.2.0',
      appVersion: '1.10',
      url: 'demo-1.2.0.tgz',
      digest: `sha256:${HEX}`,
    });
    expect(findChart(index, { name: 'demo', version: '1.10' }).digest).toBe(`sha256:${HEX}`);
    expect(findChart(index, { name: 'demo', version: '0.1.0' })).not.toHaveProperty('digest');
    expect(index.warnings).toHaveLength(5);
  });

  it('finds a version only by its exact text, and names the nearest ones', () => {
    for (const version of ['1.3.0', 'v1.2.0', '1', '1.2', '*', '']) {
      expect(() => findChart(index, { name: 'demo', version })).toThrow(
        expect.objectContaining({ code: 'CHART_VERSION_NOT_FOUND', hint: expect.stringContaining('1.2.0') }),
      );
    }
    expect(() => findChart(index, { name: 'demos', version: '1.2.0' })).toThrow(
      expect.objectContaining({ code: 'CHART_VERSION_NOT_FOUND', hint: expect.stringContaining('demo') }),
    );
    expect(() => findChart(index, { name: 'toString', version: '1' })).toThrow(
      expect.objectContaining({ code: 'CHART_VERSION_NOT_FOUND' }),
    );
    expect(findChart(index, { name: 'constructor', version: '1.0.0' }).url).toBe('k.tgz');
  });

  it('resolves a range to the highest release in it', () => {
    const pick = (constraint: string): string =>
      resolveConstraint(index, { name: 'demo', constraint }).version;
    expect(pick('1.x')).toBe('1.10');
    expect(pick('~1.2')).toBe('1.2.0');
    expect(pick('1.3.0')).toBe('v1.3.0');
    expect(pick('*')).toBe('1.10');
    expect(() => pick('')).toThrow(expect.objectContaining({ code: 'CHART_INVALID' }));
    expect(pick('>0.0.0-0')).toBe('2.0.0-rc.1');
    expect(() => pick('>=3')).toThrow(expect.objectContaining({ code: 'CHART_VERSION_NOT_FOUND' }));
    expect(() => pick('newest')).toThrow(expect.objectContaining({ code: 'CHART_INVALID' }));
    expect(highestMatch(['1.0.0', 'v1.0.0'], { constraint: '1.0.0', what: 'x' })).toBe('1.0.0');
    expect(highestMatch(['1.0.0', 'v1.0.0'], { constraint: 'v1.0.0', what: 'x' })).toBe('v1.0.0');
    expect(highestMatch(['1.2', '1.2.7'], { constraint: '1.2', what: 'x' })).toBe('1.2.7');
  });

  it('can be JSON', () => {
    const json = parse(
      JSON.stringify({
        apiVersion: 'v1',
        entries: { a: [{ name: 'a', version: '1.0.0', urls: ['a.tgz'] }] },
      }),
    );
    expect(findChart(json, { name: 'a', version: '1.0.0' }).url).toBe('a.tgz');
  });

  it('may be empty', () => {
    expect(parse('apiVersion: v1\nentries:\n').names).toEqual([]);
    expect(parse('apiVersion: v1\n').names).toEqual([]);
    expect(parse('apiVersion: v1\nentries: {}\n').names).toEqual([]);
  });

  it.each([
    ['a web page', '<!doctype html><html><body>Sign in</body></html>'],
    ['no apiVersion', 'entries: {}'],
    ['a list', '- a'],
    ['entries that are a list', 'apiVersion: v1\nentries: [a]'],
    ['broken YAML', 'apiVersion: v1\nentries: {'],
    [
      'an alias bomb',
      `apiVersion: v1\na: &a [x,x]\n${Array.from({ length: 30 }, (_, i) => `b${i}: &b${i} [${i === 0 ? '*a,*a' : `*b${i - 1},*b${i - 1}`}]`).join('\n')}\nentries: {}`,
    ],
  ])('is refused when it is %s', (_what, text) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ code: 'CHART_INDEX_INVALID' }));
  });

  it('with thousands of bad entries gives a short list of warnings', () => {
    const entries = Array.from({ length: 3000 }, () => ({ name: 'a', version: 'bad' }));
    const { entriesOf, warnings } = parse(JSON.stringify({ apiVersion: 'v1', entries: { a: entries } }));
    expect(entriesOf('a')).toEqual([]);
    expect(warnings).toHaveLength(51);
    expect(warnings.at(-1)?.message).toContain('there are more');
  });
});

describe('an index that is read chart by chart', () => {
  const entry = (name: string, version: string) =>
    `  - name: ${name}\n    version: ${version}\n    urls:\n    - ${name}.tgz\n`;
  const all = (text: string) => {
    const read = parse(text);
    return Object.fromEntries(read.names.map((n) => [n, read.entriesOf(n).map((e) => e.version)]));
  };

  it('says the same in every style', () => {
    const a = entry('a', '1.0.0');
    const b = entry('b', '2.0.0');
    const texts = [
      `apiVersion: v1\nentries:\n  a:\n${a}  b:\n${b}`,
      `entries:\n  a:\n${a}  "b":\n${b}generated: "x"\napiVersion: v1\n`,
      `# entries:\napiVersion: v1\nentries:\n\n# comment\n    a:\n  # another\n${a.replaceAll(/^/gm, '    ')}\n    b:\n${b.replaceAll(/^/gm, '    ')}`,
      `apiVersion: v1\nentries:\n  a: [{name: a, version: 1.0.0, urls: [a]}]\n  b:\n${b}`,
      `apiVersion: v1\nentries: {a: [{name: a, version: 1.0.0, urls: [a]}], b: [{name: b, version: 2.0.0, urls: [b]}]}`,
      `apiVersion: v1\r\nentries:\r\n  a:\r\n${a.replaceAll('\n', '\r\n')}  b:\r\n${b.replaceAll('\n', '\r\n')}`,
      `---\napiVersion: v1\nentries:\n  a:\n${a}    description: |\n      b:\n       x\n      entries:\n  b:\n${b}`,
      `apiVersion: v1\nentries:\n  a:\n  - &x\n    name: a\n    version: 1.0.0\n    urls: [&u a.tgz]\n  b:\n  - {name: b, version: 2.0.0, urls: [*u]}\n`,
    ];
    for (const text of texts) expect(all(text)).toEqual({ a: ['1.0.0'], b: ['2.0.0'] });
  });

  it('shows the line of the whole file when a chart cannot be read', () => {
    const text = `apiVersion: v1\nentries:\n  a:\n${entry('a', '1.0.0')}  b:\n  - {name: b\n`;
    expect(all.bind(null, text)).toThrow(/index\.yaml:(9|10):/);
    expect(parse(text).entriesOf('a')).toHaveLength(1);
  });

  it('reads only what is asked for', () => {
    const many = Array.from({ length: 2000 }, (_, i) => `  c${i}:\n${entry(`c${i}`, 'bad')}`).join('');
    const read = parse(`apiVersion: v1\nentries:\n${many}`);
    expect(read.names).toHaveLength(2000);
    expect(read.entriesOf('c7')).toEqual([]);
    expect(read.warnings).toHaveLength(1);
  });
});

describe('the address of a chart', () => {
  it.each([
    ['https://r.example/charts', 'a-1.tgz', 'https://r.example/charts/a-1.tgz'],
    ['https://r.example/charts/', 'sub/a-1.tgz', 'https://r.example/charts/sub/a-1.tgz'],
    ['https://r.example/charts', '../a.tgz', 'https://r.example/a.tgz'],
    ['https://r.example/charts', '/a.tgz', 'https://r.example/a.tgz'],
    ['https://r.example/c?sig=a%2Fb&x=1', 'a.tgz', 'https://r.example/c/a.tgz?sig=a%2Fb&x=1'],
    ['https://r.example/c?sig=1', 'https://cdn.example/a.tgz', 'https://cdn.example/a.tgz'],
    ['https://r.example/c', 'a.tgz?v=2', 'https://r.example/c/a.tgz?v=2'],
    ['http://10.0.0.1:8080', 'index.yaml', 'http://10.0.0.1:8080/index.yaml'],
  ])('%s and %s', (repo, ref, url) => expect(resolveChartUrl(repo, ref)).toBe(url));

  it.each([
    ['https://r.example', 'oci://x.example/a'],
    ['https://r.example', 'file:///etc/passwd'],
    ['https://r.example', 'javascript:alert(1)'],
    ['ftp://r.example', 'a.tgz'],
    ['file:///srv/charts', 'a.tgz'],
    ['not a url', 'a.tgz'],
  ])('%s and %s is refused', (repo, ref) => {
    expect(() => resolveChartUrl(repo, ref)).toThrow(
      expect.objectContaining({ code: 'NETWORK_URL_REFUSED' }),
    );
  });
});
