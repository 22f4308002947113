import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { PackOptions, PackResult } from '../ops/pack.ts';
import type { SignResult } from '../ops/sign.ts';
import type { FoundTool, PlacedTool } from '../ops/tool.ts';
import { signingKey } from './key-password.ts';
import type { Outcome } from './outcome.ts';
import { harmless } from './words.ts';

/** The flags of a pack that signs. */
export interface SignatureFlags {
  readonly sign?: string;
  readonly passwordStdin?: boolean;
}

/** What came of a pack and of all that goes with it. */
export interface Packed {
  readonly result: PackResult;
  readonly signature: SignResult | null;
  /** Null where none is wanted. */
  readonly tools: readonly PlacedTool[] | null;
}

/** Somebody who brings a password wants a signature. @throws USAGE */
function refuseLonelyPassword({ passwordStdin }: SignatureFlags): void {
  if (passwordStdin !== true) return;
  throw new SealiftError('USAGE', '--password-stdin means nothing without --sign', {
    hint: 'name the key that signs with --sign KEY, or leave it out',
  });
}

/** What packs, puts the tool beside the bundle, and with --sign signs both. */
export async function packerOf(
  flags: SignatureFlags,
  context: Context,
): Promise<(options: PackOptions, tools: readonly FoundTool[] | null) => Promise<Packed>> {
  if (flags.sign === undefined) {
    refuseLonelyPassword(flags);
    const { pack } = await import('../ops/pack.ts');
    const { placeTools } = await import('../ops/tool.ts');
    return async (options, found) => {
      const result = await pack(options, context);
      const tools = found === null ? null : await placeTools(found, { out: options.out, context });
      return { result, signature: null, tools };
    };
  }
  const key = signingKey(flags.sign, { passwordStdin: flags.passwordStdin === true, context });
  const { packSigned } = await import('../ops/pack-signed.ts');
  return async (options, found) => {
    const { packed, signature, tools } = await packSigned({ ...options, key, tools: found ?? [] }, context);
    return { result: packed, signature, tools: found === null ? null : tools };
  };
}

/** An outcome that also says what was signed. */
export function withSignature(outcome: Outcome, signature: SignResult | null): Outcome {
  const document = { ...outcome.document, signature };
  if (signature === null) return { ...outcome, document };
  const { keyId, at, isDetached, written } = signature;
  const where = isDetached ? `; the signature is in ${at}` : '';
  const line = `  ${written ? 'signed' : 'was signed already'} with the key ${keyId}${where}`;
  return { ...outcome, document, summary: [...outcome.summary, harmless(line)] };
}
