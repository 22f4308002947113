import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createPaint } from '../../src/cli/paint.ts';
import { chooseMode, createProgress, type Progress, type ProgressMode } from '../../src/cli/progress.ts';
import { bar, frameLines } from '../../src/cli/progress-frame.ts';
import { createTally, type Standing } from '../../src/cli/progress-tally.ts';
import { widthOf } from '../../src/cli/words.ts';
import { fault } from '../../src/core/errors.ts';
import type { Event } from '../../src/core/events.ts';

const paint = createPaint({ isTerminal: false, env: {}, wanted: true });
const MB = 1_000_000;

/** A stream of a known size that keeps what is written, each write by itself. */
function screen(size: { columns?: number; rows?: number } = {}): {
  stream: PassThrough & { columns?: number; rows?: number };
  writes: string[];
  text: () => string;
} {
  const stream = Object.assign(new PassThrough(), size);
  const writes: string[] = [];
  stream.on('data', (chunk: Buffer) => writes.push(chunk.toString('utf8')));
  return { stream, writes, text: () => writes.join('') };
}

async function open(
  mode: Exclude<ProgressMode, 'auto'>,
  size: { columns?: number; rows?: number } = {},
): Promise<Progress & ReturnType<typeof screen>> {
  const to = screen(size);
  const progress = await createProgress(mode, { stream: to.stream, paint, now: Date.now });
  return { ...progress, ...to };
}

const PACK: readonly Event[] = [
  { type: 'phase', name: 'blobs' },
  { type: 'total', bytes: 200 * MB, items: 2 },
  { type: 'start', id: 'a', label: 'nginx 4f4fb700ef54', size: 150 * MB },
  { type: 'start', id: 'b', label: 'small', size: 50_000 },
];

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
});
afterEach(() => {
  vi.useRealTimers();
});

describe('the way progress is shown', () => {
  it('is bars on a terminal, plain lines in CI, without a terminal and on a dumb one', () => {
    expect(chooseMode('auto', { isTerminal: true, env: {} })).toBe('bar');
    expect(chooseMode('auto', { isTerminal: true, env: { CI: 'true' } })).toBe('plain');
    expect(chooseMode('auto', { isTerminal: true, env: { CI: 'false' } })).toBe('bar');
    expect(chooseMode('auto', { isTerminal: true, env: { TERM: 'dumb' } })).toBe('plain');
    expect(chooseMode('auto', { isTerminal: false, env: {} })).toBe('plain');
    expect(chooseMode('json', { isTerminal: true, env: {} })).toBe('json');
  });

  it('has colours on a terminal only, and not with NO_COLOR or --no-color', () => {
    const red = (env: Record<string, string>, wanted: boolean, isTerminal = true): boolean =>
      createPaint({ isTerminal, env, wanted }).error('x') !== 'x';
    expect(red({}, true)).toBe(true);
    expect([
      red({ NO_COLOR: '1' }, true),
      red({}, false),
      red({}, true, false),
      red({ TERM: 'dumb' }, true),
    ]).toEqual([false, false, false, false]);
    expect(red({ NO_COLOR: '' }, true)).toBe(true);
  });
});

describe('plain progress', () => {
  it('tells phases, big blobs, retries, notes and warnings, and a status line every ten seconds', async () => {
    const p = await open('plain');
    for (const event of PACK) p.emit(event);
    p.emit({ type: 'progress', id: 'a', bytes: 50 * MB });
    await vi.advanceTimersByTimeAsync(10_000);
    p.emit({ type: 'end', id: 'b', outcome: 'done' });
    p.emit({ type: 'end', id: 'a', outcome: 'done' });
    p.emit({ type: 'retry', what: 'GET x', reason: 'broke', waitMs: 2000 });
    p.emit({ type: 'note', message: 'a mirror' });
    const warning = fault('IMAGE_TAG_FLOATING', 'nginx has no tag', { hint: 'write one' });
    p.emit({ type: 'warning', fault: warning });
    p.emit({ type: 'warning', fault: { ...warning, message: 'redis has no tag' } });
    p.stop();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(p.text().split('\n')).toEqual([
      'blobs',
      'blobs: 25%, 50.0 MB of 200 MB, 5.00 MB/s, 30 s left, 2 running',
      '  done nginx 4f4fb700ef54, 150 MB',
      'retry: GET x: broke; again in 2 s',
      'note: a mirror',
      'warning[IMAGE_TAG_FLOATING]: nginx has no tag',
      'hint: write one',
      'warning[IMAGE_TAG_FLOATING]: redis has no tag',
      '',
    ]);
  });

  it('tells a long wait once with its end, and counts down every minute', async () => {
    const p = await open('plain');
    for (const event of PACK) p.emit(event);
    p.emit({ type: 'pause', host: 'registry.example', reason: 'HTTP 429', until: Date.now() + 150_000 });
    await vi.advanceTimersByTimeAsync(140_000);
    p.stop();
    const status = (left: string) =>
      `blobs: 0%, 0 bytes of 200 MB, 0 bytes/s, 2 running, waiting ${left} for registry.example: HTTP 429`;
    expect(p.text().split('\n')).toEqual([
      'blobs',
      'waiting 2 min 30 s for registry.example: HTTP 429; asked again at 1970-01-01T00:19:10Z',
      status('1 min 30 s'),
      status('30 s'),
      '',
    ]);
  });

  it('says only warnings with none, and nothing hostile ever', async () => {
    const p = await open('none');
    for (const event of PACK) p.emit(event);
    p.emit({ type: 'note', message: 'unseen' });
    p.emit({ type: 'warning', fault: fault('CHART_INVALID', 'bad \u001b[2J\nname') });
    await vi.advanceTimersByTimeAsync(60_000);
    p.stop();
    expect(p.text()).toBe('warning[CHART_INVALID]: bad \\x1b[2J\\nname\n');
  });
});

