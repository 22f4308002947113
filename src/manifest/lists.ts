import { realpath } from 'node:fs/promises';
import { dirname, join, posix, relative, sep } from 'node:path';
import { type Fault, fault, faultOf, type Position, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { parseReference, type Reference } from '../core/reference.ts';
import { readFileLimited } from '../io/files.ts';

/** One reference of an image list. */
export interface ListedImage {
  readonly text: string;
  readonly ref: Reference;
  /** The list's path relative to the manifest's folder, with `/`. */
  readonly origin: string;
  readonly position: Position;
}

/** A pattern of `imageLists` and where it is written. */
export interface ListPattern {
  readonly pattern: string;
  readonly position: Position;
}

interface Found {
  readonly images: readonly ListedImage[];
  readonly faults: readonly Fault[];
}

/** Compares by code units: the order of lists must not depend on the language of the machine. */
function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * Reads the text of an image list: one reference a line, `#` comments on their own line or after white space, blank
 * lines, CRLF and a byte order mark are fine. Every line that is not a reference is a fault.
 */
export function parseImageList(
  text: string,
  options: { readonly file: string; readonly origin: string },
): Found {
  const images: ListedImage[] = [];
  const faults: Fault[] = [];
  const lines = (text.startsWith('\uFEFF') ? text.slice(1) : text).split(/\r\n|\n|\r/);
  for (const [i, line] of lines.entries()) {
    const content = line.replace(/(?:^|\s)#.*$/, '').trimEnd();
    const written = content.trimStart();
    if (written === '') continue;
    const position = { file: options.file, line: i + 1, column: content.length - written.length + 1 };
    try {
      if (/\s/.test(written)) {
        throw new SealiftError(
          'REFERENCE_INVALID',
          `${JSON.stringify(written.slice(0, 200))} is more than one word`,
          { hint: 'write one reference a line; put a comment after #' },
        );
      }
      images.push({ text: written, ref: parseReference(written), origin: options.origin, position });
    } catch (error) {
      const { message, hint } = faultOf(error);
      faults.push(fault('MANIFEST_INVALID', message, { position, ...(hint === undefined ? {} : { hint }) }));
    }
  }
  return { images, faults };
}

function decode(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

async function readList(folder: string, origin: string, pattern: ListPattern): Promise<Found> {
  const file = join(folder, origin);
  const refuse = (message: string, hint?: string): Found => ({
    images: [],
    faults: [
      fault('MANIFEST_INVALID', message, {
        position: pattern.position,
        ...(hint === undefined ? {} : { hint }),
      }),
    ],
  });
  try {
    if (!pattern.pattern.split('/').includes('..')) {
      const inside = relative(await realpath(folder), await realpath(file));
      if (inside === '..' || inside.startsWith(`..${sep}`)) {
        return refuse(
          `image list ${origin} is a link to a file outside the manifest's folder`,
          'put the list itself there, or name its folder with ".." in the pattern',
        );
      }
    }
    const bytes = await readFileLimited(file, { limit: LIMITS.manifestText, missing: 'FILE_NOT_FOUND' });
    const text = decode(bytes);
    if (text === undefined) return refuse(`image list ${origin} is not UTF-8 text`);
    return parseImageList(text, { file, origin });
  } catch (error) {
    return refuse(`image list ${origin}: ${faultOf(error).message}`);
  }
}

/**
 * Reads all image lists that the patterns name, each file once, sorted within a pattern. A pattern that matches
 * nothing is a fault. A link that leads out of the folder is a fault too; only a pattern with `..` reads there.
 */
export async function readImageLists(manifest: string, patterns: readonly ListPattern[]): Promise<Found> {
  const folder = dirname(manifest);
  const images: ListedImage[] = [];
  const faults: Fault[] = [];
  const seen = new Set<string>();
  for (const pattern of patterns) {
    // Most manifests have no patterns: only those that have some load what reads them.
    const { glob } = await import('tinyglobby');
    const matches = await glob([posix.normalize(pattern.pattern)], {
      cwd: folder,
      expandDirectories: false,
      onlyFiles: true,
    });
    if (matches.length === 0) {
      faults.push(
        fault('MANIFEST_INVALID', `imageLists: no file matches ${JSON.stringify(pattern.pattern)}`, {
          position: pattern.position,
          hint: `patterns are relative to the manifest's folder; correct the pattern or remove it`,
        }),
      );
    }
    for (const origin of matches.sort(byText)) {
      if (seen.has(origin)) continue;
      seen.add(origin);
      if (seen.size > LIMITS.imageListFiles) {
        faults.push(
          fault('MANIFEST_INVALID', `imageLists: more than ${LIMITS.imageListFiles} files`, {
            position: pattern.position,
          }),
        );
        return { images, faults };
      }
      const found = await readList(folder, origin, pattern);
      // One by one: a call takes only so many arguments.
      for (const image of found.images) images.push(image);
      for (const one of found.faults) faults.push(one);
    }
  }
  return { images, faults };
}
