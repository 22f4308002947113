import type { Command } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import type { KeygenResult } from '../../ops/keys.ts';
import { examples } from '../examples.ts';
import { keyPassword } from '../key-password.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { harmless, shellWord } from '../words.ts';

interface KeygenFlags {
  readonly output: string;
  /** False with --no-password. */
  readonly password: boolean;
  readonly passwordStdin?: boolean;
  readonly json?: boolean;
}

function keygenOutcome(result: KeygenResult): Outcome {
  const { secretPath, publicPath, keyId, publicKey, isEncrypted } = result;
  const kind = isEncrypted ? 'with a password' : 'WITHOUT a password: whoever reads it can sign';
  return {
    document: { command: 'keygen', ...result },
    summary: [
      `made the key ${keyId}`,
      harmless(`  secret: ${secretPath} (${kind})`),
      harmless(`  public: ${publicPath}, for everybody who verifies: ${publicKey}`),
    ],
    next: `sealift sign BUNDLE --key ${shellWord(secretPath)}`,
  };
}

/** `sealift keygen`. */
export function addKeygen(program: Command, run: RunVerb): void {
  program
    .command('keygen')
    .summary('make a key that signs bundles')
    .description(
      "Makes NAME.key and NAME.pub in minisign's formats; neither is ever overwritten. The password is typed unseen, or comes from SEALIFT_KEY_PASSWORD or standard input. It costs 1 GiB of memory and some seconds, as minisign's own does.",
    )
    .addHelpText(
      'before',
      examples(
        'sealift keygen                          sealift.key and sealift.pub, asks for a password',
        'sealift keygen -o ci --no-password      for a machine that keeps the file itself safe',
      ),
    )
    .option('-o, --output <name>', 'the files are NAME.key and NAME.pub', 'sealift')
    .option('--no-password', 'do not encrypt the secret key')
    .option('--password-stdin', 'read the password from standard input')
    .option('--json', 'one JSON document on stdout')
    .action((flags: KeygenFlags) => {
      return run(flags, async (context) => {
        if (!flags.password && flags.passwordStdin === true) {
          throw new SealiftError('USAGE', '--no-password and --password-stdin cannot be used together');
        }
        const { keygen } = await import('../../ops/keys.ts');
        const asking = {
          passwordStdin: flags.passwordStdin === true,
          isNew: true,
          signal: context.signal,
          env: context.env,
          input: process.stdin,
          output: process.stderr,
        };
        const password = flags.password ? keyPassword(asking) : undefined;
        return keygenOutcome(await keygen({ out: flags.output, password }, context));
      });
    });
}
