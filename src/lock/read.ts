import { isUtf8 } from 'node:buffer';
import type { z } from 'zod';
import { errorOf, type Fault, fault, type Position, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { PackedList } from '../core/packed-list.ts';
import {
  chartName,
  type ImageLock,
  imageSchema,
  LOCK_VERSION,
  type Lock,
  lockSchema,
  type PythonLock,
} from './schema.ts';
import { type Lines, linesOf, type Marks, RESTORE_HINT, readPlain } from './text.ts';
import { compareBytes, imageLines, LOCK_HEADER, lockLines, pinKey, referrerKey } from './write.ts';

type Path = readonly PropertyKey[];

interface Source {
  readonly path: string;
  /** Without LF; the first is the header. */
  readonly lines: Lines;
}

function refuse(
  message: string,
  at: { readonly path: string; readonly line: number; readonly hint?: string },
): SealiftError {
  const position = { file: at.path, line: at.line, column: 1 };
  const hint = at.hint ?? RESTORE_HINT;
  return new SealiftError('LOCK_INVALID', `${at.path}:${at.line}: ${message}`, {
    hint,
    faults: [fault('LOCK_INVALID', message, { position, hint })],
  });
}

/** Checks what comes before the content: encoding, header, version. */
function readLines(bytes: Uint8Array, path: string): Lines {
  if (bytes.length > LIMITS.lockText) {
    throw refuse(`${bytes.length} bytes, the limit is ${LIMITS.lockText} bytes`, { path, line: 1 });
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw refuse('not UTF-8 text', { path, line: 1 });
  }
  const lines = linesOf(text);
  if (lines.at(0) === `${LOCK_HEADER}\r`) {
    throw refuse('the lines end with CR LF, expected LF', {
      path,
      line: 1,
      hint: 'put `versions.lock text eol=lf` into .gitattributes and check the file out again',
    });
  }
  if (lines.at(0) !== LOCK_HEADER) {
    throw refuse('not a lock that sealift wrote: its first line is another', { path, line: 1 });
  }
  const version = /^lockVersion: ([0-9]{1,9})$/.exec(lines.at(1) ?? '')?.[1];
  if (version !== undefined && Number(version) > LOCK_VERSION) {
    throw refuse(`lockVersion ${version}, this sealift reads up to ${LOCK_VERSION}`, {
      path,
      line: 2,
      hint: 'use the version of sealift that wrote the lock, or a newer one',
    });
  }
  const length = lines.length - 1;
  if (lines.at(length) !== '') throw refuse('the last line is not complete', { path, line: lines.length });
  return { length, at: (index) => (index < length ? lines.at(index) : undefined) };
}

function pathText(path: Path): string {
  return path
    .map((p, i) => (typeof p === 'number' ? `[${p}]` : `${i === 0 ? '' : '.'}${String(p)}`))
    .join('');
}

/** Finds places by reading the text once more: only done when there is something to report. */
function placesOf({ path: file, lines }: Source): (path: Path) => Position {
  const marks: Marks = new Map();
  readPlain(lines, { file, firstLine: 1, marks });
  return (path) => {
    for (let n = path.length; n > 0; n -= 1) {
      const found = marks.get(JSON.stringify(path.slice(0, n)));
      if (found !== undefined) return { file, ...found };
    }
    return { file, line: 1, column: 1 };
  };
}

function valueAt(root: unknown, path: Path): unknown {
  let value = root;
  for (const part of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = Object.hasOwn(value, part) ? Reflect.get(value, part) : undefined;
  }
  return value;
}

function shapeFaults(issues: readonly z.core.$ZodIssue[], root: unknown, source: Source): Fault[] {
  const placeOf = placesOf(source);
  const make = (path: Path, message: string): Fault =>
    fault('LOCK_INVALID', message, { position: placeOf(path), hint: RESTORE_HINT });
  return issues.flatMap((issue) => {
    const where = issue.path.length === 0 ? '' : `${pathText(issue.path)}: `;
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) =>
        make([...issue.path, key], `${where}unknown key ${JSON.stringify(key.slice(0, 80))}`),
      );
    }
    if (issue.code === 'invalid_key') {
      return issue.issues.map((inner) => make(issue.path, `${where}${inner.message}`));
    }
    const found = valueAt(root, issue.path);
    const shown = typeof found === 'string' ? ` (found ${JSON.stringify(found.slice(0, 100))})` : '';
    return [make(issue.path, `${where}${issue.message}${shown}`)];
  });
}

interface Repeated {
  readonly path: Path;
  readonly message: string;
}

