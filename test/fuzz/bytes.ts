/** Changes of bytes that know nothing of what the bytes mean. */
import { TAR_BLOCK } from '../../src/io/tar.ts';
import type { Chance } from './chance.ts';

function flipBits(bytes: Buffer, chance: Chance): Buffer {
  const made = Buffer.from(bytes);
  for (let left = 1 + chance.below(4); left > 0; left -= 1) {
    const at = chance.below(made.length);
    made[at] = (made[at] ?? 0) ^ (1 << chance.below(8));
  }
  return made;
}

function overwrite(bytes: Buffer, chance: Chance): Buffer {
  const made = Buffer.from(bytes);
  const at = chance.below(made.length);
  const to = at + 1 + chance.below(chance.once(2) ? 16 : 2000);
  const value = chance.of([0, 0xff, 0x20, 0x30, 0x80]);
  if (chance.once(2)) made.fill(value, at, Math.min(to, made.length));
  else chance.bytes(Math.min(64, to - at)).copy(made, at);
  return made;
}

/** A run of blocks that is put, or put in once more, elsewhere. */
function moveBlocks(bytes: Buffer, chance: Chance): Buffer {
  const unit = chance.once(4) ? 1 : TAR_BLOCK;
  const blocks = Math.floor(bytes.length / unit);
  const [from, to] = [chance.below(blocks) * unit, chance.below(blocks) * unit];
  const run = bytes.subarray(from, from + (1 + chance.below(4)) * unit);
  if (chance.once(2)) return Buffer.concat([bytes.subarray(0, to), run, bytes.subarray(to)]);
  const made = Buffer.from(bytes);
  run.copy(made, to);
  return made;
}

function swapBlocks(bytes: Buffer, chance: Chance): Buffer {
  const blocks = Math.floor(bytes.length / TAR_BLOCK);
  const [a, b] = [chance.below(blocks) * TAR_BLOCK, chance.below(blocks) * TAR_BLOCK];
  const made = Buffer.from(bytes);
  bytes.copy(made, a, b, b + TAR_BLOCK);
  bytes.copy(made, b, a, a + TAR_BLOCK);
  return made;
}

function cut(bytes: Buffer, chance: Chance): Buffer {
  const at = chance.below(bytes.length);
  return Buffer.from(bytes.subarray(0, chance.once(2) ? at : at - (at % TAR_BLOCK)));
}

function remove(bytes: Buffer, chance: Chance): Buffer {
  const unit = chance.once(2) ? 1 : TAR_BLOCK;
  const at = chance.below(Math.ceil(bytes.length / unit)) * unit;
  return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + (1 + chance.below(3)) * unit)]);
}

function append(bytes: Buffer, chance: Chance): Buffer {
  const length = chance.of([1, 511, 512, 513, 1024, 9000]);
  const more = chance.of([() => Buffer.alloc(length), () => chance.bytes(600), () => bytes]);
  return Buffer.concat([bytes, more()]);
}

const CHANGES = [flipBits, flipBits, overwrite, overwrite, moveBlocks, swapBlocks, cut, remove, append];

/** One change of some bytes; none where there are no bytes. */
export function changeBytes(bytes: Buffer, chance: Chance): Buffer {
  return bytes.length === 0 ? Buffer.alloc(0) : chance.of(CHANGES)(bytes, chance);
}
