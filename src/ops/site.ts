import { lstat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { diskError, errnoOf } from '../io/files.ts';
import type { SiteFile, SiteTarget } from '../site/load.ts';

/** The file of a site that is looked for in the working folder; as in trust/site.ts, which brings a YAML parser along. */
const SITE_FILE = 'site.yaml';

/** Which targets of which site. */
export interface SiteChoice {
  /** The site's file. Default: `site.yaml` in the working folder, where there is one. */
  readonly sitePath?: string;
  /** Names of targets of it; default all. */
  readonly targetNames?: readonly string[];
}

/** Whether anything has this name, also a link to nothing: a policy that cannot be read is no policy that lacks. */
export async function isNamed(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error))) return false;
    throw diskError(error, path);
  }
}

/** The path of the site's file; undefined where none was named and none is there. */
export async function findSite({ sitePath }: SiteChoice): Promise<string | undefined> {
  const path = resolve(sitePath ?? SITE_FILE);
  return sitePath !== undefined || (await isNamed(path)) ? path : undefined;
}

/**
 * The site with the targets that are chosen; undefined where there is no file.
 * @throws SITE_INVALID, FILE_NOT_FOUND, USAGE for a name that no target has
 */
export async function chosenSite(choice: SiteChoice): Promise<SiteFile | undefined> {
  const path = await findSite(choice);
  const names = choice.targetNames ?? [];
  if (path === undefined) {
    if (names.length === 0) return undefined;
    throw new SealiftError('USAGE', `--target ${names[0]}: there is no ${SITE_FILE} here`, {
      hint: 'name the file with --site FILE, or write one with `sealift site init URL`',
    });
  }
  const { readSiteFile } = await import('../site/load.ts');
  const site = await readSiteFile(path);
  return names.length === 0 ? site : { ...site, targets: targetsNamed(site, names) };
}

function targetsNamed({ targets, path }: SiteFile, names: readonly string[]): SiteTarget[] {
  for (const name of names) {
    if (targets.some((target) => target.name === name)) continue;
    const known = targets.map((target) => target.name).join(', ');
    throw new SealiftError('USAGE', `--target ${name}: ${path} has no target of this name`, {
      hint: known === '' ? 'it has no targets at all' : `it has ${known}`,
    });
  }
  return targets.filter((target) => names.includes(target.name));
}

/** The chart trees of a site. */
export function siteTrees(site: SiteFile | undefined): string[] {
  return (site?.targets ?? []).flatMap((target) => (target.type === 'chart-tree' ? [target.dir] : []));
}