function repeats(names: readonly string[], section: string, key: string): Repeated[] {
  const seen = new Set<string>();
  return names.flatMap((name, i) => {
    if (!seen.has(name)) {
      seen.add(name);
      return [];
    }
    return [{ path: [section, i, key], message: `${section}[${i}]: ${name} is there twice` }];
  });
}

/** What is there twice in a list of the Python packages. */
function repeatedIn(
  list: keyof PythonLock,
  items: { readonly keys: readonly string[]; readonly key?: string },
): Repeated[] {
  const seen = new Set<string>();
  return items.keys.flatMap((key, i) => {
    const isNew = !seen.has(key);
    seen.add(key);
    const path = ['python', list, i, ...(items.key === undefined ? [] : [items.key])];
    return isNew ? [] : [{ path, message: `python.${list}[${i}]: ${key.trim()} is there twice` }];
  });
}

/** Packages that are there twice, and files of what is not pinned. */
function pythonFaults({ pins, files, ...asked }: PythonLock): Repeated[] {
  const pinned = new Set(pins.map(({ name, version }) => `${name} ${version}`));
  const stray = files.flatMap(({ name, version }, i) => {
    if (pinned.has(`${name} ${version}`)) return [];
    const message = `python.files[${i}]: ${name} ${version} is not among the pins`;
    return [{ path: ['python', 'files', i, 'name'], message }];
  });
  const paths = (list: PythonLock['requirements']): string[] => list.map(({ path }) => path);
  return [
    ...repeatedIn('requirements', { keys: paths(asked.requirements), key: 'path' }),
    ...repeatedIn('constraints', { keys: paths(asked.constraints), key: 'path' }),
    ...repeatedIn('indexes', { keys: asked.indexes }),
    ...repeatedIn('pins', { keys: pins.map(pinKey), key: 'name' }),
    ...repeatedIn('files', { keys: files.map(({ file }) => file), key: 'file' }),
    ...stray,
  ];
}

/** Files of which one would have to be a folder for the other. */
function nested(names: readonly string[]): Repeated[] {
  const all = new Set(names);
  return names.flatMap((name, i) => {
    const parts = name.split('/');
    const parent = parts.map((_, n) => parts.slice(0, n).join('/')).find((p) => p !== '' && all.has(p));
    return parent === undefined
      ? []
      : [
          {
            path: ['files', i, 'name'],
            message: `files[${i}]: ${name} lies below ${parent}, which is a file`,
          },
        ];
  });
}

/** Referrers that are there twice, or that are about themselves. */
function referrerFaults(image: ImageLock, at: number): Repeated[] {
  const seen = new Set<string>();
  return (image.referrers ?? []).flatMap((referrer, i) => {
    const key = referrerKey(referrer);
    const why = seen.has(key) ? 'is there twice' : 'is about itself';
    const bad = seen.has(key) || referrer.digest === referrer.subject;
    seen.add(key);
    const path = ['images', at, 'referrers', i, 'digest'];
    return bad ? [{ path, message: `images[${at}].referrers[${i}]: ${referrer.digest} ${why}` }] : [];
  });
}

function entryFaults(lock: Lock, source: Source): Fault[] {
  const files = lock.files.map((f) => f.name);
  const found = [
    ...repeats(
      Array.from(lock.images, (i) => i.ref),
      'images',
      'ref',
    ),
    ...repeats(lock.charts.map(chartName), 'charts', 'name'),
    ...repeats(files, 'files', 'name'),
    ...nested(files),
    ...Array.from(lock.images, referrerFaults).flat(),
    ...(lock.python === undefined ? [] : pythonFaults(lock.python)),
  ];
  if (found.length === 0) return [];
  const placeOf = placesOf(source);
  return found.map(({ path, message }) =>
    fault('LOCK_INVALID', message, { position: placeOf(path), hint: RESTORE_HINT }),
  );
}

function checkCanonical(lock: Lock, { path, lines }: Source): void {
  let at = 0;
  let expected: string | undefined;
  for (expected of lockLines(lock)) {
    if (expected !== lines.at(at)) break;
    expected = undefined;
    at += 1;
  }
  if (expected === undefined && at === lines.length) return;
  const shown = (text: string | undefined): string =>
    text === undefined ? 'the end' : JSON.stringify(text.slice(0, 120));
  throw refuse(
    `not canonical, as if edited by hand: expected ${shown(expected)}, found ${shown(lines.at(at))}`,
    { path, line: at + 1 },
  );
}

