import type { Command } from 'commander';
import { examples } from '../examples.ts';
import type { RunVerb } from '../outcome.ts';
import { addSiteCheck, addSiteFix } from './site-check.ts';

/** `sealift site`, with its own commands. */
export function addSite(program: Command, run: RunVerb): void {
  const site = program
    .command('site')
    .summary('look at the targets of site.yaml, and mend them')
    .description('What concerns the targets that site.yaml names, beside loading into them.')
    .addHelpText(
      'before',
      examples(
        'sealift site check           would every target take a load?',
        'sealift site fix             images of a containerd that kubelet does not find',
      ),
    );
  addSiteCheck(site, run);
  addSiteFix(site, run);
}
