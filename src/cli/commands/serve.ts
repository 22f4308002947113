import type { Command } from 'commander';
import { EXIT, SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { ServeOptions, ServeResult, Serving } from '../../ops/serve.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { gather, KEY_HELP, SITE_HELP, trustOf } from '../trust-flags.ts';
import { bytesText, contentText, count, harmless } from '../words.ts';

interface ServeFlags {
  readonly listen: string;
  readonly tls?: readonly string[];
  readonly auth?: string;
  readonly accessLog?: string;
  readonly key?: readonly string[];
  readonly site?: string;
  readonly json?: boolean;
}

/** Standard error, for which nobody waits: a terminal that is paused (Ctrl-S) would otherwise stop the server. */
function standardError(): NonNullable<ServeOptions['accessLog']> {
  const { stderr } = process;
  if (stderr.isTTY) return { fd: stderr.fd };
  return (line) => {
    const isTaken = stderr.writableLength <= LIMITS.logWaiting;
    if (isTaken) stderr.write(`${line}\n`);
    return isTaken;
  };
}

/** Bundles and options: what stands behind the two files of `--tls` are bundles, too. @throws USAGE */
function optionsOf(words: readonly string[], flags: ServeFlags): ServeOptions {
  const { listen, tls, auth, accessLog } = flags;
  const [cert, key, ...more] = tls ?? [];
  if (tls !== undefined && (cert === undefined || key === undefined)) {
    throw new SealiftError('USAGE', '--tls: the certificate and its key are two files', {
      hint: 'write --tls server.crt server.key',
    });
  }
  const bundles = [...words, ...more];
  if (bundles.length === 0) {
    throw new SealiftError('USAGE', 'no bundle is named', { hint: 'write `sealift serve BUNDLE`' });
  }
  return {
    bundles,
    listen,
    ...(cert === undefined || key === undefined ? {} : { tls: { cert, key } }),
    ...(auth === undefined ? {} : { authFile: auth }),
    ...trustOf(flags),
    accessLog: accessLog ?? standardError(),
  };
}

/** What a person reads at the start. */
function startLines(serving: Serving): string {
  const names = serving.bundles.map(({ name, version }) => `${name} ${version}`).join(', ');
  const head = `${harmless(names)}: ${contentText(serving)} at ${serving.url} (read only; Ctrl-C ends it)`;
  const lines = serving.text.split('\n').map(harmless).join('\n');
  return `${head}\n\n${lines}\n`;
}

function serveOutcome(result: ServeResult): Outcome {
  const { requests, clients, bytes, refused, failed, cut, logLinesLost } = result;
  const more = [
    ...(refused > 0 ? [`${refused} refused`] : []),
    ...(failed > 0 ? [`${failed} failed`] : []),
    ...(cut > 0 ? [`${count(cut, 'answer')} cut off at the end`] : []),
    ...(logLinesLost > 0 ? [`${count(logLinesLost, 'log line')} lost`] : []),
  ];
  const served = `served ${count(requests, 'request')} of ${count(clients, 'client')}, ${bytesText(bytes)}`;
  return {
    document: { command: 'serve', ...result },
    summary: [[served, ...more].join('; ')],
    exitCode: cut > 0 ? EXIT.interrupted : EXIT.done,
  };
}

/** `sealift serve`. */
export function addServe(program: Command, run: RunVerb): void {
  program
    .command('serve')
    .summary('serve a bundle in place: registry, charts, Python packages, files')
    .description(
      'Serves bundles read only, straight from where they lie, until Ctrl-C: an OCI registry, a chart repository (/charts), a Python index (/simple) and a tree of files (/files). Prints what each client must be told.',
    )
    .argument('[bundle...]', 'bundles: files, first volumes or folders; what is in any of them is served')
    .addHelpText(
      'before',
      examples(
        'sealift serve astrago.tar                                      for this machine',
        'sealift serve astrago.tar --listen :5000 --tls s.crt s.key     for the network',
        'sealift serve base.tar delta.tar --auth users.htpasswd         several bundles, with logins',
      ),
    )
    .option(
      '--listen <host:port>',
      'where to listen; :5000 is every network, port 0 any free port',
      '127.0.0.1:5000',
    )
    .option('--tls <file...>', 'two files: the certificate (with its chain) and its key, PEM')
    .option('--auth <file>', 'who may read: a file of `htpasswd -B`')
    .option('--access-log <file>', 'add a line of JSON for each request to this file (default: stderr)')
    .option('--key <key>', KEY_HELP, gather)
    .option('--site <file>', SITE_HELP)
    .option('--json', 'one JSON document on stdout at the end')
    .action((words: readonly string[], flags: ServeFlags) => {
      return run(flags, async (context) => {
        const { serve } = await import('../../ops/serve.ts');
        const serving = await serve(optionsOf(words, flags), context);
        if (flags.json !== true) process.stdout.write(startLines(serving));
        else context.emit({ type: 'note', message: `serving at ${serving.url}` });
        return serveOutcome(await serving.ended);
      });
    });
}
