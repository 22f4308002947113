/** Changes of a tar by its entries and headers: any reader of tars may be given them. */
import { TAR_BLOCK, tarHeader, tarPadding } from '../../src/io/tar.ts';
import { changedHeader, END, joined, type Part, withBody } from '../bundle/tar-parts.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, NAMES, NUMBERS } from './chance.ts';
import { changeDocument } from './json.ts';

const TYPES = [
  '\0',
  '0',
  '1',
  '2',
  '3',
  '4',
  '5',
  '6',
  '7',
  'x',
  'g',
  'L',
  'K',
  'S',
  'V',
  'D',
  'M',
  'N',
  'Z',
];

/** A part of a tar with a plain header. */
export function partOf(name: string, body: Buffer): Part {
  const part = {
    name,
    header: tarHeader('x', body.length),
    body,
    padding: Buffer.alloc(tarPadding(body.length)),
  };
  return { ...part, header: changedHeader(part.header, { 0: field(name, 100) }) };
}

/** Text of a fixed width, cut where it is too long. */
function field(text: string, width: number): Buffer {
  const made = Buffer.alloc(width);
  made.write(text, 'utf8');
  return made;
}

function octal(value: number, width: number): string {
  return `${Math.max(0, Math.trunc(value))
    .toString(8)
    .padStart(width - 1, '0')
    .slice(-(width - 1))}\0`;
}

function base256(value: number): Buffer {
  const made = Buffer.alloc(12);
  made.writeBigInt64BE(BigInt(Math.trunc(Math.max(-(2 ** 62), Math.min(value, 2 ** 62)))), 4);
  made[0] = value < 0 ? 0xff : 0x80;
  return made;
}

function hostileFields(part: Part, chance: Chance): Record<number, string | Buffer> {
  const number = chance.of(NUMBERS);
  const names = [
    chance.of(NAMES),
    `${part.name}/`,
    `./${part.name}`,
    `${part.name}\0x`,
    part.name.toUpperCase(),
  ];
  const makers: (() => Record<number, string | Buffer>)[] = [
    () => ({ 0: field(chance.of(names), 100) }),
    () => ({ 0: field(chance.of(names), 100), 345: field(chance.of(NAMES), 155) }),
    () => ({ 124: octal(number, 12) }),
    () => ({ 124: base256(chance.once(3) ? -number : number) }),
    () => ({ 124: octal(part.body.length + chance.of([-1, 1, 512, -512]), 12) }),
    () => ({
      124: chance.of(['            ', '-1\0', '9999999999\0', '0x10\0', '777777777777', '1 2\0', '\0']),
    }),
    () => ({ 156: chance.of(TYPES) }),
    () => ({ 156: chance.of(['1', '2']), 157: field(chance.of(NAMES), 100) }),
    () => ({ 100: octal(chance.of([0, 0o4755, 0o777, 0o120777, 0o040755, 0o060000]), 8) }),
    () => ({ [chance.of([108, 116, 136, 329, 337])]: octal(number, 8) }),
    () => ({ 257: chance.of(['ustar  \0', 'ustar\0', '\0\0\0\0\0\0\0\0', 'USTAR\x0000']) }),
    () => ({ [chance.below(TAR_BLOCK)]: chance.bytes(1 + chance.below(4)) }),
  ];
  const fields = chance.of(makers)();
  const outside = Object.keys(fields).some((at) => Number(at) > TAR_BLOCK - 4);
  return outside ? { 500: 'x' } : fields;
}

function changeHeader(part: Part, chance: Chance): Part {
  const head = part.header.subarray(-TAR_BLOCK);
  const header = changedHeader(head, hostileFields(part, chance));
  if (chance.once(8)) header.write(chance.of(['000000\0 ', '777777\0 ', '        ']), 148, 'latin1');
  return { ...part, header };
}

function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = Buffer.byteLength(rest);
  while (String(length).length + Buffer.byteLength(rest) !== length) length += 1;
  return `${length}${rest}`;
}

