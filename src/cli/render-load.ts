import { EXIT, errorOf, exitCodeOf, type Fault, fault, type SealiftError } from '../core/errors.ts';
import type { ForNone } from '../ops/for-none.ts';
import type { LoadedEntry, LoadedTarget, LoadResult } from '../ops/load.ts';
import { bytesText, count, exactBytes, firstLines, harmless, table } from './words.ts';

/** Notes of entries that are shown; the receipt has all. */
const NOTES_SHOWN = 20;

function sumOf(entries: readonly LoadedEntry[], of: 'presentBytes' | 'writeBytes'): number {
  return entries.reduce((total, e) => total + e[of], 0);
}

function stateText(entry: LoadedEntry): string {
  if (entry.state !== 'write') return entry.state;
  return entry.presentBytes > 0 ? 'write rest' : 'write';
}

/** The plan of one target: each entry with what is there and what would be written. */
function planLines(target: LoadedTarget): string[] {
  const { entries, name } = target;
  const heads = ['  STATE', 'KIND', 'AS', 'THERE', 'TO WRITE'];
  const rows = entries.map((e) => [
    `  ${stateText(e)}`,
    e.kind,
    harmless(e.as),
    bytesText(e.presentBytes),
    bytesText(e.writeBytes),
  ]);
  const write = entries.filter((e) => e.state === 'write').length;
  const present = entries.filter((e) => e.state === 'present').length;
  return [
    harmless(name),
    ...madeLines(target),
    ...(target.fault === null ? [] : [`  cannot be asked: ${harmless(target.fault.message)}`]),
    ...(rows.length === 0 ? [] : table([heads, ...rows], [3, 4])),
    `  ${present} present, ${write} to write: ${exactBytes(sumOf(entries, 'writeBytes'))} to write, ${exactBytes(sumOf(entries, 'presentBytes'))} there already`,
  ];
}

/** The repository that has to be made, with its settings. */
function madeLines({ made }: LoadedTarget): string[] {
  if (made === null) return [];
  const { repository, format, settings } = made;
  return [harmless(`  new ${format} repository ${repository}: ${JSON.stringify(settings)}`)];
}

/** What `--dry-run` prints. */
export function dryRunLines(result: LoadResult): string[] {
  return result.targets.flatMap(planLines);
}

/** What one target got. */
function targetLine({ name, entries, tally }: LoadedTarget): string {
  const of = (state: LoadedEntry['state']): number => entries.filter((e) => e.state === state).length;
  const failed = of('failed');
  const states = [
    `${of('written')} written`,
    `${of('present')} there already`,
    ...(of('kept') > 0 ? [`${of('kept')} kept as they are there`] : []),
    ...(failed > 0 ? [`${failed} failed`] : []),
  ];
  const blobs = [
    ...(tally.blobsPresent > 0 ? [`${tally.blobsPresent} there already`] : []),
    ...(tally.blobsMounted > 0 ? [`${tally.blobsMounted} mounted`] : []),
  ];
  const also = blobs.length === 0 ? '' : `, ${blobs.join(', ')}`;
  return `${harmless(name)}: ${states.join(', ')}; sent ${count(tally.blobsWritten, 'blob')} (${bytesText(tally.bytesWritten)})${also}`;
}

function noteLines({ entries }: LoadedTarget): string[] {
  const lines = entries.flatMap((e) => e.notes.map((note) => `  ${harmless(`${e.as}: ${note}`)}`));
  return firstLines(lines, NOTES_SHOWN);
}

/** How clients use what is there now. */
export function useLines({ targets }: LoadResult): string[] {
  const useful = targets.filter(
    ({ fault: lost, entries }) =>
      lost === null && entries.some(({ state }) => state === 'written' || state === 'present'),
  );
  return useful.flatMap(({ use }) => use.map((line) => `  ${harmless(line)}`));
}

/** What every target got, each with the notes of its entries. */
export function loadedLines(result: LoadResult): string[] {
  return result.targets.flatMap((target) => [targetLine(target), ...madeLines(target), ...noteLines(target)]);
}

function named(inner: Fault, where: string): Fault {
  const { code, message, ...more } = inner;
  return fault(code, `${where}: ${message}`, more);
}

/** Every failure of a load, each with the target and the entry that it belongs to. */
function faultsOf(result: LoadResult): Fault[] {
  return result.targets.flatMap((target) => [
    ...(target.fault === null ? [] : [named(target.fault, target.name)]),
    ...target.entries.flatMap((e) =>
      e.fault === null ? [] : [named(e.fault, `${target.name}: ${e.kind} ${e.name}`)],
    ),
  ]);
}

/** How each kind is called, and what would take it. */
const TAKERS: Readonly<Record<ForNone['kind'], { readonly noun: string; readonly give: string }>> = {
  image: { noun: 'image', give: 'a registry or a containerd' },
  chart: { noun: 'chart', give: 'a registry, a chart repository or a chart tree' },
  file: { noun: 'file', give: 'a registry, a raw repository or a folder (--files)' },
  package: {
    noun: 'Python package',
    give: 'a pypi or devpi target in site.yaml, or let pip ask `sealift serve`',
  },
};

/** That no target takes some of what is loaded, and what would. */
export function forNoneWarnings({ forNone }: LoadResult): Fault[] {
  return forNone.map(({ kind, count: n }) => {
    const { noun, give } = TAKERS[kind];
    const message = `${count(n, noun)} ${n === 1 ? 'is' : 'are'} for none of the targets`;
    return fault('USAGE', message, { hint: `give ${give}` });
  });
}

/** The error of a load of which something failed: exit 4 when all of it is for want of permission, else 1. */
export function loadFailure(result: LoadResult): SealiftError | undefined {
  if (result.failed === 0) return undefined;
  const faults = faultsOf(result);
  const [first] = faults;
  const onlyAuth = faults.every((f) => exitCodeOf(f.code) === EXIT.auth);
  const code = first !== undefined && onlyAuth ? first.code : 'TARGET_FAILED';
  const failed = count(faults.length, 'failure');
  return errorOf(faults, `${failed}; everything else is on its target`, code);
}
