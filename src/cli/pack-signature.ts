import type { Context } from '../core/events.ts';
import type { PackOptions, PackResult } from '../ops/pack.ts';
import type { SignResult } from '../ops/sign.ts';
import { signingKey } from './key-password.ts';
import type { Outcome } from './outcome.ts';
import { harmless } from './words.ts';

/** The flags of a pack that signs. */
export interface SignatureFlags {
  readonly sign?: string;
  readonly passwordStdin?: boolean;
}

/** Packs, and with --sign signs; `signature` tells afterwards what was signed. */
export async function packerOf(
  flags: SignatureFlags,
  context: Context,
): Promise<{
  readonly pack: (options: PackOptions, context: Context) => Promise<PackResult>;
  readonly signature: () => SignResult | null;
}> {
  if (flags.sign === undefined) return { ...(await import('../ops/pack.ts')), signature: () => null };
  const key = signingKey(flags.sign, { passwordStdin: flags.passwordStdin === true, context });
  const { packSigned } = await import('../ops/pack-signed.ts');
  let signature: SignResult | null = null;
  return {
    pack: async (options, own) => {
      const done = await packSigned({ ...options, key }, own);
      signature = done.signature;
      return done.packed;
    },
    signature: () => signature,
  };
}

/** An outcome that also says what was signed. */
export function withSignature(outcome: Outcome, signature: SignResult | null): Outcome {
  const document = { ...outcome.document, signature };
  if (signature === null) return { ...outcome, document };
  const { keyId, at, isDetached, written } = signature;
  const where = isDetached ? `, beside it in ${at}` : '';
  const line = `  ${written ? 'signed' : 'was signed already'} with the key ${keyId}${where}`;
  return { ...outcome, document, summary: [...outcome.summary, harmless(line)] };
}
