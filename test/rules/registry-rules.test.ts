import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  faultsOf,
  idsOf,
  namedIds,
  type Rule,
  readRules,
  renderRules,
  rulesList,
} from '../../scripts/registry-rules.mjs';

const ROOT = resolve(import.meta.dirname, '../..');
/** Facts about registries that the rules were made from; beside the repository, and not everywhere. */
const FACTS = resolve(ROOT, '../shared/reference/registry.md');

describe('the rules of how registries are spoken to', () => {
  it('each have a test that names them, and tests name no others', () => {
    expect(faultsOf(readRules(ROOT), namedIds(ROOT))).toEqual([]);
  });

  it('are in docs/registry-rules.md with their tests (npm run rules)', () => {
    const { path, text } = rulesList(ROOT);
    expect(readFileSync(path, 'utf8')).toBe(text);
  });

  it.skipIf(!existsSync(FACTS))('leave no point of the facts out', () => {
    const points = pointsOf(readFileSync(FACTS, 'utf8'));
    expect(points.length).toBeGreaterThan(45);
    expect(readRules(ROOT).map((r) => r.point)).toEqual(expect.arrayContaining(points));
  });
});

/** The points of sections 1.1 to 1.6: rows `A1`, numbered points, bullets in their order, and letters inside. */
function pointsOf(text: string): string[] {
  const sections = [...text.matchAll(/^### (1\.[1-6]) [^\n]*\n([\s\S]*?)(?=^### )/gm)];
  return sections.flatMap(([, section = '', body = '']) => {
    let bullet = 0;
    const points = body.split('\n').flatMap((line) => {
      const numbered = /^(?:\| (A\d+) \||(\d)\. )/.exec(line);
      if (numbered !== null) return [`${section} ${numbered[1] ?? numbered[2]}`];
      if (line.startsWith('* ')) return [`${section} ${++bullet}`];
      return [...line.matchAll(/(?:^|\s)([a-d])\) /g)].map((m) => `${section} ${bullet}${m[1]}`);
    });
    return points.length > 0 ? points : [section];
  });
}

describe('the ids of a test file', () => {
  it('are those in brackets at the start of titles, of every form of test that runs', () => {
    // The marks keep these lines from being taken for tests of this file.
    const text = `
      @describe('[A1] challenges', () => {
        @it('[A2, A3] one', () => {});
        @it.each([[1], ['[A9] no title']])('[1.3-head] %s', () => {});
        @for (const x of y) it(\`[1.4-1-skip] \${x}\`, () => {});
        @it.skipIf(!z)('[1.1-certs.d] when there is one', () => {});
        @it('of [A5] inside', () => {});
        @it('[::1] is an address', () => {});
        @it.skip('[A6] never', () => {});
        @it.todo('[A7] later');
        @other('[A8] is not ours', () => {});
        // it('[A10] commented', () => {});
      });`.replaceAll('@', '');
    expect(idsOf(text)).toEqual(['A1', 'A2', 'A3', '1.3-head', '1.4-1-skip', '1.1-certs.d']);
  });

  it('must be rules, and every rule must be there', () => {
    const rules: Rule[] = [
      { id: 'A1', point: '1.1 A1', rule: 'one' },
      { id: 'A2', point: '1.1 A2', rule: 'two' },
      { id: 'A3', point: '1.1 A3', rule: 'three', open: 'somebody' },
      { id: 'A4', point: '1.1 A4', rule: 'four <b> | x' },
    ];
    const named = new Map([
      ['A1', ['test/a.test.ts']],
      ['A2', ['test/peers/b.test.ts']],
      ['A3', ['test/a.test.ts']],
      ['A5', ['test/c.test.ts']],
    ]);
    expect(faultsOf(rules, named)).toEqual([
      'test/c.test.ts: "A5" is not a rule of test/rules/registry-rules.json',
      'A2: no test names it',
      'A3: has a test, so it is not open any more',
      'A4: no test names it',
    ]);
    expect(
      faultsOf([...rules.slice(0, 1), ...rules.slice(0, 1)], new Map([['A1', ['test/a.test.ts']]])),
    ).toEqual(['test/rules/registry-rules.json: an id is there twice']);
    const list = renderRules(rules, named);
    expect(list).toContain('| A1 | one | [test/a.test.ts](../test/a.test.ts) |');
    expect(list).toContain('| A3 | three | open: somebody |');
    expect(list).toContain('four &lt;b> \\| x');
  });
});
