const MASK = (1n << 64n) - 1n;
const BLOCK = 128;

const IV: readonly bigint[] = [
  0x6a09e667f3bcc908n,
  0xbb67ae8584caa73bn,
  0x3c6ef372fe94f82bn,
  0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n,
  0x9b05688c2b3e6c1fn,
  0x1f83d9abfb41bd6bn,
  0x5be0cd19137e2179n,
];

/** One hex digit for each word of the message; rounds 10 and 11 begin again (RFC 7693, 2.7). */
const SIGMA: readonly string[] = [
  '0123456789abcdef',
  'ea489fd61c02b753',
  'b8c052fdae367194',
  '7931dcbe265a40f8',
  '905724afe1bc683d',
  '2c6a0b834d75fe19',
  'c51fed4a0763928b',
  'db7ec13950f4862a',
  '6fe9b308c2d714a5',
  'a2847615fb9e3cd0',
];

/** The words that each of the eight steps of a round mixes: columns, then diagonals. */
const STEPS: readonly (readonly [number, number, number, number])[] = [
  [0, 4, 8, 12],
  [1, 5, 9, 13],
  [2, 6, 10, 14],
  [3, 7, 11, 15],
  [0, 5, 10, 15],
  [1, 6, 11, 12],
  [2, 7, 8, 13],
  [3, 4, 9, 14],
];

function rotate(word: bigint, bits: bigint): bigint {
  return ((word >> bits) | (word << (64n - bits))) & MASK;
}

/** Mixes one block into the state. @param done bytes up to the end of this block; @param last whether it is the last one */
function compress(
  state: BigUint64Array,
  block: Buffer,
  { done, last }: { readonly done: number; readonly last: boolean },
): void {
  const v = BigUint64Array.from([...state, ...IV]);
  const at = (index: number): bigint => v[index] ?? 0n;
  v[12] = at(12) ^ BigInt(done);
  if (last) v[14] = at(14) ^ MASK;
  for (let round = 0; round < 12; round += 1) {
    const order = SIGMA[round % SIGMA.length] ?? '';
    for (const [step, [a, b, c, d]] of STEPS.entries()) {
      const word = (half: number): bigint =>
        block.readBigUInt64LE(8 * Number.parseInt(order.charAt(2 * step + half), 16));
      // The array keeps 64 bits of each sum.
      v[a] = at(a) + at(b) + word(0);
      v[d] = rotate(at(d) ^ at(a), 32n);
      v[c] = at(c) + at(d);
      v[b] = rotate(at(b) ^ at(c), 24n);
      v[a] = at(a) + at(b) + word(1);
      v[d] = rotate(at(d) ^ at(a), 16n);
      v[c] = at(c) + at(d);
      v[b] = rotate(at(b) ^ at(c), 63n);
    }
  }
  for (let i = 0; i < 8; i += 1) state[i] = (state[i] ?? 0n) ^ at(i) ^ at(i + 8);
}

/**
 * BLAKE2b without a key (RFC 7693), of any length: Node's crypto gives 64 bytes only. For the checksum in a key file; all
 * content is hashed by Node's own.
 * @param length of the hash, 1 to 64 bytes
 */
export function blake2b(message: Uint8Array, length: number): Buffer {
  const state = BigUint64Array.from(IV);
  // Parameter block: fan-out 1, depth 1, no key, the length.
  state[0] = (state[0] ?? 0n) ^ 0x01010000n ^ BigInt(length);
  let from = 0;
  do {
    const block = Buffer.alloc(BLOCK);
    block.set(message.subarray(from, from + BLOCK));
    from += BLOCK;
    const last = from >= message.length;
    compress(state, block, { done: Math.min(from, message.length), last });
  } while (from < message.length);
  const hash = Buffer.alloc(64);
  for (const [i, word] of state.entries()) hash.writeBigUInt64LE(word, 8 * i);
  return hash.subarray(0, length);
}
