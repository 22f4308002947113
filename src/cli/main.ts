import { readFileSync } from 'node:fs';
import { Command, CommanderError, Option } from 'commander';
import { EXIT, SealiftError } from '../core/errors.ts';
import { addDiff } from './commands/diff.ts';
import { addKeygen } from './commands/keygen.ts';
import { addLoad } from './commands/load.ts';
import { addLock } from './commands/lock.ts';
import { addLogin } from './commands/login.ts';
import { addLogout } from './commands/logout.ts';
import { addLs } from './commands/ls.ts';
import { addMerge } from './commands/merge.ts';
import { addPack } from './commands/pack.ts';
import { addPull } from './commands/pull.ts';
import { addPush } from './commands/push.ts';
import { addServe } from './commands/serve.ts';
import { addSign } from './commands/sign.ts';
import { addSite } from './commands/site.ts';
import { addUnload } from './commands/unload.ts';
import { addVerify } from './commands/verify.ts';
import { examples } from './examples.ts';
import type { RunVerb } from './outcome.ts';
import { PROGRESS_MODES, type ProgressMode } from './progress.ts';
import { shownError } from './render-error.ts';
import { runVerb, sayFailure } from './run.ts';

/** The version in package.json, which lies beside `dist/`. */
function readVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const { version }: { readonly version?: unknown } = JSON.parse(text);
  return typeof version === 'string' ? version : 'unknown';
}

interface GlobalFlags {
  readonly progress: ProgressMode;
  readonly color: boolean;
}

const EXIT_CODES = `
Exit codes:
  0 done    1 failed    2 bad usage or manifest    3 a check says no (lock stale, difference found)
  4 authentication    5 integrity, signature or policy    130 interrupted

Secrets come from the files of docker login and podman login (sealift login writes docker's), from the environment
(SEALIFT_CREDENTIALS_<HOST>_USERNAME and _PASSWORD) or from standard input, never from a flag.`;

/** All commands. `finish` is told the exit code of the verb that ran. */
function createProgram(finish: (exitCode: number) => void): Command {
  const program = new Command('sealift')
    .description(
      'Packs images, charts and files into one verified bundle, and loads it where there is no network.',
    )
    .version(readVersion(), '--version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .helpCommand('help [command]', 'show the help of a command')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: () => {} })
    .addHelpText(
      'before',
      examples(
        'sealift lock                                            resolve sealift.yaml into versions.lock',
        'sealift pack -o astrago.tar                             download everything into one file',
        'sealift verify astrago.tar                              check it after the journey',
        'sealift load astrago.tar --registry nexus.local:5000    put it where it is needed',
      ),
    )
    .addHelpText('after', EXIT_CODES)
    .addOption(
      new Option('--progress <mode>', 'how progress is shown on stderr')
        .choices(PROGRESS_MODES)
        .default('auto'),
    )
    .option('--no-color', 'no colours (also with NO_COLOR)')
    .exitOverride();
  const run: RunVerb = async (flags, verb) => {
    const { progress, color } = program.opts<GlobalFlags>();
    finish(await runVerb({ progress, color, json: flags.json === true }, verb));
  };
  const verbs = [addLock, addPack, addVerify, addLs, addMerge, addDiff, addLoad, addServe];
  for (const add of [...verbs, addUnload, addSite, addPush, addPull, addKeygen, addSign, addLogin, addLogout])
    add(program, run);
  return program;
}

/** What commander found wrong with the command line, as an error of ours. */
function usageError(error: CommanderError, argv: readonly string[]): SealiftError {
  const [first = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
  const suggestion = /\((?:Did you mean )(.+)\?\)/.exec(rest.join(' '))?.[1];
  const verb = argv.slice(2).find((word) => !word.startsWith('-'));
  const known = [
    'lock',
    'pack',
    'verify',
    'ls',
    'merge',
    'diff',
    'load',
    'unload',
    'serve',
    'push',
    'pull',
    'keygen',
    'sign',
    'site',
    'login',
    'logout',
  ].find((name) => name === verb);
  const help = `\`sealift${known === undefined ? '' : ` ${known}`} --help\` shows how it is used`;
  const hint = suggestion === undefined ? help : `did you mean ${suggestion}? ${help}`;
  return new SealiftError('USAGE', first, { hint });
}

/** A reader that went away (`sealift ls b.tar | head`) ends the output, not the work. */
function ignoreBrokenPipes(): void {
  const ignore = (error: NodeJS.ErrnoException): void => {
    if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED') throw error;
  };
  for (const stream of [process.stdout, process.stderr]) {
    if (stream.listenerCount('error', ignore) === 0) stream.on('error', ignore);
  }
}

/**
 * The program. Never throws.
 * @param argv as `process.argv`: node, script, words
 * @returns the exit code
 */
export async function main(argv: readonly string[]): Promise<number> {
  ignoreBrokenPipes();
  let exitCode: number = EXIT.done;
  const program = createProgram((code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(argv);
    return exitCode;
  } catch (error) {
    // Whether --json was meant is asked of the words themselves: the command that knows it may never have been found.
    const { progress, color } = program.opts<GlobalFlags>();
    const voice = { progress, color, json: argv.includes('--json') };
    if (!(error instanceof CommanderError)) return sayFailure(shownError(error, false), voice);
    if (error.exitCode === 0) return EXIT.done;
    // The help that stands in for a missing command is bad usage; the help that was asked for is not.
    if (error.code === 'commander.help') return EXIT.usage;
    return sayFailure(usageError(error, argv), voice);
  }
}
