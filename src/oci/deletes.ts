import { errorText } from '../io/http.ts';
import type { RegistryWire } from './wire.ts';

/** Statuses of a registry that does not delete at all, or not by tag (distribution-spec "Deleting tags"). */
const UNSUPPORTED = new Set([400, 405, 501]);

/**
 * Deletes a tag, or a manifest by its digest (distribution-spec "Content Management"). Deleting by digest takes every tag
 * of it along.
 * @returns `absent`: there was none; `unsupported`: this registry does not do that
 * @throws AUTH_REQUIRED, AUTH_DENIED, REGISTRY_FAILED, NETWORK_FAILED …
 */
export async function deleteManifest(
  wire: RegistryWire,
  { repository, reference }: { readonly repository: string; readonly reference: string },
): Promise<'deleted' | 'absent' | 'unsupported'> {
  const url = wire.url(`/v2/${repository}/manifests/${reference}`);
  const response = await wire.send({ method: 'DELETE', url }, { repository, access: 'delete' });
  if (response.status === 404) {
    await response.body.dump();
    return 'absent';
  }
  if (UNSUPPORTED.has(response.status)) {
    await errorText(response);
    return 'unsupported';
  }
  if (response.status < 200 || response.status > 299) {
    throw await wire.fail(response, `${repository} manifest ${reference}`, 'destination');
  }
  await response.body.dump();
  return 'deleted';
}
