import { type Command, Option } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import { NAMINGS, type Naming } from '../../core/naming.ts';
import type { LoadOptions, LoadResult } from '../../ops/load.ts';
import type { RegistryPlace } from '../../ops/registry-place.ts';
import { examples } from '../examples.ts';
import { askingOf } from '../login-asking.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { dryRunLines, forNoneWarnings, loadedLines, loadFailure, useLines } from '../render-load.ts';
import { gather, KEY_HELP, trustOf } from '../trust-flags.ts';
import { harmless, shownWord } from '../words.ts';

const DEFAULT_NAMESPACE = 'k8s.io';
/** As in target/registry.ts, which is not loaded for a help text. */
const INDEX_POLICIES = [
  'auto',
  'original',
  'filtered',
  'single',
] as const satisfies readonly RegistryPlace['indexPolicy'][];

interface LoadFlags {
  readonly registry?: readonly string[];
  readonly containerd?: readonly string[];
  readonly namespace?: readonly string[];
  readonly chartTree?: readonly string[];
  readonly files?: readonly string[];
  readonly pin?: boolean;
  readonly verify?: boolean;
  readonly only?: readonly string[];
  readonly name?: string;
  readonly naming?: Naming;
  readonly indexPolicy?: RegistryPlace['indexPolicy'];
  readonly caFile?: string;
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly insecure?: boolean;
  readonly key?: readonly string[];
  readonly site?: string;
  readonly target?: readonly string[];
  readonly allowDowngrade?: boolean;
  readonly force?: boolean;
  readonly dryRun?: boolean;
  readonly receipt?: string;
  readonly json?: boolean;
}

/** Flags that say something about a kind of target that was not given: a slip that would otherwise go unseen. */
function refuseIdleFlags(flags: LoadFlags): void {
  const registry = flags.registry !== undefined;
  const containerd = flags.containerd !== undefined;
  const folders = flags.chartTree !== undefined || flags.files !== undefined;
  const named = registry || containerd || folders;
  if (flags.target !== undefined && named) {
    throw new SealiftError(
      'USAGE',
      "--target is for the targets of the site's file, and a flag names another",
      {
        hint: 'write either --target NAME, or --registry, --containerd, --chart-tree and --files',
      },
    );
  }
  const rules: readonly (readonly [given: boolean, flag: string, has: boolean, needs: string])[] = [
    [flags.namespace !== undefined, '--namespace', containerd, '--containerd'],
    [flags.pin === true, '--pin', containerd, '--containerd'],
    [flags.naming !== undefined, '--naming', registry, '--registry'],
    [flags.indexPolicy !== undefined, '--index-policy', registry, '--registry'],
    [flags.caFile !== undefined, '--ca-file', registry, '--registry'],
    [flags.clientCert !== undefined, '--client-cert', registry, '--registry'],
    [flags.clientKey !== undefined, '--client-key', registry, '--registry'],
    [flags.insecure === true, '--insecure', registry, '--registry'],
    [flags.force === true, '--force', folders || !named, '--chart-tree or --files'],
  ];
  const idle = rules.find(([given, , has]) => given && !has);
  if (idle === undefined) return;
  throw new SealiftError('USAGE', `${idle[1]} means nothing without ${idle[3]}`, {
    hint: `leave it out, or name the target with ${idle[3]}`,
  });
}

async function placesOf(flags: LoadFlags): Promise<RegistryPlace[]> {
  if (flags.registry === undefined) return [];
  const { parseRegistryUrl } = await import('../../ops/registry-place.ts');
  const { naming = 'drop-host', indexPolicy = 'auto', caFile, clientCert, clientKey } = flags;
  return flags.registry.map((text) => {
    const { config, ...place } = parseRegistryUrl(text);
    const tls = {
      ...(caFile === undefined ? {} : { caFile }),
      ...(clientCert === undefined ? {} : { clientCert }),
      ...(clientKey === undefined ? {} : { clientKey }),
      ...(flags.insecure === true ? { insecure: true } : {}),
    };
    return { ...place, config: { ...config, ...tls }, naming, indexPolicy };
  });
}

async function optionsOf(given: readonly string[], flags: LoadFlags): Promise<LoadOptions> {
  const [bundle = '', ...others] = given;
  refuseIdleFlags(flags);
  const namespaces = flags.namespace ?? [DEFAULT_NAMESPACE];
  return {
    bundle,
    ...(given.includes('-') ? { input: process.stdin } : {}),
    others,
    registries: await placesOf(flags),
    containerd: (flags.containerd ?? []).map((socket) => ({ socket, namespaces })),
    pin: flags.pin === true,
    chartTrees: flags.chartTree ?? [],
    files: flags.files ?? [],
    verify: flags.verify === true,
    dryRun: flags.dryRun === true,
    force: flags.force === true,
    allowDowngrade: flags.allowDowngrade === true,
    ...trustOf(flags),
    ...(flags.only === undefined ? {} : { only: flags.only }),
    ...(flags.name === undefined ? {} : { name: flags.name }),
    ...(flags.receipt === undefined ? {} : { receiptPath: flags.receipt }),
    ...(flags.target === undefined ? {} : { targetNames: flags.target }),
  };
}

/** The same command, with `--dry-run` put in (and then without `--receipt`, which keeps what it says) or taken out. */
function sameCommand(words: readonly string[], dryRun: boolean): string {
  const rest = words.filter((word, i) => {
    if (word === '--dry-run') return false;
    return !dryRun || !(word.startsWith('--receipt') || words[i - 1] === '--receipt');
  });
  return ['sealift', ...rest.map(shownWord), ...(dryRun ? ['--dry-run'] : [])].join(' ');
}

