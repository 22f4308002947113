import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { requirementsText } from '../../src/python/requirements-text.ts';
import { digestOf, lockArbitrary, pythonOf, wheel } from '../lock/locks.ts';

describe('the requirements of a lock', () => {
  it('are pinned, with their markers and the hashes of all their files', () => {
    const files = [
      wheel('numpy', '1.26.4', { file: 'numpy-1.26.4.tar.gz', sha256: digestOf('b') }),
      wheel('numpy', '1.26.4', { sha256: digestOf('a') }),
      wheel('numpy', '2.1.0', { sha256: digestOf('c') }),
      wheel('flask', '3.0', { sha256: digestOf('d') }),
    ];
    const pins = [
      { name: 'numpy', version: '2.1.0', marker: "python_version >= '3.12'" },
      { name: 'numpy', version: '1.26.4', marker: "python_version < '3.12'" },
      { name: 'flask', version: '3.0' },
      { name: 'colorama', version: '0.4.6', marker: "sys_platform == 'win32'" },
    ];
    expect(requirementsText(pythonOf(files, { pins }))).toBe(`flask==3.0 \\
    --hash=${digestOf('d')}
numpy==1.26.4 ; python_version < '3.12' \\
    --hash=${digestOf('a')} \\
    --hash=${digestOf('b')}
numpy==2.1.0 ; python_version >= '3.12' \\
    --hash=${digestOf('c')}
`);
    expect(requirementsText(pythonOf([]))).toBe('');
  });

  it('have no line that is anything else, whatever the lock says', () => {
    const line = /^(?:[a-z0-9-]+==[^\s\\]+(?: ; [^\\#]+)?| {4}--hash=sha256:[0-9a-f]{64})(?: \\)?$/;
    fc.assert(
      fc.property(lockArbitrary, ({ python }) => {
        const text = python === undefined ? '' : requirementsText(python);
        expect(text.split('\n').filter((l) => l !== '' && !line.test(l))).toEqual([]);
        const hashes = new Set(text.match(/sha256:[0-9a-f]{64}/g));
        expect(hashes).toEqual(new Set(python?.files.map((f) => f.sha256)));
      }),
    );
  });
});
