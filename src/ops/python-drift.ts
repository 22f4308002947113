import { type Fault, fault } from '../core/errors.ts';
import type { PackageLock, PythonLock } from '../lock/schema.ts';
import type { ChartAccess } from '../source/chart-archive.ts';
import { headFile } from '../source/python-files.ts';
import { environmentIndexes, PythonLogins, SimpleIndexes } from '../source/python-index.ts';

/** What an index says of a locked file now. */
interface Asking {
  readonly access: ChartAccess;
  readonly logins: PythonLogins;
  readonly pages: SimpleIndexes;
  readonly indexes: readonly string[];
}

function drift(file: PackageLock, what: string): Fault {
  return fault('DRIFT_FOUND', `${file.file}: ${what}`, {
    hint: `look at what changed, then take it with \`sealift lock --update ${file.name}\``,
    details: { name: file.file, locked: file.sha256 },
  });
}

async function fileDrift(file: PackageLock, asking: Asking): Promise<Fault | undefined> {
  const { source, sha256, yanked, name } = file;
  if (!('url' in source)) return undefined;
  for (const index of asking.indexes) {
    const now = (await asking.pages.files(index, name))?.find((f) => f.file === file.file);
    if (now === undefined) continue;
    if (now.sha256 !== undefined && now.sha256 !== sha256) {
      return drift(file, `locked ${sha256}, its index now says ${now.sha256}`);
    }
    if (now.yanked === undefined || yanked !== undefined) return undefined;
    return drift(file, `was taken back by its publisher: ${now.yanked || 'no reason given'}`);
  }
  // Perhaps from an index that is configured elsewhere, or from no index: then it has to be where it was.
  const { http, context } = asking.access;
  const { status } = await headFile(source.url, { http, context, logins: asking.logins });
  return status === 404 || status === 410 ? drift(file, 'is gone from where it was') : undefined;
}

/** The questions whether the indexes still have each locked file as it was, one for each file; pages are asked for once. */
export function pythonDrift(
  locked: PythonLock | undefined,
  access: ChartAccess,
): (() => Promise<Fault | undefined>)[] {
  if (locked === undefined) return [];
  const { http, context, registries } = access;
  const logins = new PythonLogins(registries, { env: context.env });
  const pages = new SimpleIndexes({ http, context, logins });
  const indexes = locked.indexes.length > 0 ? locked.indexes : environmentIndexes(context.env);
  return locked.files.map((file) => () => fileDrift(file, { access, logins, pages, indexes }));
}
