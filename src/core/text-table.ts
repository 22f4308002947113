/** Few texts that come very often, each once, numbered from 0 in the order in which they came. */
export class TextTable {
  readonly #texts: string[] = [];
  readonly #numbers = new Map<string, number>();

  /** The number of a text, which is put in where it is not there yet. */
  add(text: string): number {
    const known = this.#numbers.get(text);
    if (known !== undefined) return known;
    const number = this.#texts.push(text) - 1;
    this.#numbers.set(text, number);
    return number;
  }

  /** The text of a number; undefined where there is none. */
  at(number: number): string | undefined {
    return this.#texts[number];
  }
}
