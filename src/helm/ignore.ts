import { SealiftError } from '../core/errors.ts';

/** `.helmignore` as Helm 3 reads it (helm.md 1.2 point 7): not gitignore. */

interface Rule {
  readonly glob: readonly Token[];
  readonly negate: boolean;
  readonly foldersOnly: boolean;
  /** Compared with the whole path; otherwise with the last name alone. */
  readonly wholePath: boolean;
}

type Token =
  | { readonly type: 'star' | 'any' }
  | { readonly type: 'char'; readonly char: string }
  | {
      readonly type: 'set';
      readonly negate: boolean;
      readonly ranges: readonly (readonly [string, string])[];
    };

/** Helm leaves out hidden files of templates/ whatever the file says. */
const DEFAULT_RULE = 'templates/.?*';
const MAX_RULES = 10_000;

/** True for what is left out. A folder that is left out takes its content with it. */
export type Ignore = (path: string, isFolder: boolean) => boolean;

/**
 * Reads the text of `.helmignore`; '' when there is none.
 * @throws CHART_INVALID for `**` and patterns that Helm refuses
 */
export function parseIgnore(text: string, what: string): Ignore {
  const lines = [...text.replace(/^\ufeff/, '').split('\n'), DEFAULT_RULE];
  if (lines.length > MAX_RULES)
    throw new SealiftError('CHART_INVALID', `${what}: more than ${MAX_RULES} lines`);
  const rules: Rule[] = [];
  lines.forEach((line, index) => {
    const rule = parseRule(line.trim(), `${what}:${index + 1}`);
    if (rule !== undefined) rules.push(rule);
  });
  return (path, isFolder) => {
    for (const rule of rules) {
      const applies = isFolder || !rule.foldersOnly;
      const name = rule.wholePath ? path : (path.split('/').at(-1) ?? path);
      const hit = applies && matches(rule.glob, name);
      // A negated rule that does not hit leaves the file out at once; that is Helm's way, not git's.
      if (rule.negate ? !hit : hit) return true;
    }
    return false;
  };
}

function parseRule(line: string, where: string): Rule | undefined {
  if (line === '' || line.startsWith('#')) return undefined;
  if (line.includes('**')) throw new SealiftError('CHART_INVALID', `${where}: Helm does not know "**"`);
  const negate = line.startsWith('!');
  const unsigned = negate ? line.slice(1) : line;
  const foldersOnly = unsigned.endsWith('/');
  const pattern = foldersOnly ? unsigned.slice(0, -1) : unsigned;
  const wholePath = pattern.includes('/');
  return { glob: parseGlob(pattern.replace(/^\//, ''), where), negate, foldersOnly, wholePath };
}

/** A pattern of Go's `filepath.Match`: `*`, `?`, `[a-z]`, `[^a]`, `\` before a character. */
function parseGlob(pattern: string, where: string): Token[] {
  const chars = [...pattern];
  const tokens: Token[] = [];
  const bad = (): never => {
    throw new SealiftError('CHART_INVALID', `${where}: "${pattern.slice(0, 200)}" is not a pattern`);
  };
  let at = 0;
  const literal = (): string => {
    if (chars[at] === '\\') at++;
    return chars[at++] ?? bad();
  };
  while (at < chars.length) {
    const char = chars[at];
    if (char === '*') {
      tokens.push({ type: 'star' });
      at++;
    } else if (char === '?') {
      tokens.push({ type: 'any' });
      at++;
    } else if (char !== '[') tokens.push({ type: 'char', char: literal() });
    else {
      at++;
      const negate = chars[at] === '^';
      if (negate) at++;
      const ranges: [string, string][] = [];
      while (ranges.length === 0 || chars[at] !== ']') {
        if (at >= chars.length || chars[at] === '-' || chars[at] === ']') bad();
        const low = literal();
        if (chars[at] !== '-') ranges.push([low, low]);
        else {
          at++;
          ranges.push([low, literal()]);
        }
      }
      at++;
      tokens.push({ type: 'set', negate, ranges });
    }
  }
  return tokens;
}

function matchesOne(token: Token, char: string): boolean {
  if (token.type === 'char') return token.char === char;
  if (char === '/') return false;
  if (token.type === 'set') return token.ranges.some(([a, b]) => a <= char && char <= b) !== token.negate;
  return true;
}

/** Steps back only to the last star: enough, because a star never passes a `/`. */
function matches(glob: readonly Token[], text: string): boolean {
  const chars = [...text];
  let [token, char] = [0, 0];
  let star: { token: number; char: number } | undefined;
  while (char < chars.length) {
    const current = glob[token];
    if (current?.type === 'star') {
      star = { token: ++token, char };
    } else if (current !== undefined && matchesOne(current, chars[char] ?? '')) {
      token++;
      char++;
    } else if (star !== undefined && chars[star.char] !== '/') {
      token = star.token;
      char = ++star.char;
    } else return false;
  }
  while (glob[token]?.type === 'star') token++;
  return token === glob.length;
}