function loadOutcome(result: LoadResult, flags: LoadFlags, words: readonly string[]): Outcome {
  const failure = loadFailure(result);
  const document = { command: 'load', kind: 'receipt', ...result };
  const { bundle } = result;
  const title = harmless([bundle.name, bundle.version].filter((t) => t !== null).join(' '));
  const receipt = flags.receipt === undefined || result.dryRun ? [] : [`receipt: ${harmless(flags.receipt)}`];
  const warnings = forNoneWarnings(result);
  const failed = failure === undefined ? { warnings } : { warnings, failure };
  if (result.dryRun) {
    return {
      document,
      data: dryRunLines(result),
      summary: [`${title}: nothing was written: this is what the load would do`, ...receipt],
      ...failed,
      next: sameCommand(words, false),
    };
  }
  const isComplete = failure === undefined;
  const wrote = result.targets.some((t) => t.entries.some((e) => e.state === 'written'));
  const done = wrote ? `loaded ${title}` : `${title}: everything was there already`;
  const again = isComplete
    ? 'to see at any time that all is there'
    : 'goes on: what is there is not sent again';
  return {
    document,
    summary: [
      isComplete ? done : `${title} is not wholly loaded`,
      ...loadedLines(result),
      ...receipt,
      ...useLines(result),
    ],
    ...failed,
    next: `${sameCommand(words, isComplete)}   # ${again}`,
  };
}

function addTargets(command: Command): Command {
  return command
    .option('--registry <url>', 'a registry, with a path prefix where wanted: host[:port][/prefix]', gather)
    .option('--containerd <socket>', 'the socket of a containerd', gather)
    .option('--namespace <name>', `namespace on every --containerd (default: ${DEFAULT_NAMESPACE})`, gather)
    .option('--chart-tree <dir>', 'a folder of unpacked charts', gather)
    .option('--files <dir>', 'a folder for the files', gather);
}

/** `sealift load`. */
export function addLoad(program: Command, run: RunVerb): void {
  const command = program
    .command('load')
    .summary('put a bundle into registries, containerd, a chart tree, a folder')
    .description(
      "Plans what is missing on every target, then sends only that. Nothing becomes visible before every blob arrived. Running it again goes on. Without --registry, --containerd, --chart-tree and --files it loads into the targets of the site's file; with one of these the file's targets are not used, but what it says about trust holds.",
    )
    .argument(
      '<bundle...>',
      'a bundle: file, folder, volumes, an address (https://…) or - (stdin); beside a file its base or a repair; or an OCI layout, an archive of docker save, a folder of these',
    )
    .addHelpText(
      'before',
      examples(
        'sealift load astrago.tar --dry-run                                 into all targets of site.yaml: what would be written?',
        'sealift load astrago.tar --registry nexus.local:5000 --dry-run     what would be written?',
        'sealift load astrago.tar --registry nexus.local:5000/gpu --receipt receipt.json',
        'sealift load astrago.tar --containerd /run/containerd/containerd.sock --pin',
        'sealift load https://files.local/astrago.tar --registry nexus.local:5000   only what is missing is fetched',
        "ssh store 'cat astrago.tar' | sealift load - --registry nexus.local:5000   as it comes, on no disk",
        'sealift load astrago.tar --chart-tree charts/external --files /opt/astrago --only gpu-operator bin/kubectl',
      ),
    );
  addTargets(command)
    .option('--pin', 'containerd: keep the images when kubelet cleans up')
    .option('--verify', 'read and check every byte before anything is written')
    .option('--only <name...>', 'only these images, charts or files (write the bundle before it)')
    .option('--name <name>', 'the name of the only image of an archive that another tool made')
    .addOption(
      new Option(
        '--naming <how>',
        'registry: whether names keep the source host (default: drop-host)',
      ).choices(NAMINGS),
    )
    .addOption(
      new Option(
        '--index-policy <how>',
        'registry: what it gets where only some platforms are carried (default: auto)',
      ).choices(INDEX_POLICIES),
    )
    .option('--ca-file <file>', 'registry: a PEM file with the CAs to trust')
    .option('--client-cert <file>', 'registry: a PEM file with the certificate that it asks of us')
    .option('--client-key <file>', 'registry: a PEM file with the key of --client-cert')
    .option('--insecure', 'registry: accept any certificate')
    .option('--key <key>', KEY_HELP, gather)
    .option(
      '--site <file>',
      'the policy and the targets of this site (default: site.yaml in the working folder)',
    )
    .option('--target <name>', "a target of the site's file (default: all); may be repeated", gather)
    .option('--allow-downgrade', 'load an older bundle than what the receipt or the chart tree says is there')
    .option('--force', 'replace hand-edited charts and files with other bytes')
    .option('--dry-run', 'plan only: what is there and what would be written')
    .option('--receipt <file>', 'write the receipt, a JSON document')
    .option('--json', 'the receipt as one JSON document on stdout')
    .action((given: readonly string[], flags: LoadFlags) => {
      return run(flags, async (context) => {
        const options = { ...(await optionsOf(given, flags)), ...askingOf(context) };
        const { load } = await import('../../ops/load.ts');
        return loadOutcome(await load(options, context), flags, process.argv.slice(2));
      });
    });
}
