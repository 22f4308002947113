export interface Part {
  readonly name: string;
  readonly version: string;
  /** As in package-lock.json: `sha512-…`. */
  readonly integrity: string;
}

/** The files of a package by their path in it. Throws when it is not what `integrity` says. */
export function fetchPart(part: Part, root: string): Promise<ReadonlyMap<string, Buffer>>;
export function fileOf(files: ReadonlyMap<string, Buffer>, path: string): Buffer;
