/** Numbers of one block. */
const BLOCK = 4096;

/** What numbers are kept as: whole ones below 2^31, or any. */
export type NumberKind = 'int32' | 'float64';

/**
 * Very many numbers, outside the heap. They lie in blocks, so that a list that grows is never copied: what is copied lies
 * about until the collector comes. A number that was never set is 0.
 */
export class NumberList {
  readonly #kind: NumberKind;
  readonly #blocks: (Int32Array | Float64Array)[] = [];
  #length = 0;

  constructor(kind: NumberKind) {
    this.#kind = kind;
  }

  get length(): number {
    return this.#length;
  }

  /** Returns its index. */
  push(number: number): number {
    this.set(this.#length, number);
    return this.#length - 1;
  }

  set(index: number, number: number): void {
    const at = Math.floor(index / BLOCK);
    while (this.#blocks.length <= at) {
      this.#blocks.push(this.#kind === 'int32' ? new Int32Array(BLOCK) : new Float64Array(BLOCK));
    }
    const block = this.#blocks[at];
    if (block !== undefined) block[index % BLOCK] = number;
    if (index >= this.#length) this.#length = index + 1;
  }

  /** 0 for an index that was never set. */
  at(index: number): number {
    return this.#blocks[Math.floor(index / BLOCK)]?.[index % BLOCK] ?? 0;
  }
}
