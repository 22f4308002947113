import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { parseWheelPlatform } from '../../src/core/python-target.ts';
import { chooseSdist, chooseWheel } from '../../src/python/choose.ts';
import { parseWheelName, supportedTags, WheelRanks } from '../../src/python/tags.ts';

const target = (python: string, platform: string) => ({ python, platform: parseWheelPlatform(platform) });
const offer = (file: string, more: { readonly yanked?: string } = {}) => ({
  file,
  sha256: undefined,
  ...more,
});
const choose = (python: string, platform: string, ...files: readonly string[]): string | undefined =>
  chooseWheel(
    files.map((f) => offer(f)),
    { ranks: new WheelRanks(target(python, platform)) },
  )?.file;

/** The tags of pip itself, from the packaging library that it has inside. */
function tagsOfPip(python: string, platforms: readonly string[]): string[] | undefined {
  const program = [
    'import sys,json',
    'from pip._vendor.packaging import tags',
    'v=(3,int(sys.argv[1])); p=sys.argv[2:]',
    'all=list(tags.cpython_tags(v,platforms=p))+list(tags.compatible_tags(v,"cp3%d"%v[1],p))',
    'print(json.dumps([str(t) for t in all]))',
  ].join('\n');
  const run = spawnSync('python3', ['-c', program, python.slice(2), ...platforms], { encoding: 'utf8' });
  return run.status === 0 ? JSON.parse(run.stdout) : undefined;
}

describe('a platform of wheels', () => {
  it.each([
    ['linux/amd64', 'linux/amd64', 'x86_64', 'glibc', 28],
    ['linux/aarch64', 'linux/arm64', 'aarch64', 'glibc', 28],
    ['manylinux2014_x86_64', 'manylinux_2_17_x86_64', 'x86_64', 'glibc', 17],
    ['manylinux_2_35_aarch64', 'manylinux_2_35_aarch64', 'aarch64', 'glibc', 35],
    ['musllinux_1_2_x86_64', 'musllinux_1_2_x86_64', 'x86_64', 'musl', 2],
  ])('%s is %s', (text, name, machine, libc, minor) => {
    expect(parseWheelPlatform(text)).toMatchObject({ name, machine, libc, minor });
  });

  it.each([
    'windows/amd64',
    'linux/s390x',
    'manylinux_3_1_x86_64',
    'musllinux_2_1_x86_64',
    'any',
    'constructor',
  ])('is not %s', (text) => {
    expect(() => parseWheelPlatform(text)).toThrow(expect.objectContaining({ code: 'PLATFORM_INVALID' }));
  });
});

describe('the tags of a target', () => {
  it.each(['3.8', '3.10', '3.11', '3.13'])('are those of pip for Python %s, in its order', (python) => {
    const tags = tagsOfPip(python, ['a', 'b']);
    // No Python with pip here: then at least its shape is known.
    if (tags === undefined) {
      expect(supportedTags(target(python, 'linux/amd64')).at(-1)).toBe('py30-none-any');
      return;
    }
    const own = supportedTags(target(python, 'manylinux_2_5_x86_64'))
      // It stands for three platform tags: take two of them for pip's two.
      .filter((tag) => !tag.endsWith('-linux_x86_64'))
      .map((tag) => tag.replace(/manylinux_2_5_x86_64$/, 'a').replace(/manylinux1_x86_64$/, 'b'));
    expect(own).toEqual(tags);
  });

  it('go down to the oldest C library of the machine', () => {
    const amd64 = supportedTags(target('3.11', 'linux/amd64')).filter((t) => t.startsWith('cp311-cp311-'));
    expect(amd64[0]).toBe('cp311-cp311-manylinux_2_28_x86_64');
    expect(amd64).toContain('cp311-cp311-manylinux1_x86_64');
    expect(amd64.at(-1)).toBe('cp311-cp311-linux_x86_64');
    const arm64 = supportedTags(target('3.11', 'linux/arm64'));
    expect(arm64).toContain('cp311-cp311-manylinux2014_aarch64');
    expect(arm64).not.toContain('cp311-cp311-manylinux_2_16_aarch64');
    expect(supportedTags(target('3.11', 'musllinux_1_2_x86_64')).slice(0, 4)).toEqual([
      'cp311-cp311-musllinux_1_2_x86_64',
      'cp311-cp311-musllinux_1_1_x86_64',
      'cp311-cp311-musllinux_1_0_x86_64',
      'cp311-cp311-linux_x86_64',
    ]);
  });
});

