import { isDigest } from '../core/digest.ts';
import { isAbort, SealiftError } from '../core/errors.ts';
import { MANIFEST_ACCEPT } from '../core/media.ts';
import type { HttpResponse } from '../io/http.ts';
import type { RegistryWire } from './wire.ts';

/** Where a manifest is. */
export interface ManifestPlace {
  readonly repository: string;
  /** Tag or digest. */
  readonly reference: string;
}

/**
 * Questions for manifests by HEAD, which no registry counts as a pull. That of some registries lies (old Nexus,
 * registry.md 1.3), so "404" is believed only where a HEAD finds something that is there for sure.
 */
export class ManifestHeads {
  readonly #wire: RegistryWire;
  #known: ManifestPlace | undefined;
  #isHonest: Promise<boolean> | undefined;
  /** HEAD of a manifest by its digest fails here, as on Nexus 3.96 (nexus-public #1059): nobody asks so again. */
  #failsByDigest = false;

  constructor(wire: RegistryWire) {
    this.#wire = wire;
  }

  /** Notes a manifest that is there for sure, because it was read or put. */
  saw(place: ManifestPlace): void {
    this.#known ??= place;
  }

  /**
   * Asks for a manifest.
   * @param options.untried whether "404" is believed while nothing is known to be there that a HEAD could be tried on
   * @returns the headers of a good answer; 'absent' when there is none; undefined when only GET can tell
   * @throws AUTH_REQUIRED, AUTH_DENIED, NETWORK_FAILED, ABORTED
   */
  async ask(
    place: ManifestPlace,
    options: { readonly untried: boolean },
  ): Promise<HttpResponse['headers'] | 'absent' | undefined> {
    const byDigest = isDigest(place.reference);
    if (byDigest && this.#failsByDigest) return undefined;
    const head = await this.#send(place);
    const { status, headers } = head;
    if (byDigest && status === 500) this.#failsByDigest = true;
    if (status === 200) {
      const stated = headers['docker-content-digest'];
      if (stated !== undefined && isDigest(stated)) this.#isHonest = Promise.resolve(true);
      return headers;
    }
    if (status === 401 || status === 403) {
      const what = `${place.repository}:${place.reference}`;
      throw await this.#wire.fail(head, what, 'source');
    }
    return status === 404 && (await this.#believed(options.untried)) ? 'absent' : undefined;
  }

  async #send({ repository, reference }: ManifestPlace): Promise<HttpResponse> {
    const url = this.#wire.url(`/v2/${repository}/manifests/${reference}`);
    const ask = { method: 'HEAD', url, headers: { accept: MANIFEST_ACCEPT }, tries: 2 } as const;
    const head = await this.#wire.send(ask, { repository, access: 'pull' });
    await head.body.dump();
    return head;
  }

  async #believed(untried: boolean): Promise<boolean> {
    if (this.#known !== undefined) this.#isHonest ??= this.#finds(this.#known);
    return (await this.#isHonest) ?? untried;
  }

  async #finds(known: ManifestPlace): Promise<boolean> {
    try {
      return (await this.#send(known)).status === 200;
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError)) throw error;
      this.#isHonest = undefined;
      return false;
    }
  }
}
