import { LIMITS } from '../core/limits.ts';
import { nextQuery } from './answers.ts';
import type { RegistryWire } from './wire.ts';

/** Names that are asked for at once. */
const PAGE = 1000;

/**
 * A list of names in pages. Of a `Link: …; rel="next"` only the query is taken and the path rebuilt, because Nexus sends
 * links that lead nowhere (nexus-public #1011). Ends at the first page without a new name: old Nexus gives the whole list
 * whatever page is asked for (#209). A full page without a link is asked on behind its last name.
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
  for (let search: string | undefined = `?n=${PAGE}`; search !== undefined; ) {
    const url = wire.url(path);
    url.search = search;
    const ask = { repository, access: 'pull', limit: LIMITS.manifest, what } as const;
    const { response, bytes } = await wire.read({ url }, ask);
    if (bytes === undefined) throw await wire.fail(response, about.what, 'source');
    const before = names.size;
    const page = parse(bytes, what);
    for (const name of page) if (names.size < most) names.add(name);
    const next = nextQuery(response.headers.link, url);
    // A full page without a link may be a list whose link was lost on the way (registry.md 2.8).
    const last = page.length >= PAGE ? page.at(-1) : undefined;
    const asked = last === undefined ? undefined : `?n=${PAGE}&last=${encodeURIComponent(last)}`;
    search = names.size === before ? undefined : (next ?? asked);
  }
  return [...names];
}
