import type { Command } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import type { SiteCheckResult } from '../../ops/site-check.ts';
import type { FixedTarget, SiteFixResult } from '../../ops/site-fix.ts';
import { examples } from '../examples.ts';
import { askingOf } from '../login-asking.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { gather } from '../trust-flags.ts';
import { count, harmless, shellWord, shownWord } from '../words.ts';

interface CheckFlags {
  readonly site?: string;
  readonly target?: readonly string[];
  readonly bundle?: readonly string[];
  readonly json?: boolean;
}

interface FixFlags {
  readonly site?: string;
  readonly target?: readonly string[];
  readonly from?: readonly string[];
  readonly only?: readonly string[];
  readonly pin?: boolean;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly json?: boolean;
}

const SITE_FLAG = "the site's file (default: site.yaml in the working folder)";
const TARGET_FLAG = "a target of the site's file (default: all); may be repeated";

const choiceOf = (flags: Pick<CheckFlags, 'site' | 'target'>): object => ({
  ...(flags.site === undefined ? {} : { sitePath: flags.site }),
  ...(flags.target === undefined ? {} : { targetNames: flags.target }),
});

/** `warning`, the longest, and a space. */
const LEVEL_WIDTH = 8;

function targetLines({ name, type, at, findings }: SiteCheckResult['targets'][number]): string[] {
  const lines = findings.flatMap(({ level, code, message, fix }) => [
    harmless(`  ${level.padEnd(LEVEL_WIDTH)}${code}: ${message}`),
    ...(fix === undefined || level === 'ok' ? [] : [harmless(`  ${' '.repeat(LEVEL_WIDTH)}fix: ${fix}`)]),
  ]);
  return [harmless(`${name} (${type} ${at})`), ...lines];
}

async function checkOutcome(result: SiteCheckResult, flags: CheckFlags): Promise<Outcome> {
  const { siteFailure } = await import('../../ops/site-check.ts');
  const failure = siteFailure(result);
  const { fault, warning, info, ok } = result.counts;
  const totals = `${count(result.targets.length, 'target')}: ${count(fault, 'fault')}, ${count(warning, 'warning')}, ${info} to know, ${ok} ok; nothing was changed`;
  const document = { command: 'site check', ok: failure === undefined, ...result };
  const data = result.targets.flatMap(targetLines);
  if (failure !== undefined) return { document, data, summary: [totals], failure };
  const bundle = flags.bundle?.map(shownWord).join(' ') ?? 'BUNDLE';
  const site = flags.site === undefined ? '' : ` --site ${shellWord(flags.site)}`;
  return { document, data, summary: [totals], next: `sealift load ${bundle}${site} --dry-run` };
}

/** `sealift site check`, below `site`. */
export function addSiteCheck(site: Command, run: RunVerb): void {
  site
    .command('check')
    .summary('prove that every target would take a load, without changing anything')
    .description(
      'Asks every target of site.yaml whether a load would work: reachable, logged in, writable, with the settings and the space. Each finding says what to do. Nothing is changed; what only a write could prove is told as not known. Exit 3 when a target would not take a load, 4 when only a login lacks.',
    )
    .addHelpText(
      'before',
      examples(
        'sealift site check                             all targets of site.yaml',
        'sealift site check --target node --json        one of them, for a program',
        'sealift site check --bundle astrago.tar        and whether it would fit',
      ),
    )
    .option('--site <file>', SITE_FLAG)
    .option('--target <name>', TARGET_FLAG, gather)
    .option(
      '--bundle <bundle>',
      'what will be loaded: plan it, and compare it with the space; may be repeated (a delta and its base)',
      gather,
    )
    .option('--json', 'one JSON document on stdout')
    .action((flags: CheckFlags) => {
      return run(flags, async (context) => {
        const { siteCheck } = await import('../../ops/site-check.ts');
        const [bundle, ...others] = flags.bundle ?? [];
        const planned = bundle === undefined ? {} : { bundle, others };
        const options = { ...choiceOf(flags), ...planned, ...askingOf(context) };
        return await checkOutcome(await siteCheck(options, context), flags);
      });
    });
}

