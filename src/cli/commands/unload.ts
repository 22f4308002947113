import type { Command } from 'commander';
import { errorOf, type Fault, fault, SealiftError } from '../../core/errors.ts';
import type { UnloadedTarget, UnloadResult } from '../../ops/unload.ts';
import { examples } from '../examples.ts';
import { askingOf } from '../login-asking.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { gather } from '../trust-flags.ts';
import { count, firstLines, harmless, shownWord, table } from '../words.ts';

interface UnloadFlags {
  readonly receipt?: string;
  readonly later?: readonly string[];
  readonly target?: readonly string[];
  readonly site?: string;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly json?: boolean;
}

type Item = UnloadedTarget['items'][number];

/** Lines about single items that are shown; `--json` has all. */
const LINES_SHOWN = 40;

const STATES: readonly (readonly [Item['state'], string])[] = [
  ['remove', 'to take back'],
  ['removed', 'taken back'],
  ['gone', 'gone already'],
  ['changed', 'changed since, and left'],
  ['kept', 'left for later loads'],
  ['failed', 'failed'],
];

function targetLine({ name, items, fault }: UnloadedTarget): string {
  const told = STATES.flatMap(([state, words]) => {
    const n = items.filter((item) => item.state === state).length;
    return n === 0 ? [] : [`${n} ${words}`];
  });
  const said =
    fault === null ? (told.length === 0 ? 'nothing of this load is there' : told.join(', ')) : fault.message;
  return harmless(`${name}: ${said}`);
}

/** What is not simply taken back, with the reason. */
function noteLines({ items }: UnloadedTarget): string[] {
  const lines = items.flatMap(({ item, state, notes }) => {
    const why = state === 'changed' && notes.length === 0 ? ['something else is there now'] : notes;
    return why.map((note) => `  ${harmless(`${item.as}: ${note}`)}`);
  });
  return firstLines(lines, LINES_SHOWN);
}

function planLines(target: UnloadedTarget): string[] {
  const rows = target.items.map(({ item, state }) => [`  ${state}`, item.kind, harmless(item.as)]);
  return [targetLine(target), ...(rows.length === 0 ? [] : table([['  STATE', 'KIND', 'AS'], ...rows]))];
}

function failureOf({ targets, failed }: UnloadResult): SealiftError | undefined {
  if (failed === 0) return undefined;
  const faults = targets.flatMap(({ name, fault: whole, items }): Fault[] => [
    ...(whole === null ? [] : [{ ...whole, message: `${name}: ${whole.message}` }]),
    ...items.flatMap(({ item, fault: own }) =>
      own === undefined ? [] : [fault(own.code, `${name}: ${item.kind} ${item.name}: ${own.message}`, own)],
    ),
  ]);
  return errorOf(faults, `${count(failed, 'failure')}; everything else is as told`, 'TARGET_FAILED');
}

function unloadOutcome(result: UnloadResult, words: readonly string[]): Outcome {
  const failure = failureOf(result);
  const { bundle, dryRun, targets } = result;
  const title = harmless([bundle.name, bundle.version].filter((t) => t !== null).join(' '));
  const document = { command: 'unload', ...result };
  const failed = failure === undefined ? {} : { failure };
  const again = words.map((word) => (word === '--dry-run' ? '--yes' : shownWord(word))).join(' ');
  if (dryRun) {
    return {
      document,
      data: targets.flatMap((target) => [...planLines(target), ...noteLines(target)]),
      summary: [`${title}: nothing was removed: this is what would be taken back`],
      ...failed,
      next: `sealift ${again}`,
    };
  }
  return {
    document,
    summary: [
      `${title}: what its load of ${result.loaded} added is taken back`,
      ...targets.flatMap((target) => [targetLine(target), ...noteLines(target)]),
    ],
    ...failed,
    ...(failure === undefined ? {} : { next: `sealift ${again}   # goes on with what failed` }),
  };
}

function receiptOf({ receipt, dryRun, yes }: UnloadFlags): string {
  if (receipt === undefined || receipt === '') {
    throw new SealiftError('USAGE', 'which load? --receipt is missing', {
      hint: 'name the file that `sealift load --receipt FILE` wrote',
    });
  }
  if ((dryRun === true) !== (yes === true)) return receipt;
  throw new SealiftError('USAGE', 'give one of --dry-run and --yes', {
    hint: 'look first with --dry-run; --yes removes',
  });
}

/** `sealift unload`. */
export function addUnload(program: Command, run: RunVerb): void {
  program
    .command('unload')
    .summary('take back what one load added, by its receipt')
    .description(
      'Removes what the load put on its targets, and only that: not what was there before, what is something else by now, or what a later load counts on. Receipts of later loads are looked for beside the receipt.',
    )
    .addHelpText(
      'before',
      examples(
        'sealift unload --receipt receipt.json --dry-run     what would be taken back?',
        'sealift unload --receipt receipt.json --yes',
      ),
    )
    .option('--receipt <file>', 'the receipt of the load, must be given')
    .option('--later <file>', 'the receipt of a later load, where it lies in another folder', gather)
    .option('--target <name>', 'only this target, by its name in the receipt', gather)
    .option('--site <file>', 'how servers are reached (default: site.yaml, where it is there)')
    .option('--dry-run', 'ask only: what would be taken back')
    .option('--yes', 'do it')
    .option('--json', 'one JSON document on stdout')
    .action((flags: UnloadFlags) => {
      return run(flags, async (context) => {
        const receiptPath = receiptOf(flags);
        const { unload } = await import('../../ops/unload.ts');
        const options = {
          receiptPath,
          ...askingOf(context),
          dryRun: flags.dryRun === true,
          ...(flags.later === undefined ? {} : { later: flags.later }),
          ...(flags.site === undefined ? {} : { sitePath: flags.site }),
          ...(flags.target === undefined ? {} : { targets: flags.target }),
        };
        return unloadOutcome(await unload(options, context), process.argv.slice(2));
      });
    });
}
