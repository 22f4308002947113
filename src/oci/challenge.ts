/** One authentication challenge of a WWW-Authenticate header. */
export interface Challenge {
  /** Lower case: `bearer`, `basic`, `negotiate`. */
  readonly scheme: string;
  /** Parameter names in lower case. */
  readonly params: Readonly<Record<string, string>>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))/y;

/**
 * Reads a WWW-Authenticate header by the grammar of RFC 9110 11.2: several challenges in one header, quoted strings with
 * commas and escapes, token68 (registry.md A1). What does not parse ends the list.
 */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; params: Record<string, string> }[] = [];
  let at = 0;
  const match = (re: RegExp): string | undefined => {
    re.lastIndex = at;
    const found = re.exec(header)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };
  const skip = (): void => {
    match(/[\s,]*/y);
  };
  const value = (): string | undefined => {
    if (header[at] !== '"') return match(TOKEN);
    const quoted = match(/"(?:[^"\\]|\\.)*"/y);
    return quoted?.slice(1, -1).replace(/\\(.)/g, '$1');
  };
  for (skip(); at < header.length; skip()) {
    const word = match(TOKEN);
    if (word === undefined) break;
    const spaces = match(/\s*/y) ?? '';
    const current = challenges.at(-1);
    if (header[at] === '=' && current !== undefined) {
      at++;
      match(/\s*/y);
      const v = value();
      if (v === undefined) break;
      current.params[word.toLowerCase()] ??= v;
      continue;
    }
    challenges.push({ scheme: word.toLowerCase(), params: {} });
    if (spaces !== '') match(TOKEN68);
  }
  return challenges;
}
