import type { Command } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import type { SignResult } from '../../ops/sign.ts';
import { examples } from '../examples.ts';
import { signingKey } from '../key-password.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { harmless, shellWord } from '../words.ts';

interface SignFlags {
  readonly key?: string;
  readonly passwordStdin?: boolean;
  readonly detached?: boolean;
  readonly json?: boolean;
}

function signOutcome(result: SignResult, given: readonly string[]): Outcome {
  const { name, version, keyId, at, isDetached, written, kind } = result;
  const where = isDetached ? `; the signature is in ${at}` : '';
  const done = written ? 'signed' : 'was signed already, nothing was written:';
  const path = given.map(shellWord).join(' ');
  const verify = `sealift verify ${kind === 'lock' ? 'BUNDLE --lock ' : ''}${path} --key NAME.pub`;
  return {
    document: { command: 'sign', ...result },
    summary: [harmless(`${done} ${given.join(' ')}: ${name} ${version}, key ${keyId}${where}`)],
    next: verify,
  };
}

function keyOf({ key }: SignFlags): string {
  if (key !== undefined && key !== '') return key;
  throw new SealiftError('USAGE', 'with which key? --key is missing', {
    hint: 'name the secret key: `sealift sign BUNDLE --key sealift.key`; `sealift keygen` makes one',
  });
}

/** `sealift sign`. */
export function addSign(program: Command, run: RunVerb): void {
  program
    .command('sign')
    .summary('sign a bundle, or a versions.lock')
    .description(
      "Writes a signature in minisign's format at the end of the bundle: all else stays as it is, and running it again changes nothing. Beside a read-only bundle, and beside a lock, it writes NAME.minisig. Contents are not read: verify the bundle before.",
    )
    .argument('<path...>', 'a bundle (file, folder, volumes), or a versions.lock')
    .addHelpText(
      'before',
      examples(
        'sealift sign astrago.tar --key sealift.key                 at the end of the bundle',
        'sealift sign astrago.tar --key sealift.key --detached      in astrago.tar.minisig beside it',
        'sealift sign versions.lock --key ci.key                    in CI: in versions.lock.minisig',
      ),
    )
    .option('--key <file>', 'the secret key, must be given')
    .option('--detached', 'leave the bundle as it is and write the signature beside it')
    .option('--password-stdin', 'read the password of the key from standard input')
    .option('--json', 'one JSON document on stdout')
    .action(([path = '', ...others]: readonly string[], flags: SignFlags) => {
      return run(flags, async (context) => {
        const key = signingKey(keyOf(flags), { passwordStdin: flags.passwordStdin === true, context });
        const { sign } = await import('../../ops/sign.ts');
        return signOutcome(await sign({ path, others, key, detached: flags.detached === true }, context), [
          path,
          ...others,
        ]);
      });
    });
}
