// What a program or library for Linux needs of the machine, read from its ELF file (System V gABI, chapters 4 and 5; Linux
// Standard Base, "Symbol Versioning"): 64 bits, little-endian, which is what both of our processors are.

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const DT_NULL = 0;
const DT_NEEDED = 1;
const DT_STRTAB = 5;
const DT_VERNEED = 0x6ffffffe;
const DT_VERNEEDNUM = 0x6fffffff;
const MACHINES = { 62: 'x64', 183: 'arm64' };

/**
 * @param {Buffer} bytes a whole ELF file
 * @returns {{machine: string, loader: string | undefined, needed: string[], versions: Record<string, string[]>}}
 *   `needed`: libraries; `versions`: of each library, the versions of symbols that it must have (`GLIBC_2.28`)
 * @throws {Error} when it is no such file
 */
export function readElf(bytes) {
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46) throw new Error('not an ELF file');
  if (bytes[4] !== 2 || bytes[5] !== 1) throw new Error('not 64 bits, little-endian');
  const segments = segmentsOf(bytes);
  const machine = bytes.readUInt16LE(18);
  const interpreter = segments.find(({ type }) => type === PT_INTERP);
  const entries = dynamicOf(bytes, segments);
  const tagged = (tag) => entries.find((entry) => entry.tag === tag)?.value;
  const strings = fileOffset(segments, tagged(DT_STRTAB));
  const text = (at) => cString(bytes, strings + at);
  const first = tagged(DT_VERNEED);
  return {
    machine: MACHINES[machine] ?? `machine ${machine}`,
    loader: interpreter === undefined ? undefined : cString(bytes, interpreter.offset),
    needed: entries.filter(({ tag }) => tag === DT_NEEDED).map(({ value }) => text(value)),
    versions:
      first === undefined
        ? {}
        : versionsOf(bytes, { at: fileOffset(segments, first), count: tagged(DT_VERNEEDNUM) ?? 0, text }),
  };
}

/** The highest version of a kind, `[2, 28]` of `GLIBC_2.28`; undefined when nothing of that kind is needed. */
export function highest(names, kind) {
  const numbers = names
    .map((name) => new RegExp(`^${kind}_([0-9]+(?:\\.[0-9]+)*)$`).exec(name)?.[1]?.split('.').map(Number))
    .filter((parts) => parts !== undefined);
  return numbers.sort(compareVersions).at(-1);
}

export function compareVersions(a, b) {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const order = (a[i] ?? 0) - (b[i] ?? 0);
    if (order !== 0) return order;
  }
  return 0;
}

function segmentsOf(bytes) {
  const at = Number(bytes.readBigUInt64LE(32));
  const [size, count] = [bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  return Array.from({ length: count }, (_, i) => {
    const head = at + i * size;
    return {
      type: bytes.readUInt32LE(head),
      offset: Number(bytes.readBigUInt64LE(head + 8)),
      address: Number(bytes.readBigUInt64LE(head + 16)),
      length: Number(bytes.readBigUInt64LE(head + 32)),
    };
  });
}

function dynamicOf(bytes, segments) {
  const segment = segments.find(({ type }) => type === PT_DYNAMIC);
  if (segment === undefined) return [];
  const entries = [];
  for (let at = segment.offset; at < segment.offset + segment.length; at += 16) {
    const tag = Number(bytes.readBigInt64LE(at));
    if (tag === DT_NULL) break;
    entries.push({ tag, value: Number(bytes.readBigUInt64LE(at + 8)) });
  }
  return entries;
}

function fileOffset(segments, address) {
  const inside = ({ type, address: from, length }) =>
    type === PT_LOAD && address >= from && address < from + length;
  const segment = segments.find(inside);
  if (segment === undefined) throw new Error(`no segment holds address ${address}`);
  return address - segment.address + segment.offset;
}

/** The chain of Verneed and Vernaux records: for each library its file name and the versions that are needed of it. */
function versionsOf(bytes, { at, count, text }) {
  const versions = {};
  for (let i = 0, need = at; i < count; i++) {
    const names = [];
    let one = need + bytes.readUInt32LE(need + 8);
    for (let j = 0; j < bytes.readUInt16LE(need + 2); j++) {
      names.push(text(bytes.readUInt32LE(one + 8)));
      one += bytes.readUInt32LE(one + 12);
    }
    versions[text(bytes.readUInt32LE(need + 4))] = names.sort();
    need += bytes.readUInt32LE(need + 12);
  }
  return versions;
}

function cString(bytes, at) {
  return bytes.toString('latin1', at, bytes.indexOf(0, at));
}
