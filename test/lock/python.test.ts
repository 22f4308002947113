import { describe, expect, it } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import { diffLocks } from '../../src/lock/diff.ts';
import { parseLock } from '../../src/lock/read.ts';
import type { PackageLock, PythonLock } from '../../src/lock/schema.ts';
import { formatLock } from '../../src/lock/write.ts';
import { digestOf, lockOf, pythonOf, wheel } from './locks.ts';

const requests = wheel('requests', '2.32.3', { requiresPython: '>=3.8' });
const numpy = wheel('numpy', '1.26.4', {
  file: 'numpy-1.26.4.tar.gz',
  source: { path: 'wheels/numpy-1.26.4.tar.gz' },
  yanked: '',
});

function faultsOf(python: PythonLock): string[] {
  try {
    parseLock(Buffer.from(formatLock(lockOf({ python }))), 'versions.lock');
    return [];
  } catch (error) {
    expect((error as SealiftError).code).toBe('LOCK_INVALID');
    return (error as SealiftError).faults.map((f) => f.message);
  }
}

const withFile = (more: Partial<PackageLock>): PythonLock => {
  const file = { ...requests, ...more };
  return pythonOf([file]);
};

describe('Python packages in the text of a lock', () => {
  it('are exactly this, and a lock without them has no line for them', () => {
    const python = pythonOf([requests, numpy], {
      requirements: [{ path: 'requirements.txt', sha256: digestOf('1') }],
      packages: ['requests>=2', 'numpy ; python_version < "3.12"'],
      pythons: ['3.10', '3.9'],
      indexes: ['https://pypi.example/b/simple/', 'https://pypi.example/a/simple/'],
      pins: [
        { name: 'requests', version: '2.32.3' },
        { name: 'numpy', version: '1.26.4', marker: 'python_version < "3.12"' },
      ],
    });
    const without = formatLock(lockOf());
    expect(formatLock(lockOf({ python }))).toBe(`${without}python:
  requirements:
    - path: "requirements.txt"
      sha256: "${digestOf('1')}"
  constraints: []
  packages:
    - "numpy ; python_version < \\"3.12\\""
    - "requests>=2"
  pythons:
    - "3.9"
    - "3.10"
  platforms:
    - "linux/amd64"
  indexes:
    - "https://pypi.example/b/simple/"
    - "https://pypi.example/a/simple/"
  pins:
    - name: "numpy"
      version: "1.26.4"
      marker: "python_version < \\"3.12\\""
    - name: "requests"
      version: "2.32.3"
  files:
    - file: "numpy-1.26.4.tar.gz"
      name: "numpy"
      version: "1.26.4"
      source:
        path: "wheels/numpy-1.26.4.tar.gz"
      size: 11
      sha256: "${digestOf('6')}"
      yanked: ""
    - file: "requests-2.32.3-py3-none-any.whl"
      name: "requests"
      version: "2.32.3"
      source:
        url: "https://files.example/requests-2.32.3-py3-none-any.whl"
      size: 11
      sha256: "${digestOf('6')}"
      requiresPython: ">=3.8"
`);
    expect(faultsOf(python)).toEqual([]);
  });

  it('are refused where a file is not what its name says', () => {
    const expected =
      'python.files[0].file: not the name of a wheel or source archive of this project and version';
    for (const more of [
      { file: 'requests-2.32.4-py3-none-any.whl' },
      { file: 'flask-2.32.3-py3-none-any.whl' },
      { file: 'requests-2.32.3.exe' },
      { file: 'requests.whl' },
    ]) {
      expect(faultsOf(withFile(more))).toEqual([`${expected} (found ${JSON.stringify(more.file)})`]);
    }
  });

  it('are refused where a word could become something else', () => {
    const file: Partial<PackageLock>[] = [
      { file: '../requests-2.32.3-py3-none-any.whl' },
      { file: 'a/requests-2.32.3-py3-none-any.whl' },
      { file: '-requests-2.32.3.tar.gz' },
      { file: 'requests-2.32.3 .tar.gz' },
      { name: 'Requests' },
      { name: 'requests_' },
      { name: '' },
      { version: '2.32.3 --pre' },
      { version: 'latest' },
      { requiresPython: '' },
      { requiresPython: '>=3\n--index-url http://x' },
      { source: { url: 'https://user:secret@files.example/x.whl' } },
      { source: { url: 'file:///etc/passwd' } },
      { source: { path: '/etc/passwd' } },
      { size: -1 },
    ];
    for (const more of file) {
      const found = { ...requests, ...more };
      const python = { ...pythonOf([found]), pins: [{ name: found.name, version: found.version }] };
      expect(faultsOf(python).length, JSON.stringify(more)).toBeGreaterThan(0);
    }
    const marker = (text: string): Partial<PythonLock> => ({
      pins: [{ name: 'requests', version: '2.32.3', marker: text }],
    });
    const others: Partial<PythonLock>[] = [
      ...[
        '',
        ' a',
        'a\nflask==1',
        "os_name == 'nt' --hash=sha256:00",
        '--pre',
        'a # b',
        'a ; b',
        'a \\',
        '$HOME',
        'é',
        'a'.repeat(1025),
      ].map(marker),
      { indexes: ['https://u:p@pypi.example/simple/'] },
      { indexes: ['pypi.example'] },
      { packages: ['x @ https://u:p@files.example/x.whl'] },
      { packages: ['a\nb'] },
      { packages: [''] },
      { pythons: ['3'] },
      { pythons: ['3.x'] },
      { platforms: ['linux amd64'] },
      { platforms: [''] },
      { requirements: [{ path: '/etc/passwd', sha256: digestOf('1') }] },
      { constraints: [{ path: 'c.txt', sha256: 'sha256:1' as `sha256:${string}` }] },
      { pythons: Array.from({ length: 1001 }, (_, i) => `3.${Math.floor(i / 100)}.${i % 100}`) },
    ];
    for (const more of others) {
      expect(faultsOf(pythonOf([requests], more)).length, JSON.stringify(more).slice(0, 80)).toBe(1);
    }
  });

  it('are refused where something is there twice or not pinned', () => {
    const pin = { name: 'requests', version: '2.32.3' };
    expect(faultsOf(pythonOf([requests, requests]))).toEqual([
      'python.files[1]: requests-2.32.3-py3-none-any.whl is there twice',
    ]);
    expect(faultsOf(pythonOf([requests], { pins: [pin, pin] }))).toEqual([
      'python.pins[1]: requests 2.32.3 is there twice',
    ]);
    expect(faultsOf(pythonOf([requests], { pins: [] }))).toEqual([
      'python.files[0]: requests 2.32.3 is not among the pins',
    ]);
    const path = { path: 'r.txt', sha256: digestOf('1') };
    expect(
      faultsOf(
        pythonOf([], { requirements: [path, path], indexes: ['https://a.example/', 'https://a.example/'] }),
      ),
    ).toEqual([
      'python.requirements[1]: r.txt is there twice',
      'python.indexes[1]: https://a.example/ is there twice',
    ]);
    expect(faultsOf(pythonOf([requests], { pins: [pin, { ...pin, marker: "os_name == 'nt'" }] }))).toEqual(
      [],
    );
  });

  it('are refused with a key that nobody knows', () => {
    const text = formatLock(lockOf({ python: pythonOf([requests]) }));
    const other = text.replace('  pythons:', '  pythoness:');
    expect(() => parseLock(Buffer.from(other), 'versions.lock')).toThrow();
    expect(() => parseLock(Buffer.from(`${formatLock(lockOf())}python: {}\n`), 'versions.lock')).toThrow();
  });
});

