import type { Command } from 'commander';
import { examples } from '../examples.ts';
import type { RunVerb } from '../outcome.ts';
import { addSiteCheck, addSiteFix } from './site-check.ts';
import { addSiteInit } from './site-init.ts';

/** `sealift site`, with its own commands. */
export function addSite(program: Command, run: RunVerb): void {
  const site = program
    .command('site')
    .summary('write site.yaml, look at its targets, and mend them')
    .description('What concerns the targets that site.yaml names, beside loading into them.')
    .addHelpText(
      'before',
      examples(
        'sealift site init https://nexus.local   ask a Nexus what it has, and write site.yaml',
        'sealift site check                      would every target take a load?',
        'sealift site fix                        images of a containerd that kubelet does not find',
      ),
    );
  addSiteInit(site, run);
  addSiteCheck(site, run);
  addSiteFix(site, run);
}
