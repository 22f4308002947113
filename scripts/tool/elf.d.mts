/** What a program or library for Linux needs of the machine. */
export interface Elf {
  /** `x64`, `arm64`, or `machine N`. */
  readonly machine: string;
  /** Path of the dynamic loader; libraries have none. */
  readonly loader: string | undefined;
  /** Libraries. */
  readonly needed: readonly string[];
  /** Of each library, the versions of symbols that it must have: `GLIBC_2.28`. */
  readonly versions: Readonly<Record<string, readonly string[]>>;
}

export function readElf(bytes: Buffer): Elf;
export function highest(names: readonly string[], kind: string): number[] | undefined;
export function compareVersions(a: readonly number[], b: readonly number[]): number;
