import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { COMMENT_LIMIT, COMMENT_MARK, markdownDiff } from '../../src/cli/markdown-diff.ts';
import { diffLocks } from '../../src/lock/diff.ts';
import type { Lock } from '../../src/lock/schema.ts';
import type { DiffResult } from '../../src/ops/diff.ts';
import { chart, digestOf, file, image, lockOf, pythonOf, wheel } from '../lock/locks.ts';

function resultOf(a: Lock, b: Lock, more: Partial<DiffResult> = {}): DiffResult {
  const side = (path: string, { name, version }: Lock) => ({ path, kind: 'lock' as const, name, version });
  const changes = diffLocks(a, b);
  const equal = changes.added.length + changes.removed.length + changes.changed.length === 0;
  return {
    ...changes,
    equal,
    a: side('a.lock', a),
    b: side('b.lock', b),
    onlyA: null,
    onlyB: null,
    sizes: [],
    ...more,
  };
}

const before = lockOf({
  version: '2026.10',
  images: [image('docker.io/library/nginx:1.25.2'), image('quay.io/a/gone:1')],
  charts: [chart('demo', '1.2.3')],
});
const after = lockOf({
  version: '2026.11',
  images: [
    image('docker.io/library/nginx:1.25.3', { digest: digestOf('c') }),
    image('10.0.0.1:5000/fresh@sha256:1', { digest: digestOf('d') }),
  ],
  charts: [chart('demo', '1.3.0', { integrity: { ...chart('x', '1').integrity, archive: digestOf('e') } })],
  files: [file('bin/tool')],
});

