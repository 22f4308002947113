import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { isLockInStep, parseChartLock } from '../../src/helm/chart-lock.ts';
import { checkChartYaml, parseChartYaml } from '../../src/helm/chartfile.ts';

const parse = (text: string) => parseChartYaml(Buffer.from(text), { what: 'Chart.yaml' });
const faults = (text: string): string[] =>
  checkChartYaml(Buffer.from(text), { what: 'Chart.yaml' }).faults.map((f) => f.message);

describe('Chart.yaml', () => {
  it('keeps versions as they are written', () => {
    const chart = parse('name: a\nversion: 1.10\nappVersion: 1.10\n');
    expect(chart).toMatchObject({
      version: '1.10',
      appVersion: '1.10',
      apiVersion: 'v1',
      type: 'application',
    });
    expect(parse('name: a\nversion: 1.0.0\nappVersion: 0x1F\n').appVersion).toBe('0x1F');
    expect(parse('name: a\nversion: 1.0.0\nappVersion: "null"\n').appVersion).toBe('null');
    expect(parse('name: a\nversion: 1.0.0\nappVersion:\n')).not.toHaveProperty('appVersion');
  });

  it.each(['v4.9.0', '1.2', '1', '1.2.3-rc.1+build.5', '0.0.20240101123456', '01.2.3'])(
    'accepts the version %s as Helm does',
    (version) => expect(parse(`name: a\nversion: "${version}"\n`).version).toBe(version),
  );

  it.each(['x', '1.2.3.4', '1..2', 'latest', '1.0.0-01', '../1.0.0', '1.0.0/x'])(
    'refuses the version %s',
    (version) => {
      expect(faults(`name: a\nversion: "${version}"\n`)).toEqual([
        expect.stringContaining('not a semantic version'),
      ]);
    },
  );

  it('becomes the document that Helm pushes: known fields as text, empty ones left out, spaces cleaned', () => {
    const chart = parse(
      [
        'apiVersion: v2',
        'NAME: demo',
        'version: 1.0.0',
        'description: "two\\twords\\u0007"',
        'engine: gotpl',
        'deprecated: yes',
        'home: ""',
        'sources: [https://s.example]',
        'maintainers: [{name: A, email: a@x.example}, {name: B, other: 1}]',
        'annotations: {n: 1.10, b: true, e: }',
        'dependencies:',
        '- {name: d, version: 1.x, repository: "https://r.example", tags: [t], condition: d.on, enabled: true, import-values: [{child: c, parent: p}], alias: e}',
        '- {name: local}',
      ].join('\n'),
    );
    expect(chart.document).toEqual({
      apiVersion: 'v2',
      name: 'demo',
      version: '1.0.0',
      description: 'two words',
      deprecated: true,
      sources: ['https://s.example'],
      maintainers: [{ name: 'A', email: 'a@x.example' }, { name: 'B' }],
      annotations: { n: '1.10', b: 'true', e: '' },
      dependencies: [
        {
          name: 'd',
          version: '1.x',
          repository: 'https://r.example',
          condition: 'd.on',
          tags: ['t'],
          enabled: true,
          'import-values': [{ child: 'c', parent: 'p' }],
          alias: 'e',
        },
        { name: 'local', repository: '' },
      ],
    });
  });

  it('shows every fault at once', () => {
    const text = [
      'name: a/b',
      'version: one',
      'type: thing',
      'description: {a: b}',
      'maintainers: [null]',
      'keywords: text',
      'annotations: {k: [1]}',
      'dependencies: [null, {name: x, alias: "a b"}, {name: y}, {name: z, alias: y}]',
    ].join('\n');
    expect(faults(text)).toEqual([
      'Chart.yaml: description is not text',
      'Chart.yaml: name "a/b" is not a name',
      expect.stringContaining('version "one" is not a semantic version'),
      expect.stringContaining('type "thing" must be application or library'),
      expect.stringContaining('dependencies must not contain empty entries'),
      expect.stringContaining('"x" has disallowed characters in its alias'),
      expect.stringContaining('more than one dependency with name or alias "y"'),
      expect.stringContaining('annotations holds something else than text'),
      expect.stringContaining('keywords is not a list'),
      expect.stringContaining('maintainers must not contain empty entries'),
    ]);
    expect(faults('description: nothing else')).toEqual([
      'Chart.yaml: name is required',
      'Chart.yaml: version is required',
    ]);
  });

  it.each(['..', '.', 'a\\b', '/a'])('refuses the name %s', (name) => {
    expect(faults(`name: '${name}'\nversion: 1.0.0`)).toEqual([expect.stringContaining('is not a name')]);
  });

  it.each([
    ['broken YAML', 'name: [a\nversion: 1', /Chart\.yaml:\d+:\d+/],
    ['a list', '- a\n- b\n', /not a map/],
    ['bytes that are no UTF-8', Buffer.from([0x6e, 0x3a, 0xff]), /not UTF-8/],
    ['more than a mebibyte', `name: ${'a'.repeat(1024 * 1024)}`, /the limit is/],
    ['nesting that ends the stack', `name: ${'['.repeat(200_000)}`, /Chart\.yaml/],
  ])('refuses %s with its own code', (_what, text, message) => {
    let error: unknown;
    try {
      parseChartYaml(Buffer.from(text), { what: 'Chart.yaml' });
    } catch (e) {
      error = e;
    }
    expect(error).toBeInstanceOf(SealiftError);
    expect(error).toMatchObject({ code: 'CHART_INVALID', message: expect.stringMatching(message) });
  });

  it('refuses an alias bomb at once', () => {
    const levels = Array.from({ length: 12 }, (_, i) =>
      i === 0 ? `a0: &a0 [x,x,x,x,x,x,x,x,x]` : `a${i}: &a${i} [${`*a${i - 1},`.repeat(9)}]`,
    );
    expect(() => parse(`${levels.join('\n')}\nname: a\nversion: 1.0.0\n`)).toThrow(/Excessive alias count/);
    const word = 'w'.repeat(100_000);
    expect(() =>
      parse(`name: a\nversion: 1.0.0\nicon: &w ${word}\nkeywords: [${'*w,'.repeat(5000)}]`),
    ).toThrow(/Excessive alias count/);
  });

  it('reads only the first document and resolves merge keys, as Helm does', () => {
    const text =
      'x: &x {name: m, url: u}\nname: a\nversion: 1.0.0\nmaintainers: [{<<: *x, name: n}]\n---\nname: other\n';
    expect(parse(text).document.maintainers).toEqual([{ name: 'n', url: 'u' }]);
  });
});