describe('the difference of Python packages', () => {
  it('shows a project that moved on as one change, and files that came to it', () => {
    const more = wheel('numpy', '1.26.4');
    const a = lockOf({ python: pythonOf([requests, numpy]) });
    const b = lockOf({
      python: pythonOf([wheel('requests', '2.33.0'), numpy, more], { pythons: ['3.11', '3.12'] }),
    });
    const { added, removed, changed } = diffLocks(a, b);
    expect([added, removed]).toEqual([[], []]);
    expect(changed.map((c) => [c.kind, c.name, ...c.changes.map((f) => f.fact)])).toEqual([
      ['python', 'requirements', 'pythons'],
      ['package', 'numpy==1.26.4', 'files', 'size', 'yanked', 'source'],
      ['package', 'requests==2.33.0', 'version', 'files', 'requiresPython', 'source'],
    ]);
    expect(changed[2]?.changes[0]).toEqual({ fact: 'version', from: '2.32.3', to: '2.33.0' });
    expect(changed[1]?.changes.find((c) => c.fact === 'yanked')).toEqual({
      fact: 'yanked',
      from: 'no reason given',
      to: 'numpy-1.26.4.tar.gz "no reason given"',
    });
  });

  it('from a lock without any shows all of them as new', () => {
    const { added, changed } = diffLocks(lockOf(), lockOf({ python: pythonOf([requests, numpy]) }));
    expect(changed).toEqual([]);
    expect(added.map((e) => e.name)).toEqual(['requirements', 'numpy==1.26.4', 'requests==2.32.3']);
    expect(added[2]?.facts).toMatchObject({ wanted: 'everywhere', requiresPython: '>=3.8', size: '11' });
  });
});
