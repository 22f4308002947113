import { writeSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import type { Digest } from '../core/digest.ts';
import { isDigest } from '../core/digest.ts';
import { diskError, errnoOf } from '../io/files.ts';
import { type Form, isForm } from './volumes.ts';

/**
 * What an interrupted pack knows about the file beside it: JSON lines, first the plan, then what was received. Nothing in
 * it is believed: complete blobs are read again and compared with their SHA-256, beginnings are hashed again before they
 * are continued. So a line may be lost, torn or come from before a power cut.
 */
export interface JournalState {
  readonly plan: string;
  readonly kind: Form;
  /** Complete blobs: offset of the content and size. */
  readonly done: ReadonlyMap<Digest, { readonly offset: number; readonly size: number }>;
  /** Blobs that were begun: how many bytes from the offset on were surely written. */
  readonly parts: ReadonlyMap<Digest, { readonly offset: number; readonly bytes: number }>;
}

/**
 * Appends to a journal. Lines reach the system at once, so that a killed process loses none: a write of so few bytes to the
 * page cache takes less time than a round trip to the thread pool.
 */
export interface Journal {
  done(digest: Digest, at: { readonly offset: number; readonly size: number }): void;
  part(digest: Digest, at: { readonly offset: number; readonly bytes: number }): void;
  close(): Promise<void>;
}

/**
 * Opens the journal of a new or a resumed pack; `fresh` starts it anew.
 * @throws DISK_FULL, FILE_UNREADABLE, now and from each line
 */
export async function openJournal(
  path: string,
  head: { readonly plan: string; readonly kind: Form; readonly fresh: boolean },
): Promise<Journal> {
  const orDiskError = (error: unknown): never => {
    throw diskError(error, path);
  };
  const handle = await open(path, head.fresh ? 'w' : 'a').catch(orDiskError);
  const write = (text: string): void => {
    const line = Buffer.from(`${text}\n`);
    try {
      for (let done = 0; done < line.length; ) done += writeSync(handle.fd, line, done);
    } catch (error) {
      throw diskError(error, path);
    }
  };
  try {
    // When it goes on, the empty line ends one that a kill may have torn.
    write(head.fresh ? JSON.stringify({ plan: head.plan, kind: head.kind }) : '');
  } catch (error) {
    await handle.close();
    throw error;
  }
  return {
    done: (digest, { offset, size }) => write(JSON.stringify({ d: digest, o: offset, s: size })),
    part: (digest, { offset, bytes }) => write(JSON.stringify({ d: digest, o: offset, p: bytes })),
    close: () => handle.close(),
  };
}

/** Reads a journal; undefined when there is none or its first line is not ours. Torn lines are skipped. */
export async function readJournal(path: string): Promise<JournalState | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw diskError(error, path);
  }
  const lines = text.split('\n');
  const head = parseLine(lines[0] ?? '');
  if (typeof head.plan !== 'string' || !isForm(head.kind)) return undefined;
  const done = new Map<Digest, { offset: number; size: number }>();
  const parts = new Map<Digest, { offset: number; bytes: number }>();
  for (const line of lines.slice(1)) {
    const { d, o, s, p } = parseLine(line);
    if (typeof d !== 'string' || !isDigest(d) || !isCount(o)) continue;
    if (isCount(s)) done.set(d, { offset: o, size: s });
    else if (isCount(p)) parts.set(d, { offset: o, bytes: p });
  }
  return { plan: head.plan, kind: head.kind, done, parts };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function parseLine(line: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}
