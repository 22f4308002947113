import { resolve } from 'node:path';
import { openMedium } from '../bundle/medium.ts';
import { streamSigner } from '../bundle/stream-signature.ts';
import { type Place, placeAt, volumesAt } from '../bundle/volumes.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { SecretKey } from '../trust/secret-key.ts';
import { openKey, type SigningKey } from './keys.ts';
import { type PackOptions, type PackResult, pack } from './pack.ts';
import { type SignResult, signBundle } from './sign.ts';
import { type FoundTool, type PlacedTool, placeTools } from './tool.ts';

/** What was packed, and its signature. */
export interface SignedPack {
  readonly packed: PackResult;
  readonly signature: SignResult;
  /** Signed too. */
  readonly tools: readonly PlacedTool[];
}

/** Whether only the end of a tar is not as it must be: there signing was interrupted. */
async function isTorn(place: Place): Promise<boolean> {
  const whole = await openMedium(place);
  const isWhole = whole.kind === 'folder' || whole.faults.length === 0;
  await whole.close();
  if (isWhole) return false;
  const toSums = await openMedium(place, { toSums: true });
  const { length } = toSums.faults;
  await toSums.close();
  return length === 0;
}

/** A bundle that is there is not packed again because of a signature that was only half written. */
async function finishSigning(
  { out, volumeSize }: PackOptions,
  secret: SecretKey,
  context: Context,
): Promise<void> {
  try {
    const path = resolve(out);
    const place = volumeSize === undefined ? path : await volumesAt(path);
    if (place === undefined || !(await isTorn(place))) return;
    await signBundle(place, secret, { detached: false, volumeSize, context });
  } catch (error) {
    // Nothing, or no whole bundle: the pack sees to it.
    if (!(error instanceof SealiftError) || error.code === 'ABORTED') throw error;
  }
}

/** What goes into a stream is signed at its end. */
async function packIntoStream(
  options: PackOptions,
  secret: SecretKey,
  context: Context,
): Promise<SignedPack> {
  let [name, version] = ['', ''];
  const signer: PackOptions['signer'] = (vouched) => {
    ({ name, version } = vouched);
    return streamSigner(secret, vouched);
  };
  const packed = await pack({ ...options, signer }, context);
  const { id: keyId } = secret.public;
  const how = { keyId, at: options.out, isDetached: false, written: true };
  return { packed, signature: { path: options.out, kind: 'bundle', name, version, ...how }, tools: [] };
}

/**
 * Packs a bundle and signs it. The key is unlocked first, so that nobody waits for a password at the end, and what is
 * there and signed with this key already is left alone.
 * @throws as `pack` and `sign`
 */
export async function packSigned(
  options: PackOptions & { readonly key: SigningKey; readonly tools?: readonly FoundTool[] },
  context: Context,
): Promise<SignedPack> {
  const secret = await openKey(options.key, context);
  if (options.output !== undefined) return packIntoStream(options, secret, context);
  await finishSigning(options, secret, context);
  const packed = await pack(options, context);
  const { volumeSize } = options;
  const place = await placeAt(packed.path);
  const signature = await signBundle(place, secret, { detached: false, volumeSize, context });
  const tools = await placeTools(options.tools ?? [], { out: resolve(options.out), context, key: secret });
  return { packed, signature, tools };
}
