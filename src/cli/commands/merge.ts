import type { Command } from 'commander';
import type { MergeResult } from '../../ops/merge.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { parseVolumeSize } from '../volume-size.ts';
import { contentText, count, exactBytes, harmless, shellWord } from '../words.ts';

interface MergeFlags {
  readonly volumeSize?: string;
  readonly json?: boolean;
}

function mergeOutcome(result: MergeResult): Outcome {
  const { path, name, version, size, blobs, outcome, artifacts } = result;
  const out = harmless(path);
  const what = `${harmless(`${name} ${version}`)}, ${exactBytes(size)}, ${contentText(artifacts)} in ${count(blobs, 'blob')}`;
  return {
    document: { command: 'merge', ...result },
    summary: [
      outcome === 'present'
        ? `${out} is the complete bundle already, nothing was written: ${what}`
        : `merged into ${out}: ${what}`,
    ],
    next: `sealift verify ${shellWord(path)}`,
  };
}

/** `sealift merge`. */
export function addMerge(program: Command, run: RunVerb): void {
  program
    .command('merge')
    .summary('join a base and its deltas or repairs into one complete bundle')
    .description(
      'Writes the bundle that a full pack of the newest lock gives, byte for byte. Every blob is read and compared with its digest; one that is damaged in one bundle is taken from the next. An interrupted merge goes on where it stopped.',
    )
    .argument('<out>', 'the complete bundle; a folder when it ends in /')
    .argument('<bundle...>', 'a delta or a repair, and what it builds on, in any order')
    .addHelpText(
      'before',
      examples(
        'sealift merge astrago-2026.11.tar astrago-2026.10.tar delta.tar',
        'sealift merge whole.tar damaged.tar.001 fix.tar',
      ),
    )
    .option('--volume-size <size>', 'write volumes OUT.001, OUT.002 … of this size: 4GB, 700MiB, fat32, dvd')
    .option('--json', 'one JSON document on stdout')
    .action((out: string, bundles: readonly string[], flags: MergeFlags) => {
      return run(flags, async (context) => {
        const size = flags.volumeSize === undefined ? {} : { volumeSize: parseVolumeSize(flags.volumeSize) };
        const { merge } = await import('../../ops/merge.ts');
        return mergeOutcome(await merge({ out, bundles, ...size }, context));
      });
    });
}
