import { open, readFile } from 'node:fs/promises';
import type { Digest } from '../core/digest.ts';
import { isDigest } from '../core/digest.ts';
import { errnoOf } from '../io/files.ts';

/**
 * What an interrupted pack knows about the file beside it: JSON lines, first the plan, then what was received. Nothing in
 * it is believed: complete blobs are read again and compared with the BLAKE3 that was computed when their SHA-256 was
 * right, beginnings are hashed again before they are continued. So a line may be lost or come from before a power cut.
 */
export interface JournalState {
  readonly plan: string;
  readonly kind: 'tar' | 'folder';
  /** Complete blobs: offset of the content, size, BLAKE3. */
  readonly done: ReadonlyMap<Digest, { readonly offset: number; readonly size: number; readonly b3: string }>;
  /** Beginnings: how many bytes from the offset on were written. */
  readonly parts: ReadonlyMap<Digest, { readonly offset: number; readonly bytes: number }>;
}

/** Appends to a journal. Lines reach the system at once, so that a killed process loses none. */
export interface Journal {
  done(
    digest: Digest,
    at: { readonly offset: number; readonly size: number; readonly b3: string },
  ): Promise<void>;
  part(digest: Digest, at: { readonly offset: number; readonly bytes: number }): Promise<void>;
  close(): Promise<void>;
}

/** Opens the journal of a new or a resumed pack; `fresh` starts it anew. */
export async function openJournal(
  path: string,
  head: { readonly plan: string; readonly kind: 'tar' | 'folder'; readonly fresh: boolean },
): Promise<Journal> {
  const handle = await open(path, head.fresh ? 'w' : 'a');
  const write = async (line: object): Promise<void> => {
    await handle.write(`${JSON.stringify(line)}\n`);
  };
  if (head.fresh) await write({ plan: head.plan, kind: head.kind });
  else await handle.write('\n'); // ends a line that a kill may have torn
  return {
    done: (digest, { offset, size, b3 }) => write({ d: digest, o: offset, s: size, b3 }),
    part: (digest, { offset, bytes }) => write({ d: digest, o: offset, p: bytes }),
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
    throw error;
  }
  const lines = text.split('\n');
  const head = parseLine(lines[0] ?? '');
  if (typeof head.plan !== 'string' || (head.kind !== 'tar' && head.kind !== 'folder')) return undefined;
  const done = new Map<Digest, { offset: number; size: number; b3: string }>();
  const parts = new Map<Digest, { offset: number; bytes: number }>();
  for (const line of lines.slice(1)) {
    const { d, o, s, p, b3 } = parseLine(line);
    if (typeof d !== 'string' || !isDigest(d) || !isCount(o)) continue;
    if (isCount(s) && typeof b3 === 'string') done.set(d, { offset: o, size: s, b3 });
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
