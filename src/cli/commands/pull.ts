import { join } from 'node:path';
import type { Command } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import type { PullResult } from '../../ops/pull.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { addRegistryFlags, hostConfigOf, type RegistryFlags } from '../registry-flags.ts';
import { count, exactBytes, harmless, shellWord } from '../words.ts';

interface PullFlags extends RegistryFlags {
  readonly output: string;
  readonly json?: boolean;
}

function pullOutcome(result: PullResult, out: string): Outcome {
  const { place, digest, name, version, volumes, size, chunks, fetched, resumed, outcome } = result;
  const title = harmless(`${name} ${version}`);
  const [first] = volumes ?? [];
  const path = first === undefined ? out : join(out, first);
  const from = harmless(`${place} (${digest})`);
  const kept = resumed > 0 ? `, ${exactBytes(resumed)} were here already` : '';
  return {
    document: { command: 'pull', ...result },
    summary: [
      outcome === 'present'
        ? `${harmless(out)} is ${from} already: ${exactBytes(size)}; nothing was written`
        : `pulled ${title} from ${from} to ${harmless(out)}: ${count(chunks, 'chunk')}, ${exactBytes(fetched)}${kept}`,
      '  every chunk has its digest; whether the bundle is whole, and what was packed, says verify',
    ],
    next: `sealift verify ${shellWord(path)}`,
  };
}

/** Chunks come in any order and go on where they broke, so it needs a file. */
function refuseStdout(out: string): void {
  if (out !== '-') return;
  throw new SealiftError('USAGE', '-o -: a pull is not written to stdout', {
    hint: 'name a file, and load that: `sealift pull PLACE -o astrago.tar`',
  });
}

/** `sealift pull`. */
export function addPull(program: Command, run: RunVerb): void {
  const command = program
    .command('pull')
    .summary('fetch a bundle that push put into a registry')
    .description(
      'Fetches a bundle, each chunk checked by its digest; the file appears when all are there. Running it again goes on. Nothing is overwritten.',
    )
    .argument('<place>', 'oci://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST] (http:// for plain HTTP)')
    .addHelpText(
      'before',
      examples(
        'sealift pull oci://registry.local:5000/bundles/astrago:2026.11 -o astrago.tar',
        'sealift pull oci://registry.local:5000/bundles/astrago:2026.11 -o /media/stick/     in volumes',
      ),
    )
    .requiredOption('-o, --output <path>', 'the file to write, or a folder (with / at the end) for volumes');
  addRegistryFlags(command)
    .option('--json', 'one JSON document on stdout')
    .action((text: string, flags: PullFlags) => {
      return run(flags, async (context) => {
        const { parseBundlePlace } = await import('../../ops/bundle-place.ts');
        const { pull } = await import('../../ops/pull.ts');
        refuseStdout(flags.output);
        const place = parseBundlePlace(text);
        const from = { ...place, config: { ...place.config, ...hostConfigOf(flags) } };
        return pullOutcome(await pull({ from, out: flags.output }, context), flags.output);
      });
    });
}
