import { type Digest, digestOfHex, hexOf } from './digest.ts';

/** Bytes of a digest. */
const WIDTH = 32;
/** Digests for which there is room at first. */
const ROOM = 64;

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

/**
 * Many digests, each once, numbered from 0 in the order in which they came. A digest takes 32 bytes and a place in a table
 * instead of a text and an object each.
 */
export class DigestTable {
  #bytes: Buffer;
  /** Number plus one of the digest at each place; 0 where none is. At most half of it is taken. */
  #places: Int32Array;
  #size = 0;
  readonly #key = Buffer.allocUnsafeSlow(WIDTH);
  readonly #numbers = randomNumbers();

  /** @param room for how many there shall be room at first */
  constructor(room = ROOM) {
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(1, room) * WIDTH);
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
    this.#key.copy(this.#bytes, this.#size * WIDTH);
    this.#places[place] = ++this.#size;
    return this.#size - 1;
  }

  /** The number of a digest; -1 where it is not there. */
  indexOf(digest: Digest): number {
    return (this.#places[this.#find(digest)] ?? 0) - 1;
  }

  /** The digest of a number below `size`. */
  at(index: number): Digest {
    return digestOfHex(this.#bytes.toString('hex', index * WIDTH, (index + 1) * WIDTH));
  }

  /** Compares the digests of two numbers as their texts compare. */
  compare(a: number, b: number): number {
    const bytes = this.#bytes;
    return bytes.compare(bytes, b * WIDTH, (b + 1) * WIDTH, a * WIDTH, (a + 1) * WIDTH);
  }

  /** The place of a digest, or the empty one where it belongs; leaves its bytes in the key. */
  #find(digest: Digest): number {
    const key = this.#key;
    key.write(hexOf(digest), 'hex');
    for (let place = this.#hash(key, 0); ; place = (place + 1) % this.#places.length) {
      const index = (this.#places[place] ?? 0) - 1;
      if (index < 0) return place;
      if (key.compare(this.#bytes, index * WIDTH, (index + 1) * WIDTH) === 0) return place;
    }
  }

  #hash(bytes: Buffer, at: number): number {
    let hash = 0;
    for (let i = 0; i < WIDTH; i += 1) hash ^= this.#numbers[256 * i + (bytes[at + i] ?? 0)] ?? 0;
    return (hash >>> 0) % this.#places.length;
  }

  #grow(): void {
    const bytes = Buffer.allocUnsafeSlow(2 * this.#bytes.length);
    this.#bytes.copy(bytes);
    this.#bytes = bytes;
    this.#places = new Int32Array(2 * this.#places.length);
    for (let index = 0; index < this.#size; index += 1) {
      let place = this.#hash(bytes, index * WIDTH);
      while (this.#places[place] !== 0) place = (place + 1) % this.#places.length;
      this.#places[place] = index + 1;
    }
  }
}
