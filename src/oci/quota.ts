import { isAbort, SealiftError } from '../core/errors.ts';
import { MANIFEST_ACCEPT } from '../core/media.ts';
import { type Quota, quotaOf } from '../io/rate-limit.ts';
import type { RegistryWire } from './wire.ts';

/**
 * What a registry tells about its limit on pulls, by a HEAD of a manifest, which is not counted (registry.md 1.3);
 * undefined when it tells nothing or does not answer: who asks in earnest will hear why. @throws ABORTED
 */
export async function askQuota(
  wire: RegistryWire,
  manifest: { readonly repository: string; readonly reference: string },
): Promise<Quota | undefined> {
  const { repository, reference } = manifest;
  const url = wire.url(`/v2/${repository}/manifests/${reference}`);
  const headers = { accept: MANIFEST_ACCEPT };
  try {
    const ask = { method: 'HEAD', url, headers, tries: 1 } as const;
    const head = await wire.send(ask, { repository, access: 'pull' });
    await head.body.dump();
    return quotaOf(head.headers);
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    return undefined;
  }
}
