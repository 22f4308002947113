import { describe, expect, it } from 'vitest';
import { parseSimplePage } from '../../src/python/simple-page.ts';

const SHA = 'c'.repeat(64);
const url = 'https://pypi.example.com/root/simple/x/';
const html = (text: string) => parseSimplePage(text, { url, contentType: 'text/html; charset=utf-8' });
const json = (files: readonly unknown[]) =>
  parseSimplePage(JSON.stringify({ meta: { 'api-version': '1.1' }, name: 'x', files }), {
    url,
    contentType: 'application/vnd.pypi.simple.v1+json',
  });

describe('a page of a simple index', () => {
  it('leads from https to no file on plain http', () => {
    const file = { filename: 'x-1-py3-none-any.whl', hashes: { sha256: SHA } };
    expect(json([{ ...file, url: 'http://pypi.example.com/x-1-py3-none-any.whl' }])).toEqual([]);
    expect(json([{ ...file, url: 'https://pypi.example.com/x-1-py3-none-any.whl' }])).toHaveLength(1);
  });

  it('in HTML names files with address, hash, what Python they need, and why they were taken back', () => {
    const page = `<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"></head><body>
      <!-- <a href="x-0-py3-none-any.whl">not this</a> -->
      <a href="../../packages/x-1-py3-none-any.whl#sha256=${SHA}" data-requires-python="&gt;=3.8,&lt;4">x-1</a><br>
      <A HREF='https://files.example.com/a%2Bb/x-1%2Bcpu-py3-none-any.whl#egg=x&sha256=${SHA.toUpperCase()}'
         data-yanked="it is&#10;broken">any text</A>
      <a data-yanked href=x-1.tar.gz>x</a></body></html>`;
    expect(html(page)).toEqual([
      {
        file: 'x-1-py3-none-any.whl',
        url: 'https://pypi.example.com/root/packages/x-1-py3-none-any.whl',
        sha256: `sha256:${SHA}`,
        requiresPython: '>=3.8,<4',
      },
      {
        file: 'x-1+cpu-py3-none-any.whl',
        url: 'https://files.example.com/a%2Bb/x-1%2Bcpu-py3-none-any.whl',
        sha256: `sha256:${SHA}`,
        yanked: 'it is broken',
      },
      { file: 'x-1.tar.gz', url: `${url}x-1.tar.gz`, sha256: undefined, yanked: '' },
    ]);
  });

  it('of an old Nexus names MD5, which counts only without a better hash', () => {
    const md5 = 'a'.repeat(32);
    const [old] = html(`<a href="../../packages/x/1.0/x-1.0.zip#md5=${md5}" rel="internal"  >x</a>`);
    expect(old).toMatchObject({ file: 'x-1.0.zip', sha256: undefined, md5 });
    expect(
      json([{ filename: 'x-1.zip', url: 'x-1.zip', hashes: { md5, sha256: SHA } }])[0],
    ).not.toHaveProperty('md5');
  });

  it('in HTML may say what its addresses are relative to', () => {
    const [file] = html('<base href="https://cdn.example.com/f/"><a href="x-1.zip">x</a>');
    expect(file?.url).toBe('https://cdn.example.com/f/x-1.zip');
  });

  it('in JSON names the same, and sizes', () => {
    const files = json([
      { filename: 'x-1.tar.gz', url: '../f/x-1.tar.gz', hashes: { sha256: SHA }, size: 12, yanked: false },
      { filename: 'x-2.tar.gz', url: '/f/x-2.tar.gz', hashes: {}, yanked: 'bad', 'requires-python': '>=3.9' },
      { filename: 'x-3.tar.gz', url: '/f/x-3.tar.gz', hashes: { md5: 'x' }, yanked: true, size: -1 },
    ]);
    expect(files).toEqual([
      {
        file: 'x-1.tar.gz',
        url: 'https://pypi.example.com/root/simple/f/x-1.tar.gz',
        sha256: `sha256:${SHA}`,
        size: 12,
      },
      {
        file: 'x-2.tar.gz',
        url: 'https://pypi.example.com/f/x-2.tar.gz',
        sha256: undefined,
        requiresPython: '>=3.9',
        yanked: 'bad',
      },
      { file: 'x-3.tar.gz', url: 'https://pypi.example.com/f/x-3.tar.gz', sha256: undefined, yanked: '' },
    ]);
  });

  it('gives no password, no token and no name that is a path', () => {
    const files = json([
      {
        filename: 'x-1.zip',
        url: 'https://bob:hunter2@e.example.com/x-1.zip?token=t0p#sha256=1',
        hashes: {},
      },
      { filename: '../x-1.zip', url: 'x-1.zip', hashes: {} },
      { filename: 'x-1.zip\n', url: 'x-1.zip', hashes: {} },
      { filename: 'x-2.zip', url: 'file:///etc/passwd', hashes: {} },
      { filename: 'x-3.zip', url: 'http://[', hashes: {} },
      { url: 'x' },
      null,
    ]);
    expect(files.map((f) => f.url)).toEqual(['https://e.example.com/x-1.zip']);
    expect(html('<a href="javascript:alert(1)/x-1.zip">x</a><a href="%2e%2e%2fx-1.zip">x</a>')).toEqual([]);
  });

  it.each([
    ['text/plain', 'x'],
    ['application/json', '<html>'],
    ['application/json', '{"projects":[]}'],
    ['', '<a href="x-1.zip">x</a>'],
  ])('of type %j with %j is none', (contentType, text) => {
    expect(() => parseSimplePage(text, { url, contentType })).toThrow(
      expect.objectContaining({ code: 'REGISTRY_ANSWER_INVALID' }),
    );
  });
});
