import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { Naming } from '../core/naming.ts';
import { isHost, isRepository } from '../core/reference.ts';
import type { HttpClient } from '../io/http.ts';
import type { CredentialSource } from '../oci/credentials.ts';
import { type HostConfig, Registry } from '../oci/registry.ts';
import { type RegistryTargetOptions, registryTarget } from '../target/registry.ts';
import type { IndexPolicy } from '../target/registry-shapes.ts';
import type { Target } from '../target/target.ts';

/** A registry to load into. */
export interface RegistryPlace
  extends Pick<RegistryTargetOptions, 'onConflict' | 'movesLatest' | 'parallel' | 'writable'> {
  readonly host: string;
  /** Path below which everything is put; '' for none. */
  readonly prefix: string;
  readonly config: HostConfig;
  readonly naming: Naming;
  readonly indexPolicy: IndexPolicy;
}

/**
 * Reads `[http://|https://|oci://]host[:port][/prefix]`. `http://` means plain HTTP; without a scheme loopback hosts
 * are plain and all others are not.
 * @throws USAGE, also for a user name or password inside: those come from docker's configuration
 */
export function parseRegistryUrl(text: string): Pick<RegistryPlace, 'host' | 'prefix' | 'config'> {
  const [, scheme, rest = ''] = /^(?:(https?|oci):\/\/)?(.*)$/.exec(text) ?? [];
  if (rest.includes('@')) {
    throw new SealiftError('USAGE', '--registry: no user name or password in the address', {
      hint: 'log in with `sealift login HOST` (or docker, podman): their files are read',
    });
  }
  const slash = rest.indexOf('/');
  const host = slash < 0 ? rest : rest.slice(0, slash);
  const prefix = slash < 0 ? '' : rest.slice(slash + 1).replace(/\/+$/, '');
  if (!isHost(host) || (prefix !== '' && !isRepository(prefix))) {
    throw new SealiftError('USAGE', `--registry: "${text.slice(0, 200)}" is not an address of a registry`, {
      hint: 'write host[:port][/prefix], for example nexus.local:5000 or http://10.0.0.1:5000/gpu',
    });
  }
  const config = scheme === 'http' ? { plainHttp: true } : scheme === 'https' ? { plainHttp: false } : {};
  return { host, prefix, config };
}

/** The target of a registry place. */
export function registryTargetOf(
  place: RegistryPlace,
  tools: {
    readonly http: HttpClient;
    readonly context: Context;
    /** Default: those of the environment and the credential files. */
    readonly credentials?: CredentialSource;
  },
): Target {
  const { http, context, credentials } = tools;
  const logins = credentials === undefined ? {} : { credentials };
  const { host, config, ...how } = place;
  const registry = new Registry(host, { http, context, config, ...logins });
  return registryTarget({ registry, ...how });
}