function paxBody(part: Part, chance: Chance): string {
  const size = String(chance.of([...NUMBERS, part.body.length]));
  const bodies: (() => string)[] = [
    () => paxRecord('path', chance.of([...NAMES, part.name])),
    () => paxRecord('size', size),
    () => paxRecord('size', chance.of(['', '-1', '0x10', ' 1', '1e3', '９', '18446744073709551617'])),
    () => paxRecord('linkpath', chance.of(NAMES)),
    () => paxRecord('GNU.sparse.map', '0,1'),
    () => paxRecord('mtime', '0.5'),
    () => paxRecord('path', part.name) + paxRecord('size', size),
    () => paxRecord('', '') + paxRecord('a=b', 'c\nd'),
    () => chance.of(['', '5\n', '0 \n', '-1 a=b\n', '999999999 a=b\n', '6 a=b', '1 ', 'x', '007 a=b\n']),
    () => paxRecord('comment', 'x'.repeat(chance.of([10, 5000, 70_000]))),
    () => paxRecord('path', 'x').repeat(500),
  ];
  return chance.of(bodies)();
}

/** A header about the next entry, before it. */
function extraOf(part: Part, chance: Chance): Part {
  const type = chance.of(['x', 'x', 'x', 'g', 'L', 'K']);
  const text = type === 'L' || type === 'K' ? `${chance.of(NAMES)}\0` : paxBody(part, chance);
  const extra = partOf('pax', Buffer.from(text));
  return { ...extra, header: changedHeader(extra.header, { 156: type }) };
}

/** One change of an entry: its header, its bytes or what stands before it. */
function changePart(part: Part, chance: Chance): Part[] {
  switch (chance.of(['header', 'header', 'extra', 'body', 'body', 'json', 'padding'] as const)) {
    case 'header':
      return [changeHeader(part, chance)];
    case 'extra':
      return [extraOf(part, chance), ...(chance.once(4) ? [extraOf(part, chance)] : []), part];
    case 'body':
      return [withBody(part, changeBytes(part.body, chance))];
    case 'json':
      return [withBody(part, changeDocument(part.body, chance))];
    case 'padding':
      return [{ ...part, padding: chance.once(2) ? chance.bytes(part.padding.length) : Buffer.alloc(512) }];
  }
}

function changeOrder(parts: readonly Part[], at: number, chance: Chance): Part[] {
  const [before, after] = [parts.slice(0, at), parts.slice(at + 1)];
  const own = parts.slice(at, at + 1);
  const other = [chance.of(parts)];
  switch (chance.of(['remove', 'twice', 'move', 'replace', 'add'] as const)) {
    case 'remove':
      return [...before, ...after];
    case 'twice':
      return [...before, ...own, ...own, ...after];
    case 'move':
      return [...own, ...before, ...after];
    case 'replace':
      return [...before, ...other, ...after];
    case 'add':
      return [...before, partOf(chance.of(NAMES), chance.bytes(chance.below(40))), ...own, ...after];
  }
}

/** One to three changes of the entries of a tar. */
export function changeParts(parts: readonly Part[], chance: Chance): Part[] {
  let made = [...parts];
  for (let left = chance.once(3) ? 1 + chance.below(3) : 1; left > 0; left -= 1) {
    if (made.length === 0) return made;
    const at = chance.below(made.length);
    if (chance.once(3)) made = changeOrder(made, at, chance);
    else made = made.flatMap((part, i) => (i === at ? changePart(part, chance) : [part]));
  }
  return made;
}

/** A tar of these entries, seldom with another end. */
export function tarOfParts(parts: readonly Part[], chance: Chance): Buffer {
  const ends = [Buffer.alloc(0), Buffer.alloc(512), Buffer.alloc(10_240), Buffer.alloc(1024, 1)];
  return joined(parts, chance.once(12) ? chance.of(ends) : END);
}
