/** What the benchmark reckons from its measurements: medians, ratios, targets, and tables as text. Nothing else is here. */

/** See figures.d.mts. */
export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  if (sorted.length === 0) return undefined;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** See figures.d.mts. */
export function ratio(ours, theirs) {
  const rounds = [];
  for (const [round, value] of ours) {
    const other = theirs.get(round);
    if (other !== undefined && other > 0) rounds.push(value / other);
  }
  return median(rounds);
}

/** See figures.d.mts. */
export const TARGETS = [
  { what: 'pack to one file', stage: 'pack', against: 'hauler', most: 0.45 },
  { what: 'pack to one file', stage: 'pack', against: 'curl ×4', most: 1.6 },
  { what: 'pack again, nothing to do', stage: 'again', most: 0.3 },
  { what: 'verify by BLAKE3', stage: 'verify', against: 'hauler', most: 0.6 },
  { what: 'verify by SHA-256', stage: 'deep', against: 'hauler', most: 1.1 },
  { what: 'load into an empty registry', stage: 'load', against: 'hauler', most: 0.35 },
  { what: 'load into an empty registry', stage: 'load', against: 'curl ×4', most: 1.1 },
  { what: 'load again, nothing to do', stage: 'loadAgain', most: 0.4 },
  { what: 'containerd, everything', stage: 'containerd', against: 'ctr', most: 0.5 },
  { what: 'containerd, nothing to do', stage: 'containerdAgain', against: 'ctr', most: 0.05 },
  { what: 'peak memory of any command', field: 'memory', most: 200e6 },
  { what: 'start-up', stage: 'start', most: 0.12 },
];

/** `results.get(stage)?.get(name)` is a map from round to figures. */
const rounds = (results, stage, name) => results.get(stage)?.get(name) ?? new Map();

const column = (runs, field) => new Map([...runs].map(([round, figures]) => [round, figures[field]]));

/** See figures.d.mts. */
export function medianOf(results, { stage, name, field = 'seconds' }) {
  return median(column(rounds(results, stage, name), field).values());
}

/** See figures.d.mts. */
export function ratioOf(results, { stage, against, field = 'seconds' }) {
  const ours = column(rounds(results, stage, 'sealift'), field);
  return ratio(ours, column(rounds(results, stage, against), field));
}

function reached(results, target) {
  const { stage, against, field } = target;
  if (field === undefined)
    return against === undefined
      ? medianOf(results, { stage, name: 'sealift' })
      : ratioOf(results, { stage, against });
  const all = [...results.keys()].flatMap((key) => [...rounds(results, key, 'sealift').values()]);
  return all.length === 0 ? undefined : Math.max(...all.map((figures) => figures[field]));
}

/** See figures.d.mts. */
export function judge(results, targets = TARGETS) {
  return targets.map((target) => {
    const value = reached(results, target);
    return { ...target, value, holds: value === undefined ? undefined : value <= target.most };
  });
}

/** See figures.d.mts. */
export function table(rows) {
  const widths = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  }
  const line = (row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
      .join('  ')
      .trimEnd();
  const [head, ...body] = rows.map(line);
  const rule = '─'.repeat(widths.reduce((sum, width) => sum + width + 2, -2));
  return [head, rule, ...body].join('\n');
}

/** See figures.d.mts. */
export function number(value, unit = 'seconds') {
  if (value === undefined) return '–';
  if (unit === 'bytes') return (value / 1e6).toFixed(value < 9.95e6 ? 1 : 0);
  if (unit === 'count') return String(Math.round(value));
  return value < 0.0995 ? value.toFixed(3) : value.toFixed(2);
}
