import type { Running, Standing, Waiting } from './progress-tally.ts';
import { bytesText, durationText, harmless, pad, shorten, widthOf } from './words.ts';

/** Lines for running blobs below the overall line, and for hosts that are waited for. */
const RUNNING_SHOWN = 6;
const WAITING_SHOWN = 2;
const BAR = 24;

/** `[=====>    ]` of `width` columns, brackets included. Only ASCII: what else draws bars is wide on Korean terminals. */
export function bar(part: number, width: number): string {
  const inner = Math.max(1, width - 2);
  const filled = Math.min(inner, Math.max(0, Math.floor(part * inner)));
  const head = filled > 0 && filled < inner ? '>' : '';
  const body = '='.repeat(filled - head.length) + head;
  return `[${body}${' '.repeat(inner - body.length)}]`;
}

function partOf(done: number, total: number): number {
  return total <= 0 ? 0 : Math.min(1, Math.max(0, done / total));
}

/** As many parts as fit, in the order of their worth. */
function fitted(parts: readonly string[], width: number): string {
  let line = '';
  for (const part of parts) {
    const next = line === '' ? part : `${line}  ${part}`;
    if (widthOf(next) > width) break;
    line = next;
  }
  return line === '' ? shorten(parts[0] ?? '', width) : line;
}

/** Bytes, percent, rate and time left in words. */
export function standingParts(s: Standing): string[] {
  if (s.totalBytes > 0) {
    const percent = Math.floor(partOf(s.doneBytes, s.totalBytes) * 100);
    return [
      `${percent}%`,
      `${bytesText(s.doneBytes)} of ${bytesText(s.totalBytes)}`,
      ...(s.rate === undefined ? [] : [`${bytesText(Math.round(s.rate))}/s`]),
      ...(s.leftMs === undefined ? [] : [`${durationText(Math.max(s.leftMs, 1000))} left`]),
    ];
  }
  if (s.totalItems > 0) return [`${s.endedItems} of ${s.totalItems}`];
  return s.detail === '' ? [] : [harmless(s.detail)];
}

function overallLine(s: Standing, options: { readonly width: number; readonly now: number }): string {
  const part = s.totalBytes > 0 ? partOf(s.doneBytes, s.totalBytes) : partOf(s.endedItems, s.totalItems);
  const known = s.totalBytes > 0 || s.totalItems > 0;
  const wide = options.width >= 50;
  const drawn = known && wide ? [bar(part, BAR)] : [];
  const elapsed = known ? [] : [durationText(options.now - s.since)];
  const phase = s.phase === '' ? 'working' : s.phase;
  return fitted([pad(harmless(phase), 9), ...drawn, ...standingParts(s), ...elapsed], options.width);
}

function runningLine(item: Running, width: number): string {
  const label = harmless(item.label);
  if (item.size <= 0) return `  ${shorten(label, width - 2)}`;
  const sizes = `${bytesText(Math.max(0, item.done))} of ${bytesText(item.size)}`;
  const barWidth = width >= 72 ? BAR : 0;
  const taken = 2 + (barWidth === 0 ? 0 : barWidth + 2) + 2 + 22;
  const room = width - taken;
  if (room < 8) return `  ${shorten(label, width - 2)}`;
  const drawn = barWidth === 0 ? '' : `  ${bar(partOf(item.done, item.size), barWidth)}`;
  return `  ${pad(shorten(label, room), room)}${drawn}  ${sizes}`.trimEnd();
}

/** The countdown of a host that asked everybody to wait. */
export function waitingText({ host, reason, leftMs }: Waiting): string {
  return `waiting ${durationText(leftMs)} for ${harmless(host)}: ${harmless(reason)}`;
}

/**
 * The lines of one redraw: the overall line, then one for each host that is waited for and each running blob, the oldest first. None is wider than
 * the terminal less one column, and there are never more than the terminal has rows.
 */
export function frameLines(
  s: Standing,
  options: { readonly columns: number; readonly rows: number; readonly now: number },
): string[] {
  const width = Math.max(10, options.columns - 1);
  const waiting = s.waiting.slice(0, Math.max(0, Math.min(WAITING_SHOWN, options.rows - 2)));
  const shown = Math.max(0, Math.min(RUNNING_SHOWN, options.rows - 3 - waiting.length));
  const more = s.running.length - shown;
  return [
    overallLine(s, { width, now: options.now }),
    ...waiting.map((w) => shorten(`  ${waitingText(w)}`, width)),
    ...s.running.slice(0, shown).map((item) => runningLine(item, width)),
    ...(more > 0 && options.rows > 10 ? [shorten(`  and ${more} more`, width)] : []),
  ];
}
