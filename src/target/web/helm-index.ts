import { isAbort, SealiftError } from '../../core/errors.ts';
import type { Context } from '../../core/events.ts';
import { LIMITS } from '../../core/limits.ts';
import { parseRepositoryIndex, type RepositoryIndex } from '../../helm/index-file.ts';
import { sleep } from '../../io/pool.ts';
import { type AssetEntry, type AssetPlace, assetPath } from './asset.ts';

/** Nexus gathers changes for a second; a large index takes longer. */
const FIRST_MS = 250;
const LONGEST_MS = 5_000;

interface Waiting extends AssetPlace {
  readonly entries: readonly AssetEntry[];
  readonly fail: (entry: AssetEntry, error: unknown) => Promise<void>;
  readonly context: Context;
  readonly listedMs?: number;
}

/**
 * Waits until index.yaml lists every chart that is there, by name, version and digest (helm.md 1.9): Nexus makes it anew
 * some time after an upload, and until then nobody finds the chart. Charts that it does not list in time have failed.
 */
export async function awaitListed(options: Waiting): Promise<void> {
  const { entries, context, listedMs = LIMITS.chartListedMs } = options;
  let open = entries.filter(isThere);
  const end = performance.now() + listedMs;
  for (let waitMs = FIRST_MS; open.length > 0; waitMs = Math.min(waitMs * 2, LONGEST_MS)) {
    let index: RepositoryIndex | undefined;
    try {
      index = await readIndex(options);
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError)) throw error;
      for (const entry of open) await options.fail(entry, error);
      return;
    }
    open = open.filter((entry) => listedAs(index, entry) !== entry.blob.digest);
    const left = end - performance.now();
    if (open.length > 0 && left <= 0) {
      for (const entry of open) await options.fail(entry, notListed(options, { entry, index }));
      return;
    }
    if (open.length > 0) await sleep(Math.min(waitMs, left), context.signal);
  }
}

function isThere({ state, item, name }: AssetEntry): boolean {
  return item.kind === 'chart' && name.endsWith('.tgz') && (state === 'written' || state === 'present');
}

/** An empty repository may have no index yet. @throws CHART_INDEX_INVALID, CONTENT_TOO_LARGE, as `WebServer.fail` */
async function readIndex(place: AssetPlace): Promise<RepositoryIndex | undefined> {
  const path = assetPath(place, 'index.yaml');
  const text = await place.server.text(path, LIMITS.repositoryIndex);
  return text === undefined
    ? undefined
    : parseRepositoryIndex(Buffer.from(text), place.server.url(path).href);
}

/**
 * The digest under which a chart is listed: its own where one of the entries has it, or has none (khelm #27); undefined
 * where its version is not listed at all.
 */
function listedAs(index: RepositoryIndex | undefined, { item, blob }: AssetEntry): string | undefined {
  if (item.kind !== 'chart') return blob.digest;
  const listed = (index?.entriesOf(item.chartName) ?? []).filter(({ version }) => version === item.version);
  const isOurs = listed.some(({ digest = blob.digest }) => digest === blob.digest);
  return isOurs ? blob.digest : listed[0]?.digest;
}

function notListed(
  { repository }: AssetPlace,
  about: { readonly entry: AssetEntry; readonly index: RepositoryIndex | undefined },
): SealiftError {
  const { entry, index } = about;
  const found = listedAs(index, entry);
  const why =
    found === undefined
      ? 'its index.yaml does not list it'
      : `its index.yaml lists ${found}, expected ${entry.blob.digest}`;
  return new SealiftError('TARGET_FAILED', `${entry.as}: is there, but ${why}: helm does not find it`, {
    hint: `run the task "Helm - Rebuild Helm metadata" for ${repository} on the server, then the same command again`,
    details: { expected: entry.blob.digest, found: found ?? null },
  });
}
