import { LIMITS } from '../core/limits.ts';
import { nextQuery } from './answers.ts';
import type { RegistryWire } from './wire.ts';

/**
 * A list of names in pages. Of a `Link: …; rel="next"` only the query is taken and the path rebuilt, because Nexus sends
 * links that lead nowhere (nexus-public #1011). Ends at the first page without a new name: old Nexus gives the whole list
 * whatever page is asked for (#209).
 * @throws AUTH_REQUIRED, AUTH_DENIED, CONTENT_NOT_FOUND …
 */
export async function listNames(
  wire: RegistryWire,
  path: string,
  about: {
    readonly repository: string;
    readonly what: string;
    readonly parse: (bytes: Buffer, what: string) => string[];
    /** Names in all. */
    readonly most: number;
  },
): Promise<string[]> {
  const { repository, parse, most } = about;
  const what = `${wire.host}/${about.what}`;
  const names = new Set<string>();
  for (let search: string | undefined = '?n=1000'; search !== undefined; ) {
    const url = wire.url(path);
    url.search = search;
    const ask = { repository, access: 'pull', limit: LIMITS.manifest, what } as const;
    const { response, bytes } = await wire.read({ url }, ask);
    if (bytes === undefined) throw await wire.fail(response, about.what, 'source');
    const before = names.size;
    for (const name of parse(bytes, what)) if (names.size < most) names.add(name);
    search = names.size === before ? undefined : nextQuery(response.headers.link, url);
  }
  return [...names];
}
