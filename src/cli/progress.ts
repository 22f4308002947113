import type { Emit, Event } from '../core/events.ts';
import type { Paint } from './paint.ts';
import { frameLines, standingParts, waitingText } from './progress-frame.ts';
import { createTally, type Running, type Standing } from './progress-tally.ts';
import { warningLines } from './render-error.ts';
import { bytesText, durationText, harmless, jsonText } from './words.ts';

/** How progress is shown; `auto` is bars on a terminal and plain lines elsewhere and in CI. */
export const PROGRESS_MODES = ['auto', 'bar', 'plain', 'json', 'none'] as const;
export type ProgressMode = (typeof PROGRESS_MODES)[number];

/** Milliseconds between two redraws, two status lines, and two told pieces of progress of one blob. */
const REDRAW_MS = 120;
const STATUS_MS = 10_000;
/** Milliseconds between two plain lines of a countdown that may last hours. */
const COUNTDOWN_MS = 60_000;
const JSON_MS = 200;
/** Bytes from which a finished blob is worth a plain line. */
const BIG = 50_000_000;

/** Everything that goes to stderr while a verb runs. */
export interface Progress {
  readonly emit: Emit;
  /** Says lines; bars make room for them. */
  say(lines: readonly string[]): void;
  /** Ends all drawing, clears the bars and shows the cursor again. Called once or more. */
  stop(): void;
}

/** A place to write: stderr, or what a test gives. A terminal tells its size. */
export type Sink = NodeJS.WritableStream & { readonly columns?: number; readonly rows?: number };

export interface ProgressOptions {
  readonly stream: Sink;
  readonly paint: Paint;
  readonly now: () => number;
}

/** What `auto` means here. */
export function chooseMode(
  mode: ProgressMode,
  about: { readonly isTerminal: boolean; readonly env: Readonly<Record<string, string | undefined>> },
): Exclude<ProgressMode, 'auto'> {
  if (mode !== 'auto') return mode;
  const { isTerminal, env } = about;
  const ci = env.CI !== undefined && env.CI !== '' && env.CI !== 'false' && env.CI !== '0';
  return isTerminal && !ci && env.TERM !== 'dumb' ? 'bar' : 'plain';
}

/** Shows progress in one of the modes. Only `bar` loads the drawing library. */
export async function createProgress(
  mode: Exclude<ProgressMode, 'auto'>,
  options: ProgressOptions,
): Promise<Progress> {
  if (mode === 'bar') return await createBars(options);
  if (mode === 'json') return createJson(options);
  return createPlain({ ...options, quiet: mode === 'none' });
}

function writeLines(stream: Sink, lines: readonly string[]): void {
  if (lines.length > 0) stream.write(`${lines.join('\n')}\n`);
}

/** Lines for events that are always told: retries, pauses, notes and warnings. */
function createTelling({ paint, now }: Pick<ProgressOptions, 'paint' | 'now'>): (event: Event) => string[] {
  const told = new Set<string>();
  return (event) => {
    if (event.type === 'pause') {
      const at = new Date(event.until).toISOString().replace(/\.\d+/, '');
      return [`${waitingText({ ...event, leftMs: event.until - now() })}; asked again at ${at}`];
    }
    if (event.type === 'warning') return warningLines(event.fault, { paint, told });
    if (event.type === 'note') return [`note: ${harmless(event.message)}`];
    if (event.type !== 'retry') return [];
    const { what, reason, waitMs } = event;
    return [`retry: ${harmless(what)}: ${harmless(reason)}; again in ${durationText(waitMs)}`];
  };
}

function endLine(event: Event, item: Running | undefined): string[] {
  if (event.type !== 'end' || item === undefined || item.size < BIG) return [];
  return [`  ${event.outcome} ${harmless(item.label)}, ${bytesText(item.size)}`];
}

function statusLine(s: Standing): string {
  const running = s.running.length === 0 ? '' : `, ${s.running.length} running`;
  const waiting = s.waiting.map((w) => `, ${waitingText(w)}`).join('');
  return `${harmless(s.phase)}: ${standingParts(s).join(', ')}${running}${waiting}`;
}

function createPlain(options: ProgressOptions & { readonly quiet: boolean }): Progress {
  const { stream, paint, now, quiet } = options;
  const tally = createTally(now);
  const telling = createTelling({ paint, now });
  let said = now();
  const status = (): void => {
    const s = tally.standing();
    if (s.waiting.length > 0 && now() - said < COUNTDOWN_MS) return;
    said = now();
    if (s.phase !== '' && standingParts(s).length > 0) writeLines(stream, [statusLine(s)]);
  };
  const timer = quiet ? undefined : setInterval(status, STATUS_MS);
  timer?.unref();
  return {
    emit(event) {
      if (quiet && event.type !== 'warning') return;
      const ended = tally.apply(event);
      if (event.type === 'phase') {
        const detail = event.detail === undefined ? '' : `: ${harmless(event.detail)}`;
        writeLines(stream, [`${harmless(event.name)}${detail}`]);
      }
      writeLines(stream, [...endLine(event, ended), ...telling(event)]);
    },
    say: (lines) => writeLines(stream, lines),
    stop: () => clearInterval(timer),
  };
}

/** One event per line. Bytes of one blob are gathered, or there would be a line for every chunk. */
function createJson({ stream, now }: ProgressOptions): Progress {
  const gathered = new Map<string, { bytes: number; told: number }>();
  const tell = (event: Event): void => writeLines(stream, [jsonText(event)]);
  const flush = (id: string): void => {
    const item = gathered.get(id);
    if (item === undefined || item.bytes === 0) return;
    tell({ type: 'progress', id, bytes: item.bytes });
    gathered.set(id, { bytes: 0, told: now() });
  };
  return {
    emit(event) {
      if (event.type === 'progress') {
        const item = gathered.get(event.id) ?? { bytes: 0, told: now() };
        item.bytes += event.bytes;
        gathered.set(event.id, item);
        if (now() - item.told >= JSON_MS) flush(event.id);
        return;
      }
      if (event.type === 'end') {
        flush(event.id);
        gathered.delete(event.id);
      }
      tell(event);
    },
    say(lines) {
      for (const message of lines) tell({ type: 'note', message });
    },
    stop() {
      for (const id of gathered.keys()) flush(id);
    },
  };
}

async function createBars({ stream, paint, now }: ProgressOptions): Promise<Progress> {
  const { createLogUpdate } = await import('log-update');
  const tally = createTally(now);
  const telling = createTelling({ paint, now });
  const draw = createLogUpdate(stream);
  let begun = false;
  let stopped = false;
  const redraw = (): void => {
    if (!begun || stopped) return;
    const size = { columns: stream.columns ?? 80, rows: stream.rows ?? 24, now: now() };
    draw(frameLines(tally.standing(), size).join('\n'));
  };
  const say = (lines: readonly string[]): void => {
    if (lines.length === 0) return;
    if (begun && !stopped) draw.clear();
    writeLines(stream, lines);
  };
  const timer = setInterval(redraw, REDRAW_MS);
  timer.unref();
  return {
    emit(event) {
      tally.apply(event);
      begun = true;
      const lines = telling(event);
      if (lines.length > 0) say(lines);
    },
    say,
    stop() {
      if (stopped) return;
      stopped = true;
      clearInterval(timer);
      if (!begun) return;
      draw.clear();
      draw.done();
    },
  };
}
