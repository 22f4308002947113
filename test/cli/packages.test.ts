import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeWheel, packPackages } from '../support/packages.ts';
import { documentOf, ensureBuilt, runProgram } from './program.ts';

const alpha = makeWheel('alpha', '1.0', { requiresPython: '>=3.8' });
const beta = makeWheel('beta-lib', '2.1', { yanked: 'broken' });

let dir: string;
let bundle: string;

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-packages-'));
  bundle = await packPackages(dir, [alpha, beta]);
}, 180_000);

afterAll(() => rm(dir, { recursive: true, force: true }));

describe('ls of a bundle with Python packages', () => {
  it('shows project, version, Python, size, file and hash of each', async () => {
    const { code, stdout, stderr } = await runProgram(['ls', bundle]);
    expect(code, stderr).toBe(0);
    const rows = stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.split(/ {2,}/));
    expect(rows.map((row) => row.toSpliced(3, 1))).toEqual([
      ['PACKAGE', 'VERSION', 'PYTHON', 'FILE', 'SHA-256'],
      ['alpha', '1.0', '>=3.8', alpha.lock.file, alpha.lock.sha256],
      ['beta-lib', '2.1 (yanked)', '-', beta.lock.file, beta.lock.sha256],
    ]);
    expect(stderr).toContain('wheels 1: 2 Python packages; ');
    const document = documentOf(await runProgram(['ls', bundle, '--json']));
    expect(document.python).toMatchObject({ files: [alpha.lock, beta.lock], pythons: ['3.11'] });
  });

  it('prints the requirements with hashes for pip, and nothing else on stdout', async () => {
    const { code, stdout, stderr } = await runProgram(['ls', bundle, '--requirements']);
    expect(code, stderr).toBe(0);
    expect(stdout).toBe(
      [alpha, beta]
        .map(({ lock }) => `${lock.name}==${lock.version} \\\n    --hash=${lock.sha256}\n`)
        .join(''),
    );
    expect(stderr).toContain('next: pip install --require-hashes -r requirements.txt');
  });
});

describe('load of a bundle with Python packages', () => {
  it('says at the end that no target takes them, and what would', async () => {
    const words = ['load', bundle, '--files', join(dir, 'files')];
    const { code, stderr } = await runProgram(words);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain('2 Python packages are for none of the targets');
    expect(stderr).toContain('pypi');
    const document = documentOf(await runProgram([...words, '--dry-run', '--json']));
    expect(document.forNone).toEqual([{ kind: 'package', count: 2 }]);
  });
});
