import type { Context } from '../core/events.ts';
import type { HttpClient } from '../io/http.ts';
import type { CredentialSource } from '../oci/credentials.ts';
import { pipSettings } from '../python/pip-conf.ts';
import { type AskLogin, siteCredentials } from '../site/credentials.ts';
import type { DevpiSite, NexusSite, RegistrySite, SiteTarget } from '../site/load.ts';
import { WebServer } from '../target/web/server.ts';

export interface SiteTools {
  readonly http: HttpClient;
  readonly context: Context;
  /** Asks a person for a login; absent where nobody can be asked. */
  readonly ask?: AskLogin;
}

/** Every address of a target: they share its logins. */
export function addressesOf(site: NexusSite | RegistrySite | DevpiSite): URL[] {
  return site.type === 'nexus' && site.docker !== undefined ? [site.url, site.docker.url] : [site.url];
}

/** The logins of a target (`siteCredentials`). */
export function credentialsOf(
  site: NexusSite | RegistrySite | DevpiSite,
  { context, ask }: SiteTools,
): CredentialSource {
  const { name, credentials: choice } = site;
  return siteCredentials(
    { name: `${name} (${site.url.href})`, choice, addresses: addressesOf(site) },
    { context, ask },
  );
}

/**
 * Asks for the logins that a person has to type, one after the other, before anything is shown of the work.
 * @returns the logins by the name of the target
 */
export async function siteLogins(
  sites: readonly SiteTarget[],
  tools: SiteTools,
): Promise<ReadonlyMap<string, CredentialSource>> {
  const found = new Map<string, CredentialSource>();
  for (const site of sites) {
    if (!isServer(site)) continue;
    const source = credentialsOf(site, tools);
    if (site.credentials?.kind === 'prompt') await source.find(site.url.host, '');
    found.set(site.name, source);
  }
  return found;
}

function isServer(site: SiteTarget): site is NexusSite | RegistrySite | DevpiSite {
  return site.type === 'nexus' || site.type === 'registry' || site.type === 'devpi';
}

/** The server of a Nexus or devpi. */
export function webServerOf(
  site: NexusSite | DevpiSite,
  tools: SiteTools & { readonly credentials: CredentialSource },
): WebServer {
  const { http, context, credentials } = tools;
  return new WebServer({ http, context, base: site.url, tls: site.tls, credentials });
}

/** How pip is told to use an index, for people. */
export function pipUse(index: URL): string[] {
  return [
    'pip.conf:',
    ...pipSettings(index)
      .file.trimEnd()
      .split('\n')
      .map((line) => `  ${line}`),
  ];
}