describe('Chart.lock', () => {
  const lock = (digest: string) =>
    parseChartLock(
      Buffer.from(
        `dependencies:\n- name: common\n  repository: https://r.example/a?b=1&c=<2>\n  version: 2.31.4\ndigest: ${digest}\ngenerated: "2025-08-07T09:55:56.1Z"\n`,
      ),
      'Chart.lock',
    );
  const { dependencies } = parse(
    'name: a\nversion: 1.0.0\ndependencies: [{name: common, version: 2.x.x, repository: "https://r.example/a?b=1&c=<2>", tags: [t], condition: c.on}]',
  );

  it('is in step only with the dependencies that it was made from', () => {
    // From Go: json.Marshal of both lists (with <, > and & escaped), hashed with SHA-256.
    const made = 'sha256:ae6c2f4621ac4f06ef2e2b682997b805ac06d8ab022917384244e3087a6afbd9';
    expect(isLockInStep(dependencies, lock(made))).toBe(true);
    expect(isLockInStep([], lock(made))).toBe(false);
    expect(isLockInStep(dependencies, lock(made.replace(/.$/, 'x')))).toBe(false);
  });

  it('is refused when it is something else', () => {
    expect(() => parseChartLock(Buffer.from('- a'), 'Chart.lock')).toThrow(/Chart\.lock: not a lock/);
    expect(parseChartLock(Buffer.from('digest: x'), 'Chart.lock')).toEqual({ digest: 'x', dependencies: [] });
  });
});
