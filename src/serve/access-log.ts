import { createWriteStream, type WriteStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { redact } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { diskError } from '../io/files.ts';

/** One request that was answered. It holds neither its query nor any of its credentials. */
export interface Access {
  /** Milliseconds since the epoch, when it came. */
  readonly time: number;
  readonly client: string;
  readonly method: string;
  /** As it was sent, without the query. */
  readonly path: string;
  /** 0: the client went away before there was one. */
  readonly status: number;
  /** Body bytes that were sent. */
  readonly bytes: number;
  readonly ms: number;
  readonly userAgent: string;
  /** What the answer was cut off for, when it was not the client who went away. */
  readonly error?: string;
}

const MOST = 2_000;

/** One line of printable ASCII, whatever the client sent: everything else is an escape of JSON. */
export function accessLine(access: Access): string {
  const { time, userAgent, error, ...rest } = access;
  const document = {
    time: new Date(time).toISOString(),
    ...rest,
    path: redact(rest.path).slice(0, MOST),
    userAgent: redact(userAgent).slice(0, MOST),
    ...(error === undefined ? {} : { error: error.slice(0, MOST) }),
  };
  const text = JSON.stringify(document);
  return text.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Where lines go. */
export interface LineFile {
  write(line: string): void;
  /** Lines that were left out because the disk was too slow, or did not take them. */
  readonly lost: number;
  close(): Promise<void>;
}

/** Where lines go: a file that is added to, or one that is open already and stays so, as standard error. */
export type LinePlace = string | { readonly fd: number };

async function openStream(place: LinePlace): Promise<WriteStream> {
  if (typeof place !== 'string') return createWriteStream('', { fd: place.fd, autoClose: false });
  const handle = await open(place, 'a', 0o640).catch((error: unknown) => {
    throw diskError(error, place);
  });
  return createWriteStream(place, { fd: handle });
}

/**
 * Opens a file to which lines are added; one that is cut short by others (logrotate, copytruncate) goes on from its start.
 * Nobody waits for it: a disk that is slow, or a terminal that somebody paused, costs lines.
 * @param options.onFailure is told once when the file takes no more lines
 * @throws FILE_UNREADABLE, DISK_FULL
 */
export async function openLineFile(
  place: LinePlace,
  options: { readonly onFailure: (error: unknown) => void },
): Promise<LineFile> {
  const stream = await openStream(place);
  const what = typeof place === 'string' ? place : 'the access log';
  let lost = 0;
  stream.on('error', (error) => options.onFailure(diskError(error, what)));
  return {
    get lost() {
      return lost;
    },
    write(line) {
      if (stream.destroyed || stream.writableLength > LIMITS.logWaiting) lost += 1;
      else stream.write(`${line}\n`);
    },
    close: () =>
      new Promise((resolve) => {
        if (stream.destroyed) resolve();
        else stream.end(() => resolve());
        stream.once('error', () => resolve());
      }),
  };
}