describe('progress as JSON', () => {
  it('is one event a line, with the bytes of a blob gathered but none lost', async () => {
    const p = await open('json');
    for (const event of PACK) p.emit(event);
    for (let i = 0; i < 1000; i++) {
      p.emit({ type: 'progress', id: 'a', bytes: 150_000 });
      await vi.advanceTimersByTimeAsync(1);
    }
    p.emit({ type: 'end', id: 'a', outcome: 'done' });
    p.emit({ type: 'progress', id: 'b', bytes: 7 });
    p.stop();
    const events: Event[] = p
      .text()
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(events.slice(0, 4)).toEqual(PACK);
    const bytes = (id: string): number =>
      events.reduce((sum, e) => sum + (e.type === 'progress' && e.id === id ? e.bytes : 0), 0);
    expect(bytes('a')).toBe(150 * MB);
    expect(bytes('b')).toBe(7);
    expect(events.length).toBeLessThan(15);
  });
});

describe('bars', () => {
  it('redraw at most ten times a second however many events come, and end with a clear screen', async () => {
    const p = await open('bar', { columns: 100, rows: 24 });
    for (const event of PACK) p.emit(event);
    for (let i = 0; i < 5000; i++) {
      p.emit({ type: 'progress', id: 'a', bytes: 10_000 });
      if (i % 5 === 0) await vi.advanceTimersByTimeAsync(1);
    }
    const draws = p.writes.filter((w) => w.includes('%'));
    expect(draws.length).toBeGreaterThan(5);
    expect(draws.length).toBeLessThanOrEqual(10);
    expect(p.text()).toContain('nginx 4f4fb700ef54');
    p.stop();
    const before = p.writes.length;
    await vi.advanceTimersByTimeAsync(5000);
    expect(p.writes.length).toBe(before);
    expect(p.writes.at(-1)).toContain('\u001b[2K');
  });

  it('make room for retries and warnings', async () => {
    const p = await open('bar', { columns: 60, rows: 24 });
    for (const event of PACK) p.emit(event);
    await vi.advanceTimersByTimeAsync(200);
    p.emit({ type: 'retry', what: 'GET x', reason: 'broke', waitMs: 2000 });
    expect(p.text()).toContain('retry: GET x: broke; again in 2 s\n');
    p.stop();
  });

  it('have no timer left when they stopped', async () => {
    const p = await open('bar');
    const plain = await open('plain');
    expect(vi.getTimerCount()).toBe(2);
    p.stop();
    plain.stop();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('one redraw', () => {
  const names = fc.string({ unit: fc.constantFrom('a', '/', '가', '나', '9', '\u001b', '-'), maxLength: 80 });
  const standing: fc.Arbitrary<Standing> = fc.record({
    phase: fc.constantFrom('', 'blobs', 'manifests'),
    detail: names,
    since: fc.constant(0),
    totalBytes: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2 ** 50 })),
    totalItems: fc.nat(1000),
    doneBytes: fc.integer({ min: 0, max: 2 ** 50 }),
    endedItems: fc.nat(1000),
    rate: fc.option(fc.double({ min: 0, max: 1e12, noNaN: true }), { nil: undefined }),
    leftMs: fc.option(fc.nat(1e9), { nil: undefined }),
    running: fc.array(
      fc.record({ label: names, size: fc.nat(2 ** 40), done: fc.integer({ min: -5, max: 2 ** 40 }) }),
      { maxLength: 12 },
    ),
    waiting: fc.array(fc.record({ host: names, reason: names, leftMs: fc.nat(1e9) }), { maxLength: 3 }),
  });

  it('is never wider or higher than the terminal, with Korean names and any numbers', () => {
    fc.assert(
      fc.property(
        standing,
        fc.integer({ min: 12, max: 220 }),
        fc.integer({ min: 2, max: 60 }),
        (s, columns, rows) => {
          const lines = frameLines(s, { columns, rows, now: 5000 });
          for (const line of lines) {
            expect(widthOf(line)).toBeLessThan(columns);
            expect(line).not.toContain('\u001b');
          }
          expect(lines.length).toBeLessThanOrEqual(Math.min(10, rows));
        },
      ),
    );
  });

  it('shows bytes, percent, rate, time left and a bar for each running blob', () => {
    const tally = createTally(Date.now);
    for (const event of PACK) tally.apply(event);
    vi.advanceTimersByTime(2000);
    tally.apply({ type: 'progress', id: 'a', bytes: 75 * MB });
    expect(frameLines(tally.standing(), { columns: 100, rows: 24, now: Date.now() })).toEqual([
      'blobs      [=======>              ]  37%  75.0 MB of 200 MB  37.5 MB/s  3 s left',
      `  nginx 4f4fb700ef54${' '.repeat(31)}[==========>           ]  75.0 MB of 150 MB`,
      `  small${' '.repeat(44)}[                      ]  0 bytes of 50.0 kB`,
    ]);
  });

  it('counts down while a host is waited for, and no longer', () => {
    const tally = createTally(Date.now);
    for (const event of PACK) tally.apply(event);
    const until = Date.now() + 900_000;
    tally.apply({ type: 'pause', host: 'registry.example', reason: 'HTTP 429', until });
    const second = () => frameLines(tally.standing(), { columns: 80, rows: 24, now: Date.now() })[1];
    expect(second()).toBe('  waiting 15 min 0 s for registry.example: HTTP 429');
    vi.advanceTimersByTime(61_000);
    expect(second()).toBe('  waiting 13 min 59 s for registry.example: HTTP 429');
    vi.advanceTimersByTime(839_000);
    expect(second()).toContain('nginx 4f4fb700ef54');
  });

  it('draws a bar from empty to full', () => {
    expect([0, 0.5, 1].map((part) => bar(part, 12))).toEqual([
      '[          ]',
      '[====>     ]',
      '[==========]',
    ]);
  });
});

describe('the tally', () => {
  it('takes back what a broken transfer had counted, and credits what was never told', () => {
    const tally = createTally(Date.now);
    for (const event of PACK) tally.apply(event);
    tally.apply({ type: 'progress', id: 'a', bytes: 30 * MB });
    tally.apply({ type: 'progress', id: 'a', bytes: -30 * MB });
    expect(tally.standing().doneBytes).toBe(0);
    tally.apply({ type: 'end', id: 'b', outcome: 'present' });
    expect(tally.standing()).toMatchObject({ doneBytes: 50_000, endedItems: 1 });
    tally.apply({ type: 'progress', id: 'a', bytes: 10 * MB });
    tally.apply({ type: 'end', id: 'a', outcome: 'failed' });
    expect(tally.standing()).toMatchObject({ doneBytes: 50_000, endedItems: 1, running: [] });
    tally.apply({ type: 'progress', id: 'unknown', bytes: 5 });
    expect(tally.standing().doneBytes).toBe(50_000);
  });

  it('measures the rate over the last seconds, not over the whole run', () => {
    const tally = createTally(Date.now);
    tally.apply({ type: 'total', bytes: 1000 * MB, items: 1 });
    tally.apply({ type: 'start', id: 'a', label: 'a', size: 1000 * MB });
    const pass = (seconds: number, rate: number): void => {
      for (let i = 0; i < seconds * 10; i++) {
        vi.advanceTimersByTime(100);
        tally.apply({ type: 'progress', id: 'a', bytes: rate / 10 });
      }
    };
    pass(20, 10 * MB);
    expect(tally.standing().rate).toBeCloseTo(10 * MB, -6);
    pass(10, 1 * MB);
    expect(tally.standing().rate).toBeCloseTo(1 * MB, -5);
    vi.advanceTimersByTime(60_000);
    expect(tally.standing().rate).toBeLessThan(0.2 * MB);
  });
});
