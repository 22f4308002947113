import { basename } from 'node:path';
import type { Command } from 'commander';
import { EXIT, errorOf, exitCodeOf, SealiftError } from '../../core/errors.ts';
import { countsOf } from '../../lock/counts.ts';
import type { LockCheckResult, LockOptions, LockResult } from '../../ops/lock.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { diffLines, diffSummary, isEmptyDiff } from '../render-diff.ts';
import { gather, KEY_HELP } from '../trust-flags.ts';
import { contentText, harmless, shellWord } from '../words.ts';

interface LockFlags {
  readonly file: string;
  readonly lock?: string;
  readonly update?: readonly string[];
  readonly updateAll?: boolean;
  readonly foreignLayers?: boolean;
  readonly recompress?: boolean;
  readonly check?: boolean;
  readonly online?: boolean;
  readonly key?: readonly string[];
  readonly diff?: boolean;
  /** False with --no-wait. */
  readonly wait: boolean;
  readonly json?: boolean;
}

/** New entries that the summary names. */
const ADDED_SHOWN = 20;

/** The flags that name manifest and lock, where they are not the defaults. */
function placeFlags(flags: { readonly file: string; readonly lock?: string }): string {
  const file = flags.file === 'sealift.yaml' ? '' : ` -f ${shellWord(flags.file)}`;
  return `${file}${flags.lock === undefined ? '' : ` --lock ${shellWord(flags.lock)}`}`;
}

function packCommand(flags: LockFlags, of: { readonly name: string; readonly version: string }): string {
  return `sealift pack${placeFlags(flags)} -o ${shellWord(`${of.name}-${of.version}.tar`)}`;
}

function lockOutcome(result: LockResult, flags: LockFlags): Outcome {
  const { path, lock, diff, written, warnings } = result;
  const content = countsOf(lock);
  const isDry = flags.diff === true;
  const document = { command: 'lock', path, written, dryRun: isDry, content, ...diff, warnings };
  const has = `${harmless(path)}: ${contentText(content)}`;
  if (isDry) {
    const same = isEmptyDiff(diff);
    return {
      document,
      warnings,
      data: diffLines(diff),
      summary: [
        same
          ? `${has}, nothing would change`
          : 'nothing was written: this is what `sealift lock` would change',
      ],
      next: same ? packCommand(flags, lock) : `sealift lock${placeFlags(flags)}`,
    };
  }
  return {
    document,
    warnings,
    summary: written
      ? [`wrote ${has}`, ...diffSummary(diff, ADDED_SHOWN)]
      : [`${has}, all in step, nothing was written`],
    next: packCommand(flags, lock),
  };
}

/**
 * The error of a check. Who signed it decides over what it says, and what says that the check failed over what could not be
 * asked.
 */
function checkFailure({ faults, signature }: LockCheckResult, flags: LockFlags): SealiftError {
  const lockName = flags.lock === undefined ? 'versions.lock' : basename(flags.lock);
  if (signature?.state === 'refused') return errorOf(faults, `${lockName} is not trusted`, faults[0]?.code);
  const decides = faults.find((f) => exitCodeOf(f.code) === EXIT.checkSaysNo) ?? faults[0];
  const stale = faults.some((f) => f.code === 'LOCK_STALE');
  const drift = faults.some((f) => exitCodeOf(f.code) === EXIT.checkSaysNo);
  const headline = stale
    ? `${lockName} does not match ${basename(flags.file)}`
    : drift
      ? `the sources are no longer what ${lockName} says`
      : 'the sources could not all be asked';
  return errorOf(faults, headline, decides?.code ?? 'INTERNAL');
}

function checkOutcome(result: LockCheckResult, flags: LockFlags): Outcome {
  const { path, online, checked, signature, faults, warnings } = result;
  const document = {
    command: 'lock',
    check: true,
    path,
    online,
    checked,
    inStep: faults.length === 0,
    signature,
    warnings,
  };
  if (faults.length > 0) return { document, warnings, summary: [], failure: checkFailure(result, flags) };
  const sources = online ? ' and with what the sources publish now' : '';
  const signed =
    signature === null ? [] : [harmless(`  signature of the key ${signature.keyId}: good (${signature.at})`)];
  return {
    document,
    warnings,
    summary: [
      `${harmless(path)} is in step with ${harmless(flags.file)}${sources}: ${contentText(checked)}`,
      ...signed,
    ],
    next: `sealift pack${placeFlags(flags)} -o OUT.tar`,
  };
}

/** Flags that say what is checked. */
function refuseLonely(flags: LockFlags): void {
  if (flags.check === true) return;
  const lonely = flags.online === true ? '--online' : flags.key === undefined ? undefined : '--key';
  if (lonely === undefined) return;
  throw new SealiftError('USAGE', `${lonely} belongs to --check`, {
    hint: `run \`sealift lock --check ${lonely}${lonely === '--key' ? ' PUB' : ''}\``,
  });
}

/** `sealift lock`. */
export function addLock(program: Command, run: RunVerb): void {
  const command = program.command('lock').summary('resolve sealift.yaml into versions.lock');
  command
    .description(
      'Asks every source what the manifest means today and writes it down in versions.lock. Pins that hold never move by themselves.',
    )
    .addHelpText(
      'before',
      examples(
        'sealift lock                                make or complete versions.lock',
        'sealift lock --update nginx redis           move the pins of two entries, showing old → new',
        'sealift lock --diff                         what would change, without writing',
        'sealift lock --check                        for CI: exit 3 when not in step; no network',
        'sealift lock --check --online               also ask the sources whether they still publish the same',
        'sealift lock --check --key ci.pub           and versions.lock.minisig must be of this key (exit 5)',
      ),
    )
    .option('-f, --file <path>', 'the manifest', 'sealift.yaml')
    .option('--lock <path>', 'the lock (default: versions.lock beside the manifest)')
    .option('--update <name...>', 'move the pins of these images, charts, files or Python projects')
    .option('--update-all', 'move every pin')
    .option('--foreign-layers', 'carry layers that registries need not hold (Windows), where there are any')
    .option('--recompress', 'take images of docker save archives that are mirrors, with new digests')
    .option('--check', 'compare only, write nothing; exit 3 when not in step')
    .option('--online', 'with --check: ask the sources too')
    .option('--key <key>', `with --check: ${KEY_HELP}`, gather)
    .option('--diff', 'print what would change, write nothing')
    .option('--no-wait', 'fail where a registry limits pulls, instead of waiting for the limit to end')
    .option('--json', 'one JSON document on stdout');
  for (const option of command.options) {
    if (option.long === '--check') {
      option.conflicts(['diff', 'update', 'updateAll', 'foreignLayers', 'recompress']);
    }
  }
  command.action((flags: LockFlags) => {
    return run(flags, async (context) => {
      refuseLonely(flags);
      const { checkLockFile, lock } = await import('../../ops/lock.ts');
      const options: LockOptions = {
        manifestPath: flags.file,
        ...(flags.lock === undefined ? {} : { lockPath: flags.lock }),
        ...(flags.update === undefined ? {} : { update: flags.update }),
        updateAll: flags.updateAll === true,
        foreignLayers: flags.foreignLayers === true,
        recompress: flags.recompress === true,
        dryRun: flags.diff === true,
        noWait: !flags.wait,
      };
      if (flags.check !== true) return lockOutcome(await lock(options, context), flags);
      const keys = flags.key === undefined ? {} : { keys: flags.key };
      const checked = await checkLockFile({ ...options, ...keys, online: flags.online === true }, context);
      return checkOutcome(checked, flags);
    });
  });
}
