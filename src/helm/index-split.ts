/** The text of a repository index, cut at its charts. */
export interface SplitIndex {
  /** Everything but the charts. */
  readonly head: string;
  /** Chart name → the lines of its versions, as YAML of their own. */
  readonly charts: ReadonlyMap<string, string>;
}

const NAME = /^( +)(?:"([\w.-]+)"|'([\w.-]+)'|([\w.-]+)):[ \t]*\r?$/;

/**
 * Cuts an index.yaml in block style at its charts, because reading all of a large one takes seconds and gigabytes when
 * one chart is wanted. A line that is indented like the first chart's name can only be another name, an item of a list
 * or a comment. Undefined for any other style; the whole then has to be read.
 */
export function splitIndex(text: string): SplitIndex | undefined {
  const start = /^entries:[ \t]*\r?\n/m.exec(text);
  if (start === null) return undefined;
  const from = start.index + start[0].length;
  const after = /^[^\s#]/m.exec(text.slice(from));
  const to = after === null ? text.length : from + after.index;
  // `- ` at the margin would be a list: not a map of charts.
  if (text.startsWith('-', to) && !text.startsWith('---', to)) return undefined;

  const charts = new Map<string, string>();
  let indent: string | undefined;
  let name: string | undefined;
  let begin = from;
  for (let at = from; at < to; ) {
    const newline = text.indexOf('\n', at);
    const end = newline < 0 || newline >= to ? to : newline;
    const first = text.slice(at, Math.min(end, at + 200));
    if (startsKey(first, indent)) {
      const key = NAME.exec(text.slice(at, end));
      if (key === null) return undefined;
      indent ??= key[1] ?? '';
      if (name !== undefined) charts.set(name, text.slice(begin, at));
      name = key[2] ?? key[3] ?? key[4] ?? '';
      begin = at;
    }
    at = end + 1;
  }
  if (name !== undefined) charts.set(name, text.slice(begin, to));
  return { head: text.slice(0, from) + text.slice(to), charts };
}

/** Whether a line begins a key of the map of charts. */
function startsKey(line: string, indent: string | undefined): boolean {
  const spaces = /^\s*/.exec(line)?.[0] ?? '';
  const rest = line.slice(spaces.length);
  if (rest === '' || rest.startsWith('#') || /^-(\s|$)/.test(rest)) return false;
  return indent === undefined || spaces.length <= indent.length;
}
