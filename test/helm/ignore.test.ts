import { describe, expect, it } from 'vitest';
import { parseIgnore } from '../../src/helm/ignore.ts';

describe('.helmignore', () => {
  it.each([
    ['*.txt', 'a/b/c.txt', true],
    ['*.txt', 'c.txt.gz', false],
    ['helm.txt', 'docs/helm.txt', true],
    ['docs/*.md', 'docs/a.md', true],
    ['docs/*.md', 'docs/x/a.md', false],
    ['/root.txt', 'root.txt', true],
    ['/root.txt', 'a/root.txt', false],
    ['a?c', 'abc', true],
    ['[a-c]x', 'bx', true],
    ['[^a-c]x', 'bx', false],
    ['[^a-c]x', 'dx', true],
    ['\\*', '*', true],
    ['\\*', 'a', false],
    ['*a*b*c', 'xxaxxbxxc', true],
    ['*a*b*c', 'xxaxxbxx', false],
    ['templates/*/x', 'templates/a/x', true],
    ['# comment', '# comment', false],
    ['', 'anything', false],
  ])('"%s" for %s', (rule, path, ignored) => {
    expect(parseIgnore(rule, 'x')(path, false)).toBe(ignored);
  });

  it('takes a rule that ends in / for folders only', () => {
    const ignore = parseIgnore('cache/', 'x');
    expect(ignore('cache', true)).toBe(true);
    expect(ignore('a/cache', true)).toBe(true);
    expect(ignore('cache', false)).toBe(false);
  });

  it('always leaves out hidden files of templates', () => {
    expect(parseIgnore('', 'x')('templates/.swp', false)).toBe(true);
    expect(parseIgnore('', 'x')('.hidden', false)).toBe(false);
  });

  it('reads a byte order mark, spaces and Windows line ends away', () => {
    expect(parseIgnore('\ufeff  *.txt  \r\n*.md\r\n', 'x')('a.txt', false)).toBe(true);
  });

  it('is quick with many stars', () => {
    expect(parseIgnore(`${'*a'.repeat(100)}b`, 'x')('a'.repeat(3000), false)).toBe(false);
  });

  it.each(['a/**', '[', '[]', '[a', 'x\\', '[-a]'])('refuses "%s" with its line', (rule) => {
    expect(() => parseIgnore(`ok\n${rule}`, '.helmignore')).toThrow(/\.helmignore:2/);
  });
});
