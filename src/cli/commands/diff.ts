import { type Command, Option } from 'commander';
import { EXIT, SealiftError } from '../../core/errors.ts';
import type { DiffResult, DiffSide } from '../../ops/diff.ts';
import { examples } from '../examples.ts';
import { markdownDiff } from '../markdown-diff.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { diffLines } from '../render-diff.ts';
import { count, exactBytes, harmless, shellWord } from '../words.ts';

const FORMATS = ['text', 'markdown', 'json'] as const;

interface DiffFlags {
  readonly format?: (typeof FORMATS)[number];
  readonly json?: boolean;
}

/** `--json` is the same as `--format json`. @throws USAGE where both are given and say different things */
function formatOf({ format, json }: DiffFlags): (typeof FORMATS)[number] {
  if (json !== true) return format ?? 'text';
  if (format === undefined || format === 'json') return 'json';
  throw new SealiftError('USAGE', `--json and --format ${format} ask for two things`, {
    hint: 'leave one of them out',
  });
}

function sideText(side: DiffSide): string {
  return harmless(`${side.path} (${side.kind} ${side.name} ${side.version})`);
}

function aloneLine(side: DiffSide, alone: DiffResult['onlyA']): string[] {
  if (alone === null) return [];
  return [`only in ${harmless(side.path)}: ${count(alone.blobs, 'blob')}, ${exactBytes(alone.bytes)}`];
}

function nextOf({ a, b, equal }: DiffResult): string {
  if (b.kind === 'bundle') return `sealift load ${shellWord(b.path)} --registry HOST:PORT`;
  if (a.kind === 'bundle' && equal) return `sealift load ${shellWord(a.path)} --registry HOST:PORT`;
  return `sealift pack --lock ${shellWord(b.path)} -o ${shellWord(`${b.name}-${b.version}.tar`)}`;
}

function diffOutcome(result: DiffResult, format: (typeof FORMATS)[number]): Outcome {
  const { a, b, equal, onlyA, onlyB, added, removed, changed } = result;
  const unknown = onlyA === null ? ['bytes that each side alone has are only known between two bundles'] : [];
  return {
    document: { command: 'diff', ...result },
    data:
      format === 'markdown'
        ? markdownDiff(result)
        : [...diffLines(result), ...aloneLine(a, onlyA), ...aloneLine(b, onlyB)],
    summary: [
      equal
        ? `equal: ${sideText(a)} and ${sideText(b)}`
        : `from ${sideText(a)} to ${sideText(b)}: ${added.length} added, ${removed.length} removed, ${changed.length} changed`,
      ...unknown,
    ],
    exitCode: equal ? EXIT.done : EXIT.checkSaysNo,
    next: nextOf(result),
  };
}

/** `sealift diff`. */
export function addDiff(program: Command, run: RunVerb): void {
  program
    .command('diff')
    .summary('compare any two of lock and bundle')
    .description(
      'Prints what was added (+), removed (-) and changed (~) from A to B; exit 0 equal, 3 different.',
    )
    .argument('<a>', 'a lock or a bundle')
    .argument('<b>', 'a lock or a bundle')
    .addHelpText(
      'before',
      examples(
        'sealift diff astrago-2026.10.tar astrago-2026.11.tar     what the new bundle brings, in entries and bytes',
        'sealift diff astrago.tar versions.lock                   is this bundle still the lock?',
        'sealift diff main.lock versions.lock --format markdown   a comment for the pull request',
      ),
    )
    .addOption(
      new Option(
        '--format <how>',
        'text, markdown for a comment on a pull request, or json (default: text)',
      ).choices(FORMATS),
    )
    .option('--json', 'one JSON document on stdout')
    .action((a: string, b: string, flags: DiffFlags) => {
      return run({ json: flags.json === true || flags.format === 'json' }, async (context) => {
        const format = formatOf(flags);
        const { diff } = await import('../../ops/diff.ts');
        return diffOutcome(await diff(a, b, context), format);
      });
    });
}
