import { SealiftError } from '../core/errors.ts';
import { parseReference } from '../core/reference.ts';

/** Every way in which a person may call an image: in full, without host, by its last part, with and without the tag. */
export function imageNames(name: string): string[] {
  const ref = parseReference(name);
  const base = ref.repository.split('/').at(-1) ?? ref.repository;
  const names = [`${ref.host}/${ref.repository}`, ref.repository, base];
  const tagged = ref.tag === undefined ? [] : names.map((n) => `${n}:${ref.tag}`);
  return [...new Set([name, ...names, ...tagged])];
}

/** Every way to call a chart: `name`, `name-version`. */
export function chartNames(chart: { readonly name: string; readonly version: string }): string[] {
  return [`${chart.name}-${chart.version}`, chart.name];
}

type Named =
  | { readonly kind: 'image'; readonly name: string }
  | { readonly kind: 'chart'; readonly name: string; readonly chartName: string }
  | { readonly kind: 'file'; readonly name: string }
  | { readonly kind: 'package'; readonly name: string; readonly project: string };

function namesOf(item: Named): string[] {
  if (item.kind === 'image') return imageNames(item.name);
  if (item.kind === 'chart') return [item.name, item.chartName];
  return item.kind === 'package' ? [item.name, item.project] : [item.name];
}

/**
 * The items that a person named; all when nothing was named.
 * @throws USAGE for names that nothing has
 */
export function matchNames<T extends Named>(
  items: readonly T[],
  only: readonly string[] | undefined,
): readonly T[] {
  if (only === undefined || only.length === 0) return items;
  const wanted = new Set(only);
  const found = new Set<string>();
  const kept = items.filter((item) => {
    const hits = namesOf(item).filter((n) => wanted.has(n));
    for (const hit of hits) found.add(hit);
    return hits.length > 0;
  });
  const unknown = only.filter((n) => !found.has(n));
  if (unknown.length === 0) return kept;
  throw new SealiftError('USAGE', `--only: nothing in the bundle is called ${unknown.join(', ')}`, {
    hint: '`sealift ls BUNDLE` shows the names',
  });
}
