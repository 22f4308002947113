import type { Command } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import type { SiteInitResult } from '../../ops/site-init.ts';
import { examples } from '../examples.ts';
import { askingOf } from '../login-asking.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { addRegistryFlags, hostConfigOf, type RegistryFlags } from '../registry-flags.ts';
import { harmless, shellWord } from '../words.ts';

interface InitFlags extends RegistryFlags {
  readonly out: string;
  readonly devpi?: string;
  readonly containerd?: string | true;
  readonly chartTree?: string;
  readonly files?: string;
  readonly json?: boolean;
}

function initOutcome({ path, text, choices, targets }: SiteInitResult, out: string): Outcome {
  const option = out === 'site.yaml' ? '' : ` --site ${shellWord(out)}`;
  return {
    document: { command: 'site init', path, choices, targets },
    data: text.trimEnd().split('\n').map(harmless),
    summary: [harmless(`wrote ${path}`), ...choices.map((choice) => harmless(`  ${choice}`))],
    next: `sealift site check${option}   # whether every target would take a load`,
  };
}

/** `sealift site init`, below `site`. */
export function addSiteInit(site: Command, run: RunVerb): void {
  const command = site
    .command('init')
    .summary('ask a Nexus what it has, and write site.yaml')
    .description(
      'Asks a Nexus which hosted repositories it has and how its docker repositories are reached, and writes the file that `load` takes its targets from. On an empty Nexus it names repositories that `load` makes. A file that is there is never replaced.',
    )
    .argument('[url]', 'the address of Nexus, with its context path where it has one')
    .addHelpText(
      'before',
      examples(
        'sealift site init https://nexus.local                         with NEXUS_USERNAME and NEXUS_PASSWORD, or what docker and netrc know',
        'sealift site init https://nexus.local -o customer.yaml --chart-tree charts/external',
        'sealift site init --devpi http://devpi.local:3141/root/prod --containerd',
      ),
    )
    .option('-o, --out <file>', 'the file to write', 'site.yaml')
    .option('--devpi <url>', 'also an index of devpi')
    .option('--containerd [socket]', 'also a containerd of this machine (looked for where none is named)')
    .option('--chart-tree <dir>', 'also a folder of unpacked charts')
    .option('--files <dir>', 'also a folder for files');
  addRegistryFlags(command)
    .option('--json', 'one JSON document on stdout')
    .action((url: string | undefined, flags: InitFlags) => {
      return run(flags, async (context) => {
        const { out, devpi, containerd, chartTree, files } = flags;
        if ((url ?? devpi ?? containerd ?? chartTree ?? files) === undefined) {
          throw new SealiftError('USAGE', 'nothing to write', {
            hint: 'name a Nexus, or one of --devpi, --containerd, --chart-tree and --files',
          });
        }
        const { siteInit } = await import('../../ops/site-init.ts');
        const given = {
          ...(url === undefined ? {} : { url }),
          ...(devpi === undefined ? {} : { devpi }),
          ...(containerd === undefined ? {} : { containerd }),
          ...(chartTree === undefined ? {} : { chartTree }),
          ...(files === undefined ? {} : { files }),
        };
        const options = { ...given, out, tls: hostConfigOf(flags), ...askingOf(context) };
        return initOutcome(await siteInit(options, context), out);
      });
    });
}
