import type { CST } from 'yaml';

/**
 * The first items of a block list that are nothing but one plain word each, `- nginx:1.25`, as almost all items of long
 * lists are. Of each is kept its text and its place; the library would keep about 1 KB of tokens and nodes.
 */
export interface ListWords {
  readonly texts: string[];
  /** Where each begins in the YAML text. */
  readonly offsets: number[];
}

/** By where the list begins in the YAML text. */
export type WordsByList = Map<number, ListWords>;

/** No indicator, no space, nothing to fold or to unescape: such a word is its own value. */
const WORD = /^[A-Za-z0-9][A-Za-z0-9._/:@-]*$/;
/** Items that the library's parser may still look at or change. */
const RECENT = 2;

/** The word of an item that has no comment, anchor, tag or anything else beside it. */
function wordOf({ start, value }: CST.BlockSequence['items'][number]): CST.FlowScalar | undefined {
  if (value?.type !== 'scalar' || !WORD.test(value.source)) return undefined;
  const isPlain = (token: CST.SourceToken): boolean =>
    token.type === 'newline' || token.type === 'seq-item-ind' || /^ *$/.test(token.source);
  if (!start.every(isPlain) || start.filter((token) => token.type === 'seq-item-ind').length !== 1)
    return undefined;
  return value.end?.every((token) => token.type === 'newline') === true ? value : undefined;
}

/**
 * Takes the words out of a list that is being read, as long as nothing else came before them.
 * @param isText whether a word means its text
 */
export function takeWords(
  list: CST.Token | undefined,
  words: WordsByList,
  isText: (word: string) => boolean,
): void {
  if (list?.type !== 'block-seq') return;
  while (list.items.length > RECENT) {
    const word = list.items[0] === undefined ? undefined : wordOf(list.items[0]);
    if (word === undefined || !isText(word.source)) return;
    const known = words.get(list.offset) ?? { texts: [], offsets: [] };
    words.set(list.offset, known);
    known.texts.push(word.source);
    known.offsets.push(word.offset);
    list.items.shift();
  }
}
