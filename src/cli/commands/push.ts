import type { Command } from 'commander';
import type { PushResult } from '../../ops/push.ts';
import { parseBytes } from '../byte-size.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { addRegistryFlags, hostConfigOf, type RegistryFlags } from '../registry-flags.ts';
import { baseText, count, exactBytes, harmless, shellWord } from '../words.ts';

interface PushFlags extends RegistryFlags {
  readonly chunkSize?: string;
  readonly json?: boolean;
}

function pushOutcome(result: PushResult): Outcome {
  const { place, digest, name, version, size, sent, present, outcome, base } = result;
  const title = harmless(`${name} ${version}`);
  const chunks = (of: PushResult['sent']): string => `${count(of.chunks, 'chunk')}, ${exactBytes(of.bytes)}`;
  const exact = `${place.slice(0, place.lastIndexOf(':'))}@${digest}`;
  return {
    document: { command: 'push', ...result },
    data: [exact],
    summary: [
      outcome === 'present'
        ? `${harmless(place)} is ${title} already: ${exactBytes(size)}; nothing was written`
        : `pushed ${title} to ${harmless(place)}: sent ${chunks(sent)}; there already: ${chunks(present)}`,
      ...(base === null ? [] : [`  it lacks what is in ${base.map(baseText).join(' and ')}`]),
    ],
    next: `sealift pull ${shellWord(exact)} -o ${shellWord(`${name}-${version}.tar`)}`,
  };
}

/** `sealift push`. */
export function addPush(program: Command, run: RunVerb): void {
  const command = program
    .command('push')
    .summary('put a bundle into a registry, as an artifact in chunks')
    .description(
      'Sends the bundle as an OCI artifact whose layers are its bytes in chunks, the tag last; prints its place by digest. Running it again goes on. `oras pull` makes the same files of it.',
    )
    .argument('<bundle>', 'a bundle in one file, its first volume, or a folder or "pattern*" of its volumes')
    .argument('<place>', 'oci://HOST[:PORT]/REPOSITORY:TAG (http:// for plain HTTP)')
    .addHelpText(
      'before',
      examples(
        'sealift push astrago.tar oci://registry.local:5000/bundles/astrago:2026.11',
        'sealift push astrago.tar oci://ghcr.io/team/astrago:nightly --chunk-size 256MiB',
      ),
    )
    .option('--chunk-size <bytes>', 'bytes of a layer: 100MB, 1GiB (default: 512MiB)');
  addRegistryFlags(command)
    .option('--json', 'one JSON document on stdout')
    .action((bundle: string, text: string, flags: PushFlags) => {
      return run(flags, async (context) => {
        const { parseBundlePlace } = await import('../../ops/bundle-place.ts');
        const { push } = await import('../../ops/push.ts');
        const place = parseBundlePlace(text);
        const to = { ...place, config: { ...place.config, ...hostConfigOf(flags) } };
        const chunkSize =
          flags.chunkSize === undefined ? {} : { chunkSize: parseBytes(flags.chunkSize, '--chunk-size') };
        return pushOutcome(await push({ bundle, to, ...chunkSize }, context));
      });
    });
}
