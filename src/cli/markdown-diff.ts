import type { DiffChange, DiffEntry, DiffKind } from '../lock/diff.ts';
import type { DiffResult } from '../ops/diff.ts';
import { bytesText, count, harmless, shortDigests, shorten } from './words.ts';

/** The most characters of a comment: GitHub takes 65 536, and whoever posts it may add a line. */
export const COMMENT_LIMIT = 60_000;

/** How a program finds the comment that it wrote before, to replace it. */
export const COMMENT_MARK = '<!-- sealift diff -->';

/** Columns of a name, a version or a fact that are shown. */
const NAME_WIDTH = 160;
const FACT_WIDTH = 400;
/** Kept free for the lines that say what was left out. */
const RESERVE = 600;

const NOTHING = '–';

/**
 * Text from outside as code. Inside code nothing is a mention, a number of an issue, a link or HTML; what could end it or
 * the cell around it, a backtick or a pipe, is written as an escape (GitHub Flavored Markdown, "Code spans", "Tables").
 */
function code(text: string, width = NAME_WIDTH): string {
  // Marks that take no column of their own would make one name as long as all others together.
  const short = shorten(harmless(text), width).slice(0, 2 * width);
  const plain = short.replaceAll('`', '\\x60').replaceAll('|', '\\x7c');
  return plain.trim() === '' ? NOTHING : `\`${plain}\``;
}

function arrow(from: string | null, to: string | null, show = (text: string) => code(text)): string {
  const side = (text: string | null): string => (text === null || text === '' ? NOTHING : show(text));
  return from === to ? side(to) : `${side(from)} → ${side(to)}`;
}

const shownDigest = (text: string): string => code(shortDigests(text).replace('sha256:', ''));
const shownSize = (text: string): string => (/^\d{1,15}$/.test(text) ? bytesText(Number(text)) : code(text));

/** A fact on both sides; an entry that only one side has lacks it on the other. */
interface Sides {
  readonly from: string | null;
  readonly to: string | null;
}

/** One line of a table. */
interface Row {
  readonly kind: DiffKind;
  readonly mark: 'changed' | 'added' | 'removed';
  readonly name: string;
  /** Undefined where it is the same on both sides. */
  readonly fact: (name: string) => Sides | undefined;
}

function changedRow({ kind, name, changes }: DiffChange): Row {
  return { kind, name, mark: 'changed', fact: (wanted) => changes.find((c) => c.fact === wanted) };
}

function rowOf({ kind, name, facts }: DiffEntry, mark: 'added' | 'removed'): Row {
  const side = (value: string | null): Sides =>
    mark === 'added' ? { from: null, to: value } : { from: value, to: null };
  return { kind, name, mark, fact: (wanted) => side(facts[wanted] ?? null) };
}

/** A name without tag or digest, and the version that stands in it. */
function splitName({ kind, name }: Pick<Row, 'kind' | 'name'>): readonly [name: string, version: string] {
  if (kind === 'package') return [name.replace(/==.*$/, ''), name.replace(/^.*?==/, '')];
  const parts = kind === 'image' ? /^([^@]*?)(?::([^:/@]+))?(?:@.*)?$/.exec(name) : undefined;
  return [parts?.[1] ?? name, parts?.[2] ?? ''];
}

function sidesText(row: Row, sides: Sides | undefined, show = (text: string) => code(text)): string {
  if (sides === undefined) return '';
  if (row.mark === 'changed') return arrow(sides.from, sides.to, show);
  return arrow(sides.from ?? sides.to, sides.from ?? sides.to, show);
}

interface Table {
  readonly kind: DiffKind;
  readonly title: string;
  readonly columns: readonly string[];
  readonly cells: (row: Row) => readonly string[];
}

function imageCells(row: Row): string[] {
  const [name, version] = splitName(row);
  const tag = row.mark === 'changed' ? row.fact('tag') : undefined;
  const shown = tag === undefined ? arrow(version, version) : arrow(tag.from, tag.to);
  return [code(name), shown, sidesText(row, row.fact('digest'), shownDigest) || 'same'];
}

/** The sizes of images are known where a side is a bundle; a lock knows only those of charts and files. */
function imageTable({ sizes }: DiffResult): Table {
  const known = new Map(sizes.filter((s) => s.kind === 'image').map((s) => [s.name, s]));
  const size = ({ name }: Row): string => {
    const { from = null, to = null } = known.get(name) ?? {};
    return [from, to].flatMap((bytes) => (bytes === null ? [] : [bytesText(bytes)])).join(' → ') || NOTHING;
  };
  const about = { kind: 'image', title: 'Images' } as const;
  const columns = ['image', 'version', 'digest'];
  if (known.size === 0) return { ...about, columns, cells: imageCells };
  return { ...about, columns: [...columns, 'size'], cells: (row) => [...imageCells(row), size(row)] };
}

/** How many files a project has, before and now. */
function filesText(row: Row): string {
  const { from = null, to = null } = row.fact('files') ?? {};
  const counts = [from, to].flatMap((list) =>
    list === null ? [] : list === '' ? 0 : list.split(', ').length,
  );
  return [...new Set(counts)].map((n) => count(n, 'file')).join(' → ') || 'same';
}