describe('the wheel for a target', () => {
  it('is the one for its own Python before abi3 and before one for all', () => {
    const files = ['x-1-py3-none-any.whl', 'x-1-cp37-abi3-manylinux2014_x86_64.whl'];
    expect(choose('3.11', 'linux/amd64', ...files)).toBe(files[1]);
    const own = 'x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl';
    expect(choose('3.11', 'linux/amd64', ...files, own)).toBe(own);
    expect(choose('3.10', 'linux/amd64', ...files, own)).toBe(files[1]);
    expect(choose('3.11', 'linux/arm64', ...files, own)).toBe(files[0]);
  });

  it('asks for no newer C library, for no other one and no other system', () => {
    const newer = 'x-1-cp311-cp311-manylinux_2_34_x86_64.whl';
    expect(choose('3.11', 'linux/amd64', newer)).toBeUndefined();
    expect(choose('3.11', 'manylinux_2_34_x86_64', newer)).toBe(newer);
    expect(choose('3.11', 'linux/amd64', 'x-1-cp311-cp311-musllinux_1_2_x86_64.whl')).toBeUndefined();
    expect(choose('3.11', 'linux/amd64', 'x-1-cp311-cp311-win_amd64.whl', 'x-1.tar.gz')).toBeUndefined();
    expect(choose('3.11', 'linux/amd64', 'x-1-cp311-cp311t-manylinux_2_17_x86_64.whl')).toBeUndefined();
    expect(choose('3.9', 'linux/amd64', 'x-1-cp310-abi3-manylinux_2_17_x86_64.whl')).toBeUndefined();
  });

  it('is the one with the highest build number of equal ones, as a number', () => {
    const files = ['x-1-py3-none-any.whl', 'x-1-9-py3-none-any.whl', 'x-1-10-py2.py3-none-any.whl'];
    expect(choose('3.11', 'linux/amd64', ...files)).toBe(files[2]);
    expect(choose('3.11', 'linux/amd64', ...files.toReversed())).toBe(files[2]);
  });

  it('is one that was taken back only where there is no other', () => {
    const ranks = new WheelRanks(target('3.11', 'linux/amd64'));
    const back = offer('x-1-cp311-cp311-manylinux1_x86_64.whl', { yanked: 'broken' });
    const good = offer('x-1-py3-none-any.whl');
    expect(chooseWheel([back, good], { ranks })).toBe(good);
    expect(chooseWheel([back], { ranks })).toBe(back);
  });

  it('has a hash that the requirements name, where they name some', () => {
    const ranks = new WheelRanks(target('3.11', 'linux/amd64'));
    const [a, b] = [`sha256:${'a'.repeat(64)}`, `sha256:${'b'.repeat(64)}`] as const;
    const best = { file: 'x-1-cp311-cp311-manylinux1_x86_64.whl', sha256: a };
    const other = { file: 'x-1-py3-none-any.whl', sha256: b };
    expect(chooseWheel([best, other], { ranks, allowed: new Set([b]) })).toBe(other);
    expect(chooseWheel([best], { ranks, allowed: new Set([b]) })).toBeUndefined();
    expect(chooseSdist([{ file: 'x-1.tar.gz', sha256: a }], new Set([b]))).toBeUndefined();
  });

  it('has a name that does not multiply without end', () => {
    const many = Array.from({ length: 60 }, (_, i) => `p${i}`).join('.');
    expect(parseWheelName(`x-1-${many}-${many}-any.whl`)).toBeUndefined();
    expect(parseWheelName('x-1-py2.py3-none-any.whl')?.tags).toEqual(['py2-none-any', 'py3-none-any']);
  });
});

it('a source archive is a .tar.gz before a .zip', () => {
  const files = [offer('x-1.zip'), offer('x-1.tar.gz', { yanked: '' }), offer('x-1-py3-none-any.whl')];
  expect(chooseSdist(files, undefined)).toBe(files[0]);
  expect(chooseSdist([offer('x-1.zip'), offer('x-1.tar.gz')], undefined)?.file).toBe('x-1.tar.gz');
});
