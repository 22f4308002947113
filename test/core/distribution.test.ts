import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isFileOf, isPythonVersion, parseDistribution, versionKey } from '../../src/core/distribution.ts';

describe('versions of Python projects', () => {
  it('that are equal have one key', () => {
    const equal: readonly string[][] = [
      ['1', '1.0', '1.0.0', 'v1', '0!1', '01.00'],
      ['1rc1', '1.0-RC.1', '1.0c1', '1_pre_1', '1.preview1', '1.0.0rc01'],
      ['1a0', '1a', '1.0alpha', '1-ALPHA-0'],
      ['1.post2', '1-2', '1.0-r2', '1rev2', '1post2'],
      ['1.dev0', '1dev', '1.0-dev', '1_dev_0'],
      ['2!1.2b3.post4.dev5+ab.1', '2!1.2.0-beta-3-4-dev5+AB-01'],
    ];
    for (const [first = '', ...others] of equal) {
      expect(others.map(versionKey)).toEqual(others.map(() => versionKey(first)));
    }
    const keys = equal.map(([first = '']) => versionKey(first));
    expect(new Set(keys).size).toBe(keys.length);
    expect(versionKey('10')).not.toBe(versionKey('1'));
    expect(versionKey('1.0.1')).not.toBe(versionKey('1.1'));
  });

  it('of any other text are that text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 12 }), (text) => {
        if (!isPythonVersion(text)) expect(versionKey(text)).toBe(text);
        else expect(versionKey(versionKey(text))).toBe(versionKey(text));
      }),
    );
  });
});

describe('the name of a package file', () => {
  it('is of the project and version that it says, however they are spelled', () => {
    const good: [string, string, string][] = [
      ['requests-2.32.3-py3-none-any.whl', 'requests', '2.32.3'],
      ['Flask_Login-0.6.3-py3-none-any.whl', 'flask-login', '0.6.3'],
      [
        'zope.interface-5.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl',
        'zope-interface',
        '5.0.0',
      ],
      ['torch-2.0.1+cu118-1-cp311-cp311-linux_x86_64.whl', 'torch', '2.0.1+cu118'],
      ['foo-1.0_rc1-py3-none-any.whl', 'foo', '1.0rc1'],
      ['python-dateutil-2.9.0.post0.tar.gz', 'python-dateutil', '2.9.0.post0'],
      ['pytz-2024-1.tar.gz', 'pytz', '2024.post1'],
      ['foo-bar-1.0-rc1.zip', 'foo-bar', '1.0rc1'],
      ['py-1.tar.gz', 'py', '1'],
    ];
    for (const [file, name, version] of good) expect(isFileOf(file, { name, version }), file).toBe(true);
    const bad: [string, string, string][] = [
      ['requests-2.32.3-py3-none-any.whl', 'requests', '2.32.4'],
      ['requests-2.32.3-py3-none-any.whl', 'request', '2.32.3'],
      ['requests-2.32.3-py3-none-any.whl', 'Requests', '2.32.3'],
      ['requests-2.32.3.tar.bz2', 'requests', '2.32.3'],
      ['requests-2.32.3-none-any.whl', 'requests', '2.32.3'],
      ['requests.tar.gz', 'requests', ''],
      ['2.32.3.tar.gz', '', '2.32.3'],
      [`${'a'.repeat(300)}-1.tar.gz`, 'a'.repeat(300), '1'],
    ];
    for (const [file, name, version] of bad) expect(isFileOf(file, { name, version }), file).toBe(false);
  });

  it('that says what it is always agrees with itself', () => {
    const name = fc.stringMatching(/^[A-Za-z][A-Za-z0-9._-]{0,6}[a-z0-9]$/);
    const version = fc.stringMatching(/^[0-9]{1,2}(\.[0-9]){0,2}(rc1|\.post2|\.dev3)?$/);
    const ending = fc.constantFrom('.tar.gz', '.zip', '-py3-none-any.whl');
    fc.assert(
      fc.property(name, version, ending, (n, v, end) => {
        const file = `${end.endsWith('.whl') ? n.replaceAll('-', '_') : n}-${v}${end}`;
        const found = parseDistribution(file);
        expect(found).toBeDefined();
        expect(isFileOf(file, { name: found?.project ?? '', version: found?.version ?? '' })).toBe(true);
      }),
    );
  });
});
