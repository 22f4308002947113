/** Things in their order, each perhaps made only when it is asked for. An array is one. */
export interface Sequence<T> extends Iterable<T> {
  readonly length: number;
  at(index: number): T | undefined;
}

/** Bytes of one block: many things are kept in each. */
const BLOCK = 64 * 1024;
/** Numbers of each thing: its block, where it begins there and where it ends. */
const NUMBERS = 3;

/**
 * Very many plain things, each kept as JSON text outside the heap and made anew whenever it is asked for: a thing takes the
 * bytes of its text, and no collector of garbage looks at it. Only for what JSON gives back as it was.
 */
export class PackedList<T> implements Sequence<T> {
  readonly #blocks: Buffer[] = [];
  readonly #numbers: number[] = [];
  /** Bytes of the last block that are taken. */
  #taken = 0;

  constructor(things: Iterable<T> = []) {
    for (const thing of things) this.push(thing);
  }

  get length(): number {
    return this.#numbers.length / NUMBERS;
  }

  push(thing: T): void {
    const text = JSON.stringify(thing);
    // No character of a text takes more than three bytes.
    let block = this.#blocks.at(-1);
    if (block === undefined || this.#taken + 3 * text.length > block.length) {
      block = Buffer.allocUnsafeSlow(Math.max(BLOCK, 3 * text.length));
      this.#blocks.push(block);
      this.#taken = 0;
    }
    const end = this.#taken + block.write(text, this.#taken);
    this.#numbers.push(this.#blocks.length - 1, this.#taken, end);
    this.#taken = end;
  }

  at(index: number): T | undefined {
    const [block = -1, start, end] = this.#numbers.slice(NUMBERS * index, NUMBERS * index + NUMBERS);
    const text = this.#blocks[block]?.toString('utf8', start, end);
    // What was put in.
    return text === undefined ? undefined : (JSON.parse(text) as T);
  }

  *[Symbol.iterator](): Generator<T> {
    for (let index = 0; index < this.length; index += 1) yield this.at(index) as T;
  }
}

/** What is made of each thing of a list, when it is asked for. */
export function mapSequence<T, U>(things: Sequence<T>, make: (thing: T) => U): Sequence<U> {
  return {
    length: things.length,
    at(index) {
      const thing = things.at(index);
      return thing === undefined ? undefined : make(thing);
    },
    *[Symbol.iterator]() {
      for (const thing of things) yield make(thing);
    },
  };
}
