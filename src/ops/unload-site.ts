import { chosenSite, type SiteChoice } from './site.ts';
import { addressesOf, type SiteTools, siteLogins } from './site-server.ts';
import type { Access, AccessOf } from './unload-targets.ts';

/**
 * How the servers of a site are reached: what its file says of a server counts for every target of the receipt there.
 * @throws SITE_INVALID, FILE_NOT_FOUND, AUTH_REQUIRED where a login must be typed and nobody can be asked
 */
export async function siteAccess(choice: SiteChoice, tools: SiteTools): Promise<AccessOf> {
  const site = await chosenSite(choice);
  const logins = site === undefined ? new Map<string, never>() : await siteLogins(site.targets, tools);
  const known = new Map<string, Access>();
  for (const target of site?.targets ?? []) {
    if (target.type !== 'nexus' && target.type !== 'registry' && target.type !== 'devpi') continue;
    const credentials = logins.get(target.name);
    const access = { tls: target.tls, ...(credentials === undefined ? {} : { credentials }) };
    for (const { origin } of addressesOf(target)) if (!known.has(origin)) known.set(origin, access);
  }
  return (origin) => known.get(origin);
}
