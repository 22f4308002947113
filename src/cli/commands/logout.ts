import type { Command } from 'commander';
import type { LogoutResult } from '../../ops/login.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { harmless } from '../words.ts';

function logoutOutcome(result: LogoutResult): Outcome {
  const { host, removed, file, helper, remaining } = result;
  const place = helper === null ? file : `docker-credential-${helper}`;
  const said = removed ? `logged out of ${host}: removed from ${place}` : `there was no login for ${host}`;
  return {
    document: { command: 'logout', ...result },
    summary: [
      harmless(said),
      ...(remaining === null ? [] : [harmless(`  a login for ${host} is still in ${remaining}`)]),
    ],
  };
}

/** `sealift logout`. */
export function addLogout(program: Command, run: RunVerb): void {
  program
    .command('logout')
    .summary('remove a login that `sealift login` or `docker login` made')
    .description(
      "Removes it from docker's configuration file and its credential helper. Without a login nothing changes.",
    )
    .argument('<host>', 'a registry: host[:port]; docker.io for Docker Hub')
    .addHelpText('before', examples('sealift logout nexus.local:5000'))
    .option('--json', 'one JSON document on stdout')
    .action((address: string, flags: { readonly json?: boolean }) => {
      return run(flags, async (context) => {
        const { logout, parseLoginHost } = await import('../../ops/login.ts');
        return logoutOutcome(await logout(parseLoginHost(address).host, context));
      });
    });
}
