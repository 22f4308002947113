import { resolve } from 'node:path';
import { streamSigner } from '../bundle/stream-signature.ts';
import { volumesAt } from '../bundle/volumes.ts';
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
  // A signature that was only half written is no reason to pack again.
  const packed = await pack({ ...options, toSums: true }, context);
  const { volumeSize } = options;
  // A file of that name may lie beside the volumes.
  const volumes = volumeSize === undefined ? undefined : await volumesAt(packed.path);
  const how = { detached: false, volumeSize, lock: packed.lock, context };
  const signature = await signBundle(volumes ?? packed.path, secret, how);
  const tools = await placeTools(options.tools ?? [], { out: resolve(options.out), context, key: secret });
  return { packed, signature, tools };
}