/** The text without code spans: what a renderer may read as more than text. */
function outsideCode(text: string): string {
  return text.replace(/`[^`\n]*`/g, 'C');
}

describe('a difference as a comment', () => {
  it('has a headline, tables with old and new, and the facts folded', () => {
    const lines = markdownDiff(resultOf(before, after));
    expect(lines.slice(0, 5)).toEqual([
      COMMENT_MARK,
      '### `astrago` `2026.10` → `2026.11`',
      '',
      'From lock `a.lock` to lock `b.lock`: **2 changed, 2 added, 1 removed**.',
      '',
    ]);
    expect(lines).toContain(
      '| changed | `docker.io/library/nginx` | `1.25.2` → `1.25.3` | `aaaaaaaaaaaa` → `cccccccccccc` |',
    );
    expect(lines).toContain('| added | `10.0.0.1:5000/fresh` | – | `dddddddddddd` |');
    expect(lines).toContain('| removed | `quay.io/a/gone` | `1` | `aaaaaaaaaaaa` |');
    expect(lines).toContain(
      '| changed | `demo-1.3.0` | `1.2.3` → `1.3.0` | `111111111111` → `eeeeeeeeeeee` | same |',
    );
    expect(lines).toContain('| added | `bin/tool` | `777777777777` | 7 bytes |');
    expect(lines).toContain('<summary>Everything that changed, fact by fact</summary>');
    expect(lines.at(-1)).toBe('</details>');
  });

  it('has a row for each Python project, whatever number of files it has', () => {
    const tar = { file: 'numpy-2.0.tar.gz', sha256: digestOf('9') };
    const old = lockOf({ python: pythonOf([wheel('requests', '2.32.3'), wheel('numpy', '2.0')]) });
    const files = [wheel('requests', '2.33.0'), wheel('numpy', '2.0'), wheel('numpy', '2.0', tar)];
    const now = lockOf({ python: pythonOf([...files, wheel('six', '1.17')], { pythons: ['3.12'] }) });
    const lines = markdownDiff(resultOf(old, now));
    expect(lines).toContain('| changed | `requests` | `2.32.3` → `2.33.0` | 1 file | same |');
    expect(lines).toContain('| changed | `numpy` | same | 1 file → 2 files | 11 bytes → 22 bytes |');
    expect(lines).toContain('| added | `six` | `1.17` | 1 file | 11 bytes |');
    expect(lines.join('\n')).toContain('- python `requirements`\n  - pythons: `3.11` → `3.12`');
  });

  it('tells the bytes where both sides are bundles, and that equal ones are equal', () => {
    const bytes = { onlyA: { blobs: 1, bytes: 2_000_000 }, onlyB: { blobs: 3, bytes: 12_345_678 } };
    expect(markdownDiff(resultOf(before, after, bytes)).join('\n')).toContain(
      '12.3 MB in 3 blobs new, 2.00 MB in 1 blob gone.',
    );
    expect(markdownDiff(resultOf(after, after))).toEqual([
      COMMENT_MARK,
      '### `astrago` `2026.11`: no difference',
    ]);
  });

  it('tells the bytes of each image where a side is a bundle', () => {
    const sizes = [
      { kind: 'image', name: 'docker.io/library/nginx:1.25.3', from: 50_000_000, to: 51_000_000 },
      { kind: 'image', name: 'quay.io/a/gone:1', from: 4_200_000, to: null },
    ] as const;
    const lines = markdownDiff(resultOf(before, after, { sizes }));
    expect(lines).toContain('|  | image | version | digest | size |');
    expect(lines.find((l) => l.includes('nginx'))).toMatch(/ \| 50\.0 MB → 51\.0 MB \|$/);
    expect(lines.find((l) => l.includes('a/gone'))).toMatch(/ \| 4\.20 MB \|$/);
    expect(lines.find((l) => l.includes('fresh'))).toMatch(/ \| – \|$/);
  });

  it('lets no name out of its code span, whatever is in it', () => {
    const nasty = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.constantFrom(
        '@everyone | `x` |',
        '#123 GH-1',
        '</details><script>alert(1)</script>',
        '``` \n# title\n',
        '| a | b |\n| - | - |',
        '\\`[x](https://evil.example)',
        '<!-- -->',
        '\u202egnp.exe',
      ),
    );
    const fixed = [
      COMMENT_MARK,
      '<details>',
      '</details>',
      '<summary>Everything that changed, fact by fact</summary>',
    ];
    fc.assert(
      fc.property(nasty, nasty, (x, y) => {
        const a = lockOf({ name: x, files: [file('same', { mode: y }), file(`old ${x}`)] });
        const b = lockOf({
          name: y,
          version: x,
          files: [file('same', { source: { url: y }, mode: x }), file(`new ${y}`)],
          charts: [chart(y, x)],
          images: [image(`e/${x}:${y}`)],
        });
        for (const text of markdownDiff(resultOf(a, b, { a: { ...resultOf(a, b).a, path: x } }))) {
          for (const line of text.split('\n')) {
            if (fixed.includes(line)) continue;
            expect(outsideCode(line)).toMatch(/^(?:#{3,4} )?[A-Za-z0-9 |:.,;*→–-]*$/);
            if (line.startsWith('|')) expect([4, 5, 6]).toContain(line.split('|').length - 1);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('stays below the limit of a comment and says what it left out', () => {
    const images = Array.from({ length: 3000 }, (_, i) => image(`registry.example/team/image-${i}:1`));
    const moved = images.map((one) => ({ ...one, digest: digestOf('f') }));
    const text = markdownDiff(resultOf(lockOf({ images }), lockOf({ images: moved }))).join('\n');
    expect(text.length).toBeLessThanOrEqual(COMMENT_LIMIT);
    expect(text.length).toBeGreaterThan(COMMENT_LIMIT - 2000);
    const rows = text.match(/^\| changed/gm)?.length ?? 0;
    expect(text.split('\n').at(-1)).toBe(
      `Left out, because a comment has a limit: ${3000 - rows} rows and the details of 3000 entries.`,
    );
    expect(text).not.toContain('<details>');
  });

  it('gives no name more room than others, also one of marks that take no column', () => {
    const zalgo = file(`${`x${'\u0301'.repeat(120)}/`.repeat(100)}end`);
    const text = markdownDiff(resultOf(lockOf({}), lockOf({ files: [zalgo] }))).join('\n');
    expect(text).toContain('| added | `x\u0301');
    expect(text.length).toBeLessThan(1000);
  });

  it('closes what it folds also when the facts do not all fit', () => {
    const many = (mark: string) =>
      Array.from({ length: 500 }, (_, i) => image(`r.example/i${i}:1`, { usedBy: [mark.repeat(300)] }));
    const lines = markdownDiff(resultOf(lockOf({ images: many('a') }), lockOf({ images: many('b') })));
    expect(lines.join('\n').length).toBeLessThanOrEqual(COMMENT_LIMIT);
    expect(lines.filter((l) => l === '<details>')).toHaveLength(1);
    expect(lines.at(-3)).toBe('</details>');
    expect(lines.at(-1)).toMatch(/^Left out, .*: the details of \d+ entries\.$/);
  });
});
