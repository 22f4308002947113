import { describe, expect, it } from 'vitest';
import { readRequirementFiles } from '../../src/python/requirement-files.ts';
import { parseRequirements } from '../../src/python/requirements.ts';
import { folderOf } from '../manifest/folder.ts';

const HASH = 'a'.repeat(64);
const position = { file: 'sealift.yaml', line: 4, column: 1 };

describe('a requirements file', () => {
  it('is read as pip reads it: comments, lines that go on, options, extras, markers', () => {
    const text = [
      '# all of it',
      'Requests[socks,use-chardet-on-py3] >= 2.31 ; python_version < "3.13"  # why',
      'numpy==1.26.4 \\',
      `    --hash=sha256:${HASH} \\`,
      `    --hash sha256:${'b'.repeat(64)}`,
      '-r more.txt',
      '--constraint=limits.txt',
      '-rshort.txt',
      '--extra-index-url https://pypi.example.com/simple',
      '--find-links ./wheels',
      './wheels/own-1.0-py3-none-any.whl',
      'other @ https://files.example.com/other-1.0-py3-none-any.whl#sha256=x',
      '--require-hashes',
      '--pre',
    ].join('\r\n');
    const { requirements, faults } = parseRequirements(text, 'r.txt');
    expect(faults).toEqual([]);
    expect(requirements).toEqual([
      { kind: 'project', name: 'requests', hashes: [] },
      { kind: 'project', name: 'numpy', hashes: [`sha256:${HASH}`, `sha256:${'b'.repeat(64)}`] },
      { kind: 'include', path: 'more.txt', as: 'requirements' },
      { kind: 'include', path: 'limits.txt', as: 'constraints' },
      { kind: 'include', path: 'short.txt', as: 'requirements' },
      { kind: 'index', url: 'https://pypi.example.com/simple', isExtra: true },
      { kind: 'findLinks', path: './wheels' },
      { kind: 'path', path: './wheels/own-1.0-py3-none-any.whl' },
    ]);
  });

  it('never repeats a line that is no requirement: it may be of any file that is included', () => {
    const secrets = ['"auth": "dXNlcjpwYXNz"', '/b3BlbnNzaC1rZXktdjEAAAAA', './AAAAB3NzaC1yc2E'];
    const { faults } = parseRequirements(secrets.join('\n'), 'r.txt');
    expect(faults.length).toBe(secrets.length);
    for (const { message } of faults) expect(message).not.toMatch(/dXNl|b3Bl|AAAAB3/);
  });

  it.each([
    ['-e .', /cannot be carried/],
    ['--editable=git+https://example.com/x.git', /cannot be carried/],
    ['git+ssh://git.example.com/x.git', /cannot be carried/],
    ['x @ git+https://example.com/x.git@main', /cannot be carried/],
    ['/srv/wheels/x-1-py3-none-any.whl', /absolute/],
    ['x @ file:///srv/x-1-py3-none-any.whl', /absolute/],
    ['./folder', /not a requirement/],
    ['https://example.com/x.html', /neither a wheel/],
    ['-r https://example.com/r.txt', /not a file/],
    ['--config-settings a=b', /not understood/],
    [`x==1 --hash=md5:${'a'.repeat(32)}`, /no SHA-256/],
    ['--find-links https://example.com/wheels', /not a folder/],
    ['--no-binary x', /run the code/],
  ])('with %s tells that it cannot be carried, and where', (line, message) => {
    const { faults } = parseRequirements(`requests\n${line}\n`, 'r.txt');
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatchObject({
      code: 'MANIFEST_INVALID',
      position: { file: 'r.txt', line: 2, column: 1 },
    });
    expect(faults[0]?.message).toMatch(message);
  });

  it.each([
    '--index-url https://bob:hunter2@example.com/simple',
    'x @ https://hunter2@example.com/x-1.tar.gz',
  ])('with a password is refused, and the password is not repeated: %s', (line) => {
    const { faults } = parseRequirements(line, 'r.txt');
    expect(faults[0]?.message).toMatch(/password/);
    expect(JSON.stringify(faults)).not.toContain('hunter2');
  });
});

describe('requirements files', () => {
  it('are read with all that they include, each once, even in a circle', async () => {
    const root = await folderOf({
      'req/wheels/x-1-py3-none-any.whl': '',
      'req/main.txt': `-r more.txt\n-c ../limits.txt\n-f wheels\nx==1 --hash=sha256:${HASH}\n`,
      'req/more.txt': '-r main.txt\n--index-url https://pypi.example.com/simple\n',
      'limits.txt': '-r req/more.txt\nnumpy<2\n',
    });
    const found = await readRequirementFiles(root, {
      requirements: ['req/main.txt'],
      constraints: [],
      packages: ['./own-1-py3-none-any.whl'],
      packagePositions: [position],
      position,
    });
    expect(found.faults).toEqual([]);
    expect(found.requirements.map((f) => f.path)).toEqual(['req/main.txt', 'req/more.txt']);
    // What a constraints file includes constrains too.
    expect(found.constraints.map((f) => f.path)).toEqual(['limits.txt', 'req/more.txt', 'req/main.txt']);
    expect(found.folders).toEqual(['req/wheels']);
    expect(found.archives).toEqual(['own-1-py3-none-any.whl']);
    expect([...(found.hashes.get('x') ?? [])]).toEqual([`sha256:${HASH}`]);
  });

  it('tell which one lacks, and what of the manifest itself cannot be carried', async () => {
    const root = await folderOf({});
    const found = await readRequirementFiles(root, {
      requirements: ['absent.txt'],
      constraints: [],
      packages: ['git+https://example.com/x'],
      packagePositions: [{ ...position, line: 9 }],
      position,
    });
    expect(found.faults.map((f) => [f.code, f.position?.line])).toEqual([
      ['FILE_NOT_FOUND', 4],
      ['MANIFEST_INVALID', 9],
    ]);
  });
});
