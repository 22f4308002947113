import { describe, expect, it } from 'vitest';
import { plainAddress } from '../../src/source/python-index.ts';
import { pinsOfUv } from '../../src/source/python-uv.ts';

describe('the answer of uv', () => {
  it('gives addresses whole, however long they are, without login, query and fragment', () => {
    const file = 'x-1.0-py3-none-any.whl';
    const address = `https://files.test/${'a'.repeat(300)}/${file}`;
    const asked = address.replace('//', '//bob:secret@');
    expect(pinsOfUv(`x @ ${asked}?token=1#sha256=${'A'.repeat(64)}\n`, '/')).toEqual([
      { name: 'x', version: '1.0', from: { url: address, sha256: `sha256:${'a'.repeat(64)}` } },
    ]);
    expect(plainAddress('no address')).toBe('no address');
  });

  it('may have a percent sign that stands for nothing', () => {
    expect(pinsOfUv('x @ https://files.test/50%/x-1.0-py3-none-any.whl\n', '/')).toMatchObject([
      { name: 'x', version: '1.0' },
    ]);
  });
});