function fixedLines({ name, namespace, copies, pins }: FixedTarget, dryRun: boolean): string[] {
  const words = { copy: 'would copy', copied: 'copied', taken: 'kept', failed: 'failed' } as const;
  const copied = copies.map(({ name: image, from, state, fault }) => {
    const why =
      fault !== null ? `: ${fault.message}` : state === 'taken' ? ': another image has this name' : '';
    return `  ${words[state]}  ${image}  (from ${from.namespace}${from.said === image ? '' : `, ${from.said}`})${why}`;
  });
  const pinned = pins.map(({ name: image, fault }) =>
    fault === null
      ? `  ${dryRun ? 'would pin' : 'pinned'}  ${image}`
      : `  failed  ${image}: ${fault.message}`,
  );
  const nothing = copied.length + pinned.length === 0 ? ['  nothing to do'] : [];
  return [`${name} (${namespace})`, ...copied, ...pinned, ...nothing].map(harmless);
}

function fixOutcome(result: SiteFixResult, flags: FixFlags): Outcome {
  const { targets, dryRun, failed } = result;
  const copies = targets.flatMap((t) => t.copies).filter((c) => c.state === 'copy' || c.state === 'copied');
  const pins = targets.flatMap((t) => t.pins).filter((p) => p.state !== 'failed');
  const will = dryRun ? 'would be ' : '';
  const summary = [
    `${count(copies.length, 'image')} ${will}copied, ${count(pins.length, 'record')} ${will}pinned${dryRun ? '; nothing was changed' : ''}`,
  ];
  const document = { command: 'site fix', ok: failed === 0, ...result };
  const data = targets.flatMap((t) => fixedLines(t, dryRun));
  const failures = targets.flatMap((t) => [...t.copies, ...t.pins]).flatMap(({ fault }) => fault ?? []);
  if (failed > 0) {
    const hint = failures[0]?.hint;
    const message = `${count(failed, 'image')} could not be shown to kubelet`;
    const failure = new SealiftError('TARGET_FAILED', message, {
      faults: failures,
      ...(hint === undefined ? {} : { hint }),
    });
    return { document, data, summary, failure };
  }
  if (!dryRun || copies.length + pins.length === 0) return { document, data, summary };
  const words = [
    ...(flags.site === undefined ? [] : ['--site', flags.site]),
    ...(flags.target ?? []).flatMap((t) => ['--target', t]),
    ...(flags.from ?? []).flatMap((t) => ['--from', t]),
    ...(flags.only ?? []).flatMap((t) => ['--only', t]),
    ...(flags.pin === true ? ['--pin'] : []),
  ];
  return { document, data, summary, next: ['sealift site fix', ...words.map(shellWord), '--yes'].join(' ') };
}

/** `sealift site fix`, below `site`. */
export function addSiteFix(site: Command, run: RunVerb): void {
  site
    .command('fix')
    .summary('show kubelet the images of a containerd that lie where it does not look')
    .description(
      'For each containerd of site.yaml: images in other namespaces, or under short names, get a record under their full name in the right one. Content is not moved: containerd keeps it once. Nothing is removed. Without --yes it only says what it would do.',
    )
    .addHelpText(
      'before',
      examples(
        'sealift site fix                      what would be done?',
        'sealift site fix --yes                do it',
        'sealift site fix --pin --yes          and keep all images from kubelet’s clean-up',
      ),
    )
    .option('--site <file>', SITE_FLAG)
    .option('--target <name>', TARGET_FLAG, gather)
    .option('--from <namespace>', 'look there (default: default and moby); may be repeated', gather)
    .option('--only <image>', 'only this image; may be repeated', gather)
    .option('--pin', 'pin the copied images and those that are there, so that kubelet never deletes them')
    .option('--dry-run', 'only say what would be done (as without --yes)')
    .option('--yes', 'do it')
    .option('--json', 'one JSON document on stdout')
    .action((flags: FixFlags) => {
      return run(flags, async (context) => {
        if (flags.yes === true && flags.dryRun === true) {
          throw new SealiftError('USAGE', '--yes and --dry-run contradict each other');
        }
        const { siteFix } = await import('../../ops/site-fix.ts');
        const lists = {
          ...(flags.from === undefined ? {} : { from: flags.from }),
          ...(flags.only === undefined ? {} : { only: flags.only }),
        };
        const options = { ...choiceOf(flags), ...lists, pin: flags.pin === true, dryRun: flags.yes !== true };
        return fixOutcome(await siteFix(options, context), flags);
      });
    });
}
