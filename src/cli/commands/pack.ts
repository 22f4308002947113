import type { Command } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import type { PackResult } from '../../ops/pack.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { bytesText, contentText, count, exactBytes, harmless, shellWord } from '../words.ts';

interface PackFlags {
  readonly file: string;
  readonly lock?: string;
  readonly output?: string;
  readonly verify?: boolean;
  /** False with --no-wait. */
  readonly wait: boolean;
  readonly json?: boolean;
}

function statsLines(stats: PackResult['stats']): string[] {
  if (stats === null) return [];
  const part = (word: string, of: { readonly blobs: number; readonly bytes: number }): string[] =>
    of.blobs + of.bytes === 0 ? [] : [`${word} ${count(of.blobs, 'blob')} (${bytesText(of.bytes)})`];
  const parts = [
    ...part('fetched', stats.fetched),
    ...part('used again from what was here', stats.reused),
    ...part('kept from the interrupted run', stats.resumed),
  ];
  return parts.length === 0 ? [] : [`  ${parts.join(', ')}`];
}

function comparedLine(compared: PackResult['compared']): string[] {
  if (compared === null) return [];
  if (compared === 'bytes') return ['  compared every byte'];
  return ['  compared documents, headers and length, not blob bytes (--verify reads them)'];
}

function packOutcome(result: PackResult, path: string): Outcome {
  const { outcome, size, blobs, artifacts, stats, compared } = result;
  const out = harmless(path);
  const what = `${exactBytes(size)}, ${contentText(artifacts)} in ${count(blobs, 'blob')}`;
  return {
    document: { command: 'pack', ...result },
    summary: [
      outcome === 'present'
        ? `${out} is the bundle of this lock already, nothing was written: ${what}`
        : `packed ${out}: ${what}`,
      ...statsLines(stats),
      ...comparedLine(compared),
    ],
    next: `sealift verify ${shellWord(path)}`,
  };
}

/** Asked for here and not by commander, which would speak of it before it speaks of a mistyped `--ouput`. */
function outOf({ output }: PackFlags): string {
  if (output !== undefined && output !== '') return output;
  throw new SealiftError('USAGE', 'where to? -o is missing', {
    hint: 'name the bundle: `sealift pack -o astrago.tar`',
  });
}

/** `sealift pack`. */
export function addPack(program: Command, run: RunVerb): void {
  program
    .command('pack')
    .summary('download everything that the lock names into one bundle')
    .description(
      'Writes the bundle from versions.lock alone: same lock, same bytes. An interrupted pack goes on where it stopped; blobs of an older bundle at the same path are used again.',
    )
    .addHelpText(
      'before',
      examples(
        'sealift pack -o astrago-2026.11.tar         one file',
        'sealift pack -o bundle/                     a folder of the same shape (the / at the end says so)',
        'sealift pack -o astrago.tar --verify        when it is there already: read every byte again',
      ),
    )
    .option('-f, --file <path>', 'the manifest, read only to refuse a stale lock', 'sealift.yaml')
    .option('--lock <path>', 'the lock (default: versions.lock beside the manifest)')
    .option('-o, --output <path>', 'the bundle, must be given; a folder when it ends in /')
    .option('--verify', 'read the bytes of a bundle that is there already')
    .option('--no-wait', 'fail where a registry limits pulls, instead of waiting for the limit to end')
    .option('--json', 'one JSON document on stdout')
    .action((flags: PackFlags) => {
      return run(flags, async (context) => {
        const out = outOf(flags);
        const { pack } = await import('../../ops/pack.ts');
        const result = await pack(
          {
            manifestPath: flags.file,
            ...(flags.lock === undefined ? {} : { lockPath: flags.lock }),
            out,
            verify: flags.verify === true,
            noWait: !flags.wait,
          },
          context,
        );
        return packOutcome(result, out);
      });
    });
}
