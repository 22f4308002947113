import { join, resolve } from 'node:path';
import { errorOf, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { kindOf, readFileLimited } from '../io/files.ts';
import { digestOf } from '../io/verify.ts';
import { parseLock } from '../lock/read.ts';
import type { Held } from '../trust/policy.ts';
import type { LoadedSource } from './load-source.ts';

/** Where a load looks for what is there already. */
export interface DowngradeOptions {
  readonly receiptPath?: string;
  readonly chartTrees?: readonly string[];
  /** Go back to an older bundle on purpose. */
  readonly allowDowngrade?: boolean;
}

/** A text field of what was read from JSON. */
function textOf(value: unknown, key: string): string | undefined {
  const found: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
  return typeof found === 'string' ? found : undefined;
}

function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}

/**
 * What a receipt says; nothing where there is none, or an empty file (`mktemp`).
 * @throws TARGET_CONFLICT for anything else: a damaged receipt would say nothing, and another file would be replaced
 */
async function heldByReceipt(path: string): Promise<Held[]> {
  if ((await kindOf(path)) !== 'file') return [];
  const bytes = await readFileLimited(path, { limit: LIMITS.bundleDocument, missing: 'FILE_NOT_FOUND' });
  if (bytes.length === 0) return [];
  const body = parsed(bytes);
  if (textOf(body, 'kind') !== 'receipt') {
    throw new SealiftError('TARGET_CONFLICT', `--receipt: ${path} is there and is no receipt`, {
      hint: 'name another file; if it was one, what was loaded here before is not known: remove it, or add --allow-downgrade',
    });
  }
  const bundle: unknown = Reflect.get(Object(body), 'bundle');
  const [name, version, lock] = ['name', 'version', 'lock'].map((key) => textOf(bundle, key));
  if (textOf(body, 'unloaded') !== undefined) return [];
  // Of what another tool made, a receipt states no version.
  if (name === undefined || version === undefined || lock === undefined) return [];
  return [{ where: path, name, version, lock }];
}

/** What the locks beside a chart tree say; a file that Sealift did not write says nothing. */
async function heldByTree(dir: string, bundle: string): Promise<Held[]> {
  const held: Held[] = [];
  for (const name of ['versions.lock', `versions.${bundle}.lock`]) {
    const where = join(dir, name);
    if ((await kindOf(where)) !== 'file') continue;
    const bytes = await readFileLimited(where, { limit: LIMITS.lockText, missing: 'FILE_NOT_FOUND' });
    try {
      const { name, version } = parseLock(bytes, where);
      held.push({ where: dir, name, version, lock: digestOf(bytes) });
    } catch {
      // The target itself refuses it.
    }
  }
  return held;
}

/**
 * Refuses a bundle that is older than what the receipt or the chart trees say is there, or the same version of another
 * content. Nothing was written yet; the places are held, so that no other load writes there meanwhile.
 * @throws POLICY_DOWNGRADE with every place that says so, TARGET_CONFLICT for a receipt that cannot be read
 */
export async function refuseDowngrade(about: LoadedSource, options: DowngradeOptions): Promise<void> {
  const { name, version, lock } = about;
  if (options.allowDowngrade === true || version === null || lock === null) return;
  const { receiptPath, chartTrees = [] } = options;
  const held = receiptPath === undefined ? [] : await heldByReceipt(resolve(receiptPath));
  for (const dir of chartTrees) held.push(...(await heldByTree(resolve(dir), name)));
  if (held.length === 0) return;
  const { downgradeFaults } = await import('../trust/policy.ts');
  const faults = downgradeFaults({ name, version, lock }, held);
  if (faults.length > 0) throw errorOf(faults, `${name} ${version} is refused at ${faults.length} places`);
}
