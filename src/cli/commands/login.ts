import type { Command } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import type { LoginResult } from '../../ops/login.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { readLogin } from '../password.ts';
import { harmless } from '../words.ts';

interface LoginFlags {
  readonly username?: string;
  readonly passwordStdin?: boolean;
  readonly plainHttp?: boolean;
  readonly caFile?: string;
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly insecure?: boolean;
  readonly json?: boolean;
}

function loginOutcome(result: LoginResult): Outcome {
  const { warnings, ...facts } = result;
  const { host, username, file, helper, checked } = facts;
  const place = helper === null ? file : `docker-credential-${helper}`;
  const unchecked = `  ${host} lets everybody in: it did not say whether the password is right`;
  return {
    document: { command: 'login', ...facts, warnings },
    summary: [
      harmless(`logged in to ${host} as ${username}; the login is in ${place}`),
      ...(checked ? [] : [harmless(unchecked)]),
    ],
    warnings,
  };
}

/** `sealift login`. */
export function addLogin(program: Command, run: RunVerb): void {
  program
    .command('login')
    .summary('check a login to a registry and keep it where docker keeps it')
    .description(
      'Asks the registry first; a refused login is not kept. The password is typed unseen or comes from standard input, never from the command line.',
    )
    .argument('<host>', 'a registry: host[:port]; docker.io for Docker Hub')
    .addHelpText(
      'before',
      examples(
        'sealift login nexus.local:5000 -u admin                            asks for the password',
        'sealift login docker.io -u me --password-stdin < token.txt         for scripts',
        'sealift login http://10.0.0.1:5000 -u admin                        a registry without TLS',
      ),
    )
    .option('-u, --username <name>', 'user name')
    .option('--password-stdin', 'read the password from standard input')
    .option('--plain-http', 'the registry has no TLS (as http:// before the host)')
    .option('--ca-file <file>', 'a PEM file with the CAs to trust')
    .option('--client-cert <file>', 'a PEM file with the certificate that it asks of us')
    .option('--client-key <file>', 'a PEM file with the key of --client-cert')
    .option('--insecure', 'accept any certificate')
    .option('--json', 'one JSON document on stdout')
    .action((address: string, flags: LoginFlags) => {
      return run(flags, async (context) => {
        const { login, parseLoginHost } = await import('../../ops/login.ts');
        const { host, config } = parseLoginHost(address);
        if (flags.plainHttp === true && config.plainHttp === false) {
          throw new SealiftError('USAGE', '--plain-http and https:// contradict each other');
        }
        const { signal } = context;
        const person = await readLogin(flags, { input: process.stdin, output: process.stderr, signal });
        const tls = {
          ...(flags.plainHttp === true ? { plainHttp: true } : {}),
          ...(flags.caFile === undefined ? {} : { caFile: flags.caFile }),
          ...(flags.clientCert === undefined ? {} : { clientCert: flags.clientCert }),
          ...(flags.clientKey === undefined ? {} : { clientKey: flags.clientKey }),
          ...(flags.insecure === true ? { insecure: true } : {}),
        };
        return loginOutcome(await login({ host, ...person, config: { ...config, ...tls } }, context));
      });
    });
}
