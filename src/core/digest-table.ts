import { type Digest, digestOfHex, hexOf } from './digest.ts';

/** Bytes of a digest. */
const WIDTH = 32;
/** Digests for which there is room at first. */
const ROOM = 64;
/** Digests of one block: what is there is not copied when more come. */
const BLOCK = 2048;

/**
 * A random number for every value that every byte of a digest can have: a digest's hash is what they make together. Who
 * chooses digests knows none of them, so he cannot choose many that want the same place, whichever bytes he varies
 * (simple tabulation hashing). Made once, with the first table.
 */
let numbers: Int32Array | undefined;

function randomNumbers(): Int32Array {
  numbers ??= new Int32Array(WIDTH * 256).map(() => Math.floor(Math.random() * 2 ** 32));
  return numbers;
}

/** Where the bytes of a number begin in its block. */
function placeIn(index: number): number {
  return (index % BLOCK) * WIDTH;
}

/**
 * Many digests, each once, numbered from 0 in the order in which they came. A digest takes 32 bytes and a place in a table
 * instead of a text and an object each.
 */
export class DigestTable {
  readonly #blocks: Buffer[] = [];
  /** Number plus one of the digest at each place; 0 where none is. At most half of it is taken. */
  #places: Int32Array;
  #size = 0;
  readonly #key = Buffer.allocUnsafeSlow(WIDTH);
  readonly #numbers = randomNumbers();

  /** @param room for how many there shall be room at first */
  constructor(room = ROOM) {
    this.#places = new Int32Array(2 * Math.max(1, room));
  }

  get size(): number {
    return this.#size;
  }

  /** The number of a digest, which is put in where it is not there yet. */
  add(digest: Digest): number {
    if (2 * (this.#size + 1) > this.#places.length) this.#grow();
    const place = this.#find(digest);
    const known = (this.#places[place] ?? 0) - 1;
    if (known >= 0) return known;
    if (this.#size % BLOCK === 0) this.#blocks.push(Buffer.allocUnsafeSlow(BLOCK * WIDTH));
    this.#key.copy(this.#block(this.#size), placeIn(this.#size));
    this.#places[place] = ++this.#size;
    return this.#size - 1;
  }

  /** The number of a digest; -1 where it is not there. */
  indexOf(digest: Digest): number {
    return (this.#places[this.#find(digest)] ?? 0) - 1;
  }

  /** The digest of a number below `size`. */
  at(index: number): Digest {
    const from = placeIn(index);
    return digestOfHex(this.#block(index).toString('hex', from, from + WIDTH));
  }

  /** Compares the digests of two numbers as their texts compare. */
  compare(a: number, b: number): number {
    const [from, other] = [placeIn(a), placeIn(b)];
    return this.#block(a).compare(this.#block(b), other, other + WIDTH, from, from + WIDTH);
  }

  /** The block of a number at most `size`. */
  #block(index: number): Buffer {
    const block = this.#blocks[Math.floor(index / BLOCK)];
    if (block === undefined) throw new RangeError(`no digest ${index}`);
    return block;
  }

  /** Every digest, in the order of their numbers. */
  *[Symbol.iterator](): Generator<Digest> {
    for (let index = 0; index < this.#size; index += 1) yield this.at(index);
  }

  /** The place of a digest, or the empty one where it belongs; leaves its bytes in the key. */
  #find(digest: Digest): number {
    const key = this.#key;
    key.write(hexOf(digest), 'hex');
    for (let place = this.#hash(key, 0); ; place = (place + 1) % this.#places.length) {
      const index = (this.#places[place] ?? 0) - 1;
      if (index < 0) return place;
      const from = placeIn(index);
      if (key.compare(this.#block(index), from, from + WIDTH) === 0) return place;
    }
  }

  #hash(bytes: Buffer, at: number): number {
    let hash = 0;
    for (let i = 0; i < WIDTH; i += 1) hash ^= this.#numbers[256 * i + (bytes[at + i] ?? 0)] ?? 0;
    return (hash >>> 0) % this.#places.length;
  }

  #grow(): void {
    this.#places = new Int32Array(2 * this.#places.length);
    for (let index = 0; index < this.#size; index += 1) {
      let place = this.#hash(this.#block(index), placeIn(index));
      while (this.#places[place] !== 0) place = (place + 1) % this.#places.length;
      this.#places[place] = index + 1;
    }
  }
}
