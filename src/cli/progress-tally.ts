import type { Event } from '../core/events.ts';

/** Rate is measured over this span. */
const RATE_MS = 5_000;
const SAMPLE_MS = 200;

/** A blob or artifact that is on its way. Bytes. */
export interface Running {
  readonly label: string;
  readonly size: number;
  done: number;
}

/** A host that everybody waits for. */
export interface Waiting {
  readonly host: string;
  readonly reason: string;
  /** Milliseconds until it is asked again. */
  readonly leftMs: number;
}

/** What is known of the work at one moment. */
export interface Standing {
  readonly phase: string;
  readonly detail: string;
  /** When the phase began, milliseconds. */
  readonly since: number;
  /** Bytes and items; 0 when not known. */
  readonly totalBytes: number;
  readonly totalItems: number;
  readonly doneBytes: number;
  readonly endedItems: number;
  /** Bytes per second over the last seconds; undefined while nothing can be said. */
  readonly rate: number | undefined;
  /** Milliseconds until the end at this rate. */
  readonly leftMs: number | undefined;
  /** Oldest first. */
  readonly running: readonly Running[];
  readonly waiting: readonly Waiting[];
}

/** Adds up events. */
export interface Tally {
  /** The item that an `end` ended, as it was. */
  apply(event: Event): Running | undefined;
  standing(): Standing;
}

interface Sample {
  readonly at: number;
  readonly bytes: number;
}

/** The speed of a growing number over the last seconds. */
interface Meter {
  reset(): void;
  /** @param bytes the number as it is now */
  note(bytes: number): void;
  /** Bytes per second; undefined in the first second. */
  rate(bytes: number): number | undefined;
}

function createMeter(now: () => number): Meter {
  let samples: Sample[] = [];
  return {
    reset() {
      samples = [{ at: now(), bytes: 0 }];
    },
    note(bytes) {
      const at = now();
      const last = samples.at(-1);
      if (last === undefined || at - last.at >= SAMPLE_MS) samples.push({ at, bytes });
      while (samples.length > 2 && at - (samples[1]?.at ?? at) > RATE_MS) samples.shift();
    },
    rate(bytes) {
      const first = samples[0];
      const at = now();
      if (first === undefined || at - first.at < 1_000) return undefined;
      return Math.max(0, ((bytes - first.bytes) * 1000) / (at - first.at));
    },
  };
}

/** Adds up what operations tell. @param now milliseconds */
export function createTally(now: () => number): Tally {
  const running = new Map<string, Running>();
  const pauses = new Map<string, { readonly reason: string; readonly until: number }>();
  const meter = createMeter(now);
  let phase = { phase: '', detail: '', since: now() };
  let total = { bytes: 0, items: 0 };
  let doneBytes = 0;
  let endedItems = 0;

  const add = (bytes: number): void => {
    doneBytes += bytes;
    meter.note(doneBytes);
  };
  const begin = (next: { readonly bytes: number; readonly items: number }): void => {
    total = next;
    doneBytes = 0;
    endedItems = 0;
    running.clear();
    meter.reset();
  };
  const end = (id: string, failed: boolean): Running | undefined => {
    const item = running.get(id);
    running.delete(id);
    if (item === undefined) return undefined;
    endedItems += failed ? 0 : 1;
    // What was there already, or came with an earlier run, was never told byte by byte.
    add(failed ? -item.done : item.size - item.done);
    return item;
  };
  const progress = (item: Running | undefined, bytes: number): void => {
    if (item === undefined) return;
    item.done += bytes;
    add(bytes);
  };

  return {
    apply(event) {
      const { type } = event;
      if (type === 'phase') phase = { phase: event.name, detail: event.detail ?? '', since: now() };
      else if (type === 'total') begin(event);
      else if (type === 'start') running.set(event.id, { label: event.label, size: event.size, done: 0 });
      else if (type === 'progress') progress(running.get(event.id), event.bytes);
      else if (type === 'pause') pauses.set(event.host, event);
      else if (type === 'end') return end(event.id, event.outcome === 'failed');
      return undefined;
    },
    standing: () => {
      const waiting = [...pauses].flatMap(([host, { reason, until }]) =>
        until > now() ? [{ host, reason, leftMs: until - now() }] : [],
      );
      return standingOf({ ...phase, total, doneBytes, endedItems, meter, running, waiting });
    },
  };
}

function standingOf(
  facts: Pick<Standing, 'phase' | 'detail' | 'since' | 'doneBytes' | 'endedItems' | 'waiting'> & {
    readonly total: { readonly bytes: number; readonly items: number };
    readonly meter: Meter;
    readonly running: ReadonlyMap<string, Running>;
  },
): Standing {
  const { total, doneBytes, meter, running, ...rest } = facts;
  const rate = meter.rate(doneBytes);
  const left = total.bytes - doneBytes;
  const known = total.bytes > 0 ? Math.min(doneBytes, total.bytes) : doneBytes;
  return {
    ...rest,
    totalBytes: total.bytes,
    totalItems: total.items,
    doneBytes: Math.max(0, known),
    rate,
    leftMs: rate !== undefined && rate > 0 && left > 0 ? (left * 1000) / rate : undefined,
    running: [...running.values()],
  };
}