/** Each image by itself: what a check makes of it is let go before the next. */
function imageIssues(images: readonly unknown[]): z.core.$ZodIssue[] {
  return images.flatMap((image, i) =>
    (imageSchema.safeParse(image).error?.issues ?? []).map((issue) => ({
      ...issue,
      path: ['images', i, ...issue.path],
    })),
  );
}

/** The whole lock, checked. */
function checkedLock(plain: unknown, source: Source): Lock {
  const head = lockSchema.safeParse(plain);
  const images = valueAt(plain, ['images']);
  const issues = [...(head.error?.issues ?? []), ...imageIssues(Array.isArray(images) ? images : [])];
  if (head.data !== undefined && issues.length === 0) {
    // Proved just now, one by one: nothing in the schema changes what it reads.
    return { ...head.data, images: head.data.images as ImageLock[] };
  }
  throw several(shapeFaults(issues, plain, source), source.path);
}

function several(faults: readonly Fault[], path: string): SealiftError {
  const lineOf = (f: Fault): number => f.position?.line ?? 0;
  const sorted = faults.toSorted((a, b) => lineOf(a) - lineOf(b));
  return errorOf(sorted, `${path} has ${faults.length} faults`);
}

/** All of it at once: for a lock without images, and to say what is wrong. */
function parseWhole(bytes: Uint8Array, path: string): Lock {
  const source: Source = { path, lines: readLines(bytes, path) };
  const plain = readPlain(source.lines, { file: path, firstLine: 1 });
  const lock = checkedLock(plain, source);
  const faults = entryFaults(lock, source);
  if (faults.length > 0) throw several(faults, path);
  checkCanonical(lock, source);
  return lock;
}

/**
 * Reads versions.lock. Strict: only exactly the bytes that `formatLock` writes for this content are accepted, so two
 * locks are equal when their bytes are. Nothing in it can name a place outside a folder that it is written to.
 * @param path the name of the file, for positions
 * @throws LOCK_INVALID, one error with every fault and its position: not text of a lock, a higher `lockVersion`,
 * unknown keys, wrong values, entries that are there twice, not canonical
 */
export function parseLock(bytes: Uint8Array, path: string): Lock {
  return readByImage(bytes, path) ?? parseWhole(bytes, path);
}

const BEFORE_IMAGES = '\nimages:';
const BEFORE_IMAGE = '\n  - ';
const AFTER_IMAGES = '\ncharts:';

/**
 * Reads a lock image by image, so that only one is an object at a time. What it accepts is what `parseWhole` accepts: the
 * lock without its images, then each image by itself, in their order.
 * @returns undefined for a lock in which anything is wrong
 */
function readByImage(bytes: Uint8Array, path: string): Lock | undefined {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const from = text.indexOf(BEFORE_IMAGES + BEFORE_IMAGE);
  const to = text.indexOf(AFTER_IMAGES, from);
  if (from < 0 || to < 0 || text.length > LIMITS.lockText || !isUtf8(text)) return undefined;
  const images = new PackedList<ImageLock>();
  let last = '';
  for (let at = from + BEFORE_IMAGES.length; at < to; ) {
    const next = text.indexOf(BEFORE_IMAGE, at + 1);
    const end = next < 0 ? to : Math.min(next, to);
    const image = readImage(text.toString('utf8', at + 1, end), path);
    if (image === undefined || (last !== '' && compareBytes(last, image.ref) >= 0)) return undefined;
    images.push(image);
    last = image.ref;
    at = end;
  }
  const rest = [text.subarray(0, from), `${BEFORE_IMAGES} []`, text.subarray(to)];
  const lock = orUndefined(() => parseWhole(Buffer.concat(rest.map((part) => Buffer.from(part))), path));
  return lock === undefined ? undefined : { ...lock, images };
}

/** One image from its lines; undefined where they are not exactly those of an image without fault. */
function readImage(text: string, path: string): ImageLock | undefined {
  const lines = ['images:', ...text.split('\n')];
  const plain = orUndefined(() => readPlain(lines, { file: path, firstLine: 0 }));
  const [found, ...others] = Array.isArray(plain?.images) ? plain.images : [];
  const { data } = imageSchema.safeParse(found);
  if (plain === undefined || data === undefined || others.length + Object.keys(plain).length > 1)
    return undefined;
  // Proved just now; nothing in the schema changes what it reads.
  const image = data as ImageLock;
  if (referrerFaults(image, 0).length > 0) return undefined;
  const written = [...imageLines([image])];
  return written.length === lines.length && written.every((line, i) => line === lines[i]) ? image : undefined;
}

function orUndefined<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof SealiftError) return undefined;
    throw error;
  }
}