const OTHERS: readonly Table[] = [
  {
    kind: 'chart',
    title: 'Charts',
    columns: ['chart', 'version', 'archive', 'size'],
    cells: (row) => [
      code(row.name),
      sidesText(row, row.fact('version')) || 'same',
      sidesText(row, row.fact('archive'), shownDigest) || 'same',
      sidesText(row, row.fact('size'), shownSize) || 'same',
    ],
  },
  {
    kind: 'file',
    title: 'Files',
    columns: ['file', 'SHA-256', 'size'],
    cells: (row) => [
      code(row.name),
      sidesText(row, row.fact('sha256'), shownDigest) || 'same',
      sidesText(row, row.fact('size'), shownSize) || 'same',
    ],
  },
  {
    kind: 'package',
    title: 'Python packages',
    columns: ['package', 'version', 'files', 'size'],
    cells: (row) => [
      code(splitName(row)[0]),
      sidesText(row, row.fact('version')) || 'same',
      filesText(row),
      sidesText(row, row.fact('size'), shownSize) || 'same',
    ],
  },
];

/** Lines that fit; those that do not are counted. */
class Page {
  readonly #lines: string[] = [];
  #left: number;
  cut = 0;

  constructor(limit: number) {
    this.#left = limit;
  }

  /** @returns whether there was room for all of them */
  add(...lines: readonly string[]): boolean {
    const length = lines.reduce((sum, line) => sum + line.length + 1, 0);
    if (length > this.#left) return false;
    this.#left -= length;
    this.#lines.push(...lines);
    return true;
  }

  /** Lines that each stand alone, below a head that only stands with one of them at least. */
  addList(head: readonly string[], lines: readonly string[], foot: readonly string[] = []): void {
    const [first, ...rest] = lines;
    const around = foot.reduce((sum, line) => sum + line.length + 1, 0);
    this.#left -= around;
    let isOpen = first !== undefined && this.add(...head, first);
    if (!isOpen) {
      this.#left += around;
      this.cut += lines.length;
      return;
    }
    for (const line of rest) {
      isOpen &&= this.add(line);
      if (!isOpen) this.cut += 1;
    }
    this.#lines.push(...foot);
  }

  get lines(): readonly string[] {
    return this.#lines;
  }
}

function addTable(page: Page, { kind, title, columns, cells }: Table, rows: readonly Row[]): void {
  const own = rows.filter((row) => row.kind === kind);
  const line = (texts: readonly string[]): string => `| ${texts.join(' | ')} |`;
  const head = ['', `#### ${title}`, '', line(['', ...columns]), line(['', ...columns].map(() => '---'))];
  page.addList(
    head,
    own.map((row) => line([row.mark, ...cells(row)])),
  );
}

function factLine({ fact, from, to }: DiffChange['changes'][number]): string {
  const show = (text: string): string => code(shortDigests(text), FACT_WIDTH);
  return `  - ${fact}: ${arrow(from, to, show)}`;
}

/** Every fact of what changed, folded: a reviewer opens it where a table says too little. */
function addDetails(page: Page, { changed }: DiffResult): void {
  const items = changed.map(({ kind, name, changes }) =>
    [`- ${kind} ${code(name)}`, ...changes.map(factLine)].join('\n'),
  );
  const head = ['', '<details>', '<summary>Everything that changed, fact by fact</summary>', ''];
  page.addList(head, items, ['', '</details>']);
}

function headline({ a, b, equal }: DiffResult): string {
  const name = a.name === b.name ? code(b.name) : arrow(a.name, b.name);
  const version = a.version === b.version ? code(b.version) : arrow(a.version, b.version);
  return `### ${name} ${version}${equal ? ': no difference' : ''}`;
}

function summaryLines({ a, b, added, removed, changed, onlyA, onlyB }: DiffResult): string[] {
  const entries = changed.filter((c) => c.kind !== 'bundle').length;
  const sides = `From ${a.kind} ${code(a.path)} to ${b.kind} ${code(b.path)}`;
  const numbers = `**${entries} changed, ${added.length} added, ${removed.length} removed**`;
  if (onlyA === null || onlyB === null) return [`${sides}: ${numbers}.`];
  const blobs = (of: { blobs: number; bytes: number }): string =>
    `${bytesText(of.bytes)} in ${count(of.blobs, 'blob')}`;
  return [`${sides}: ${numbers}; ${blobs(onlyB)} new, ${blobs(onlyA)} gone.`];
}

/**
 * A comparison as a comment for a pull request: GitHub Flavored Markdown, which GitLab, Gitea and others read too. No name
 * in it is more than text (`code`). At most COMMENT_LIMIT characters; what does not fit is left out from the end, the
 * folded details first, and counted in a last line.
 */
export function markdownDiff(result: DiffResult, limit = COMMENT_LIMIT): string[] {
  const page = new Page(limit - RESERVE);
  page.add(COMMENT_MARK, headline(result));
  if (!result.equal) page.add('', ...summaryLines(result));
  const rows = [
    ...result.changed.map(changedRow),
    ...result.added.map((entry) => rowOf(entry, 'added')),
    ...result.removed.map((entry) => rowOf(entry, 'removed')),
  ];
  for (const table of [imageTable(result), ...OTHERS]) addTable(page, table, rows);
  const cutRows = page.cut;
  addDetails(page, result);
  const cutDetails = page.cut - cutRows;
  if (page.cut === 0) return [...page.lines];
  const parts = [
    ...(cutRows > 0 ? [count(cutRows, 'row')] : []),
    ...(cutDetails > 0 ? [`the details of ${count(cutDetails, 'entry')}`] : []),
  ];
  return [...page.lines, '', `Left out, because a comment has a limit: ${parts.join(' and ')}.`];
}
