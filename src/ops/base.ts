import { readdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import type { Base, BaseBundle } from '../bundle/contents.ts';
import { readSums } from '../bundle/documents.ts';
import { digestOfName } from '../bundle/entries.ts';
import { openMedium } from '../bundle/medium.ts';
import { type Bundle, openBundle, readInfo } from '../bundle/reader.ts';
import { beginsAsBundle, type Place, pathOf, placeAt } from '../bundle/volumes.ts';
import { type Digest, digestOfHex, isDigest } from '../core/digest.ts';
import { DigestTable } from '../core/digest-table.ts';
import { errorOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import { kindOf, readFileLimited } from '../io/files.ts';
import { collect, digestOf } from '../io/verify.ts';
import { parseLock } from '../lock/read.ts';

/** What one base is, and which blobs whoever has it has. */
interface OneBase {
  readonly bundle: BaseBundle;
  readonly blobs: DigestTable;
  /** Of its charts that no registry has, where it is at hand. */
  readonly manifests?: ReadonlyMap<Digest, Uint8Array>;
}

/** The manifests of charts that no registry has. What is damaged is not there. */
async function chartManifests(bundle: Bundle, context: Context): Promise<Map<Digest, Uint8Array>> {
  const found = new Map<Digest, Uint8Array>();
  for (const { source, manifest } of bundle.lock.charts) {
    if (source.type === 'oci' || !bundle.has(manifest.digest)) continue;
    try {
      const bytes = bundle.open(manifest, { signal: context.signal });
      found.set(manifest.digest, await collect(bytes, { limit: LIMITS.manifest, what: manifest.digest }));
    } catch (error) {
      if (!(error instanceof SealiftError) || isAbort(error)) throw error;
    }
  }
  return found;
}

/** A bundle: what it carries, and what it leaves out itself, because whoever has loaded it has that too. */
async function fromBundle(place: Place, context: Context): Promise<OneBase> {
  const bundle = await openBundle(place, { signal: context.signal, strict: false });
  try {
    if (bundle.plan === undefined) {
      throw errorOf(bundle.faults, `--since ${pathOf(place)}: its manifests cannot be read`);
    }
    const blobs = new DigestTable(bundle.plan.blobs);
    for (const { digest } of bundle.plan.entries) if (digest !== undefined) blobs.add(digest);
    for (const one of bundle.info.base?.leftOut ?? []) blobs.add(one);
    const { name, version } = bundle.lock;
    const manifests = await chartManifests(bundle, context);
    return { bundle: { name, version, lock: bundle.lockDigest }, blobs, manifests };
  } finally {
    await bundle.close();
  }
}

/** `SHA256SUMS` of a bundle: it names every blob, and the digest of the lock. */
async function fromSums(path: string, bytes: Buffer): Promise<OneBase | undefined> {
  const blobs = new DigestTable();
  let lock: Digest | undefined;
  const text = (async function* () {
    yield bytes;
  })();
  const faults = await readSums(text, path, ({ hex, name }) => {
    const digest = digestOfName(name);
    if (digest !== undefined) blobs.add(digest);
    if (name === 'versions.lock') lock = digestOfHex(hex);
  });
  return faults.length > 0 || lock === undefined
    ? undefined
    : { bundle: { name: null, version: null, lock }, blobs };
}

const digest = z.string().refine(isDigest, 'not a sha256 digest');
const receiptSchema = z.looseObject({
  kind: z.literal('receipt'),
  dryRun: z.literal(false),
  bundle: z.looseObject({
    name: z.string().min(1).max(255),
    version: z.string().min(1).max(255),
    lock: digest,
  }),
  blobs: z.array(digest).max(LIMITS.bundleEntries),
});

/** A receipt of `sealift load`: it lists the blobs that every target has. */
function fromReceipt(path: string, text: string): OneBase | undefined {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = receiptSchema.safeParse(body);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new SealiftError(
      'USAGE',
      `--since ${path}: no receipt: ${[issue?.path.join('.'), issue?.message].filter((t) => t !== '').join(': ')}`,
      {
        hint: 'give the receipt that `sealift load --receipt FILE` wrote for a bundle',
      },
    );
  }
  const { name, version, lock } = parsed.data.bundle;
  const blobs = new DigestTable(parsed.data.blobs.length);
  for (const one of parsed.data.blobs) blobs.add(one as Digest);
  return { bundle: { name, version, lock: lock as Digest }, blobs };
}

/** The lock that a bundle says it has; undefined for what is no readable bundle. */
async function lockIn(path: string): Promise<Digest | undefined> {
  try {
    const medium = await openMedium(path);
    try {
      return (await readInfo(medium)).lock;
    } finally {
      await medium.close();
    }
  } catch (error) {
    if (!(error instanceof SealiftError) || isAbort(error)) throw error;
    return undefined;
  }
}

/** A lock names no layers: the bundle that was packed from it must lie beside it. */
async function fromLock(path: string, bytes: Buffer, context: Context): Promise<OneBase> {
  const { name, version } = parseLock(bytes, path);
  const wanted = digestOf(bytes);
  const folder = dirname(resolve(path));
  const names = (await readdir(folder, { withFileTypes: true })).filter(
    (e) => e.isDirectory() || /\.tar$|\.0+1$/.test(e.name),
  );
  for (const { name: found } of names
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .slice(0, LIMITS.imageListFiles)) {
    const at = join(folder, found);
    if ((await lockIn(at)) === wanted) return fromBundle(await placeAt(at), context);
  }
  throw new SealiftError(
    'BUNDLE_NOT_FOUND',
    `--since ${path}: no bundle of ${name} ${version} lies beside this lock`,
    {
      hint: 'a lock does not say which layers its images have: give the bundle itself, its SHA256SUMS, or a receipt of the site',
    },
  );
}

async function readBase(given: string, context: Context): Promise<OneBase> {
  const place = await placeAt(resolve(given));
  if (typeof place !== 'string' || (await kindOf(place)) === 'folder') return fromBundle(place, context);
  const limits = { limit: LIMITS.bundleDocument, missing: 'BUNDLE_NOT_FOUND' } as const;
  if (await beginsAsBundle(place)) return fromBundle(place, context);
  const bytes = await readFileLimited(place, limits);
  const found = (await fromSums(given, bytes)) ?? fromReceipt(given, bytes.toString('utf8'));
  if (found !== undefined) return found;
  try {
    return await fromLock(given, bytes, context);
  } catch (error) {
    if (!(error instanceof SealiftError) || error.code !== 'LOCK_INVALID') throw error;
    throw new SealiftError('USAGE', `--since ${given}: no bundle, and nothing that stands for one`, {
      cause: error,
      hint: 'give an earlier bundle, its SHA256SUMS, its versions.lock where the bundle lies beside it, or a receipt of the site',
    });
  }
}

/**
 * What a delta builds on: bundles, or what stands for one: its SHA256SUMS, a lock with its bundle beside it, a receipt of
 * the site. Of several only what all of them have is left out.
 * @throws BUNDLE_NOT_FOUND, LOCK_INVALID, USAGE, and the faults of a bundle that cannot be read
 */
export async function basesOf(given: readonly string[], context: Context): Promise<Base> {
  if (given.length > LIMITS.bases) {
    throw new SealiftError('USAGE', `--since: ${given.length} bases, the limit is ${LIMITS.bases}`);
  }
  const all: OneBase[] = [];
  for (const one of given) all.push(await readBase(one, context));
  const of = new Map(all.map(({ bundle }) => [bundle.lock, bundle]));
  return {
    of: [...of.values()].sort((a, b) => (a.lock < b.lock ? -1 : 1)),
    isLeftOut: (one) => all.every(({ blobs }) => blobs.indexOf(one) >= 0),
    manifests: new Map(all.flatMap(({ manifests }) => [...(manifests ?? [])])),
  };
}
