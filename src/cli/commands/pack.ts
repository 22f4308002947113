import type { Command } from 'commander';
import { fault, SealiftError } from '../../core/errors.ts';
import type { PackResult } from '../../ops/pack.ts';
import type { PlacedTool } from '../../ops/tool.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { packerOf, type SignatureFlags, withSignature } from '../pack-signature.ts';
import { bundleOutput } from '../stdio.ts';
import { type ToolFlags, toolChoice, toolLines, toolOptions } from '../tool-flags.ts';
import { largeVolumes, parseVolumeSize } from '../volume-size.ts';
import { baseText, bytesText, contentText, count, exactBytes, harmless, shellWord } from '../words.ts';

interface PackFlags extends ToolFlags, SignatureFlags {
  readonly file: string;
  readonly lock?: string;
  readonly output?: string;
  readonly verify?: boolean;
  readonly volumeSize?: string;
  readonly since?: readonly string[];
  readonly repair?: string;
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

/** What a delta or a repair is made for. */
function baseLines(base: PackResult['base']): string[] {
  if (base === null) return [];
  return [
    `  leaves out ${count(base.blobs, 'blob')} (${bytesText(base.bytes)}) that ${base.of.map(baseText).join(' and ')} has`,
  ];
}

function packOutcome(result: PackResult, path: string, tools: readonly PlacedTool[] | null): Outcome {
  const { outcome, size, blobs, artifacts, stats, compared } = result;
  const out = harmless(path);
  const { volumes, base } = result;
  const parts =
    volumes === null ? '' : ` in ${count(volumes.count, 'volume')} of ${exactBytes(volumes.size)}`;
  const what = `${exactBytes(size)}${parts}, ${contentText(artifacts)} in ${count(blobs, 'blob')}`;
  return {
    document: { command: 'pack', ...result, tools },
    summary: [
      outcome === 'present'
        ? `${out} is the bundle of this lock already, nothing was written: ${what}`
        : `packed ${result.kind === 'stream' ? 'to stdout' : out}: ${what}`,
      ...baseLines(base),
      ...statsLines(stats),
      ...comparedLine(compared),
      ...toolLines(tools),
    ],
    next:
      result.kind === 'stream'
        ? 'sealift verify FILE   # where the stream was written'
        : `sealift verify ${shellWord(volumes === null ? path : result.path)}`,
  };
}

/** Asked for here and not by commander, which would speak of it before it speaks of a mistyped `--ouput`. */
function outOf({ output }: PackFlags): string {
  if (output !== undefined && output !== '') return output;
  throw new SealiftError('USAGE', 'where to? -o is missing', {
    hint: 'name the bundle: `sealift pack -o astrago.tar`',
  });
}

/** What stands for stdout. */
const STDOUT = '-';

/** stdout belongs to the bundle. */
function refuseWithStream({ json, verify, tool, volumeSize }: PackFlags): void {
  if (volumeSize !== undefined) {
    throw new SealiftError('USAGE', '--volume-size: a stream has no volumes', {
      hint: 'split it where it arrives: `split -b 4G -d -a 3 --numeric-suffixes=1 - bundle.tar.`',
    });
  }
  if (tool !== undefined && tool !== false) {
    throw new SealiftError('USAGE', '--tool: nothing can lie beside a stream', {
      hint: 'leave it out, and bring the tarball of sealift along by itself',
    });
  }
  if (json === true) {
    throw new SealiftError('USAGE', '--json: stdout carries the bundle', {
      hint: 'leave it out; --progress json tells everything on stderr, one JSON text a line',
    });
  }
  if (verify !== true) return;
  throw new SealiftError('USAGE', '--verify: what is streamed to stdout is not there to be read', {
    hint: 'leave it out, and check where it arrives: `sealift verify FILE`',
  });
}

/** `sealift pack`. */
export function addPack(program: Command, run: RunVerb): void {
  const command = program
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
        "sealift pack -o - | ssh site 'cat > b.tar'  to stdout, in order, nothing on this disk",
        'sealift pack -o astrago.tar --volume-size fat32          astrago.tar.001 and on, for a stick',
        'sealift pack -o delta.tar --since astrago-2026.10.tar    only what that bundle lacks',
        'sealift pack -o fix.tar --repair repair.json             only what a damaged bundle asks for',
      ),
    )
    .option('-f, --file <path>', 'the manifest, read only to refuse a stale lock', 'sealift.yaml')
    .option('--lock <path>', 'the lock (default: versions.lock beside the manifest)')
    .option('-o, --output <path>', 'the bundle, must be given; a folder when it ends in /, - for stdout')
    .option('--sign <key>', 'sign it with this secret key, which is unlocked first')
    .option('--password-stdin', 'with --sign: read the password of the key from standard input')
    .option('--volume-size <size>', 'write volumes OUT.001, OUT.002 … of this size: 4GB, 700MiB, fat32, dvd')
    .option(
      '--since <base...>',
      'leave out what this bundle has: a bundle, its SHA256SUMS, its lock beside it, or a receipt of the site',
    )
    .option('--repair <file>', 'carry only what `sealift verify --write-request FILE` asks for')
    .option('--verify', 'read the bytes of a bundle that is there already')
    .option('--no-wait', 'fail where a registry limits pulls, instead of waiting for the limit to end')
    .option('--json', 'one JSON document on stdout')
    .action((flags: PackFlags) => {
      return run(flags, async (context) => {
        const out = outOf(flags);
        if (out === STDOUT) refuseWithStream(flags);
        const volumeSize = flags.volumeSize === undefined ? undefined : parseVolumeSize(flags.volumeSize);
        const large = volumeSize === undefined ? undefined : largeVolumes(volumeSize);
        if (large !== undefined) context.emit({ type: 'warning', fault: fault('USAGE', large) });
        const pack = await packerOf(flags, context);
        const { findTools, roomFor } = await import('../../ops/tool.ts');
        const choice = out === STDOUT ? undefined : toolChoice(flags);
        const found = choice === undefined ? null : await findTools(choice, out);
        const { result, signature, tools } = await pack(
          {
            manifestPath: flags.file,
            ...(flags.lock === undefined ? {} : { lockPath: flags.lock }),
            out,
            ...(out === STDOUT ? { output: bundleOutput() } : {}),
            ...(volumeSize === undefined ? {} : { volumeSize }),
            ...(flags.since === undefined ? {} : { since: flags.since }),
            ...(flags.repair === undefined ? {} : { repair: flags.repair }),
            verify: flags.verify === true,
            noWait: !flags.wait,
            beside: await roomFor(found ?? [], out),
          },
          found,
        );
        return withSignature(packOutcome(result, out, tools), signature);
      });
    });
  for (const option of toolOptions()) command.addOption(option);
}
