import { open } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { openTail, writeTail } from '../bundle/append-signature.ts';
import { type Medium, openMedium } from '../bundle/medium.ts';
import { SIGNATURE } from '../bundle/names.ts';
import { holdPath } from '../bundle/partial.ts';
import { type Bundle, openBundle } from '../bundle/reader.ts';
import { hashB3Sums } from '../bundle/signature.ts';
import { beginsAsBundle, type Place, pathOf, placesOf } from '../bundle/volumes.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { LIMITS } from '../core/limits.ts';
import {
  diskError,
  errnoOf,
  kindOf,
  readFileIfExists,
  readFileLimited,
  writeFileIfChanged,
} from '../io/files.ts';
import { digestOf } from '../io/verify.ts';
import { parseLock } from '../lock/read.ts';
import { trustedComment, type Vouched } from '../trust/comment.ts';
import { SIGNATURE_SUFFIX, signaturePaths } from '../trust/places.ts';
import type { SecretKey } from '../trust/secret-key.ts';
import { messageHash, signatureFile } from '../trust/signature.ts';
import { openKey, type SigningKey } from './keys.ts';

export interface SignOptions {
  /** A bundle, or a versions.lock. */
  readonly path: string;
  /** More of its volumes, which lie in other folders. */
  readonly others?: readonly string[];
  readonly key: SigningKey;
  /** Leave the bundle as it is: the signature lies beside it. */
  readonly detached?: boolean;
}

export interface SignResult {
  readonly path: string;
  readonly kind: 'bundle' | 'lock';
  readonly name: string;
  readonly version: string;
  readonly keyId: string;
  /** The file that the signature is in: the bundle, or one beside it. */
  readonly at: string;
  readonly isDetached: boolean;
  /** False where just this signature was there already. */
  readonly written: boolean;
}

/** How a bundle is signed. */
interface Signing {
  readonly detached: boolean;
  /** Bytes of each volume, where that is known beforehand. */
  readonly volumeSize?: number | undefined;
}

/** Where a signature went. */
type Written = Pick<SignResult, 'at' | 'isDetached' | 'written'>;

/** A disk that takes no writing, as the system says it. */
function isReadOnly(error: unknown): boolean {
  const cause = error instanceof SealiftError ? error.cause : error;
  return ['EROFS', 'EACCES', 'EPERM'].includes(errnoOf(cause));
}

/** Writes a signature beside a file, or where nothing can be written there into the working folder. */
async function writeBeside(path: string, signature: Buffer): Promise<Written> {
  const [beside = `${path}${SIGNATURE_SUFFIX}`, here] = signaturePaths(path);
  try {
    return { at: beside, isDetached: true, written: await writeFileIfChanged(beside, signature) };
  } catch (error) {
    if (here === undefined || !isReadOnly(error)) throw error;
    return { at: here, isDetached: true, written: await writeFileIfChanged(here, signature) };
  }
}

/** A folder gets a file. One that is half written is no good signature, and is replaced by the next run. */
async function writeInFolder(folder: string, signature: Buffer): Promise<Written> {
  const at = join(folder, SIGNATURE);
  if ((await readFileIfExists(at))?.equals(signature) === true) {
    return { at, isDetached: false, written: false };
  }
  // Not beside and renamed: a file that is left over would make the whole folder no bundle.
  try {
    const handle = await open(at, 'w', 0o644);
    try {
      await handle.writeFile(signature);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw diskError(error, at, { side: 'destination' });
  }
  return { at, isDetached: false, written: true };
}

async function writeInside(
  place: Place,
  medium: Medium,
  { signature, volumeSize }: { readonly signature: Buffer; readonly volumeSize: number | undefined },
): Promise<Written> {
  const path = pathOf(place);
  if (medium.kind === 'folder') return writeInFolder(path, signature);
  const { end, files } = medium;
  const count = typeof place === 'string' ? 0 : place.files.size;
  // Where nobody says the limit of a single volume, it grows.
  const limit = volumeSize ?? (count > 1 ? files?.volumeSize : undefined);
  const space = openTail(place, { from: end, volumeSize: limit });
  try {
    const written = await writeTail(space, { end, signature });
    return { at: path, isDetached: false, written };
  } finally {
    space.close();
  }
}

/** The signature of an opened bundle, from its B3SUMS. */
async function signatureOf(medium: Medium, vouched: Vouched, secret: SecretKey): Promise<Buffer> {
  const comment = trustedComment(vouched);
  return signatureFile(await hashB3Sums(medium), secret, { comment });
}

/**
 * Signs an open bundle that is whole as far as its headers and documents tell. Running it again writes the same bytes, or
 * nothing at all. @throws USAGE, DISK_FULL, FILE_UNREADABLE
 */
export async function signOpened(
  { place, medium, lock, lockDigest }: Pick<Bundle, 'medium' | 'lock' | 'lockDigest'> & { place: Place },
  secret: SecretKey,
  options: Signing,
): Promise<Written> {
  const { name, version } = lock;
  const signature = await signatureOf(medium, { name, version, lock: lockDigest }, secret);
  if (options.detached) return writeBeside(pathOf(place), signature);
  try {
    return await writeInside(place, medium, { signature, volumeSize: options.volumeSize });
  } catch (error) {
    if (!isReadOnly(error)) throw error;
    return writeBeside(pathOf(place), signature);
  }
}

/**
 * Signs what is at a place, and keeps a pack away from it meanwhile.
 * @param options.lock what must be there: another process may have written another bundle since
 */
export async function signBundle(
  place: Place,
  secret: SecretKey,
  options: Signing & { readonly context: Context; readonly lock?: Digest },
): Promise<SignResult> {
  const path = pathOf(place);
  const release = await holdPath(path, 'sign');
  try {
    const medium = await openMedium(place, { toSums: true });
    const bundle = await openBundle(path, { signal: options.context.signal, medium });
    try {
      if (options.lock !== undefined && options.lock !== bundle.lockDigest) {
        const message = `${path}: expected the bundle of lock ${options.lock}, found ${bundle.lockDigest}`;
        const hint = 'another process wrote there meanwhile: it is not signed; run the same command again';
        throw new SealiftError('BUNDLE_LOCK_DIFFERS', message, { hint });
      }
      const done = await signOpened({ ...bundle, place }, secret, options);
      const { name, version } = bundle.lock;
      return { path, kind: 'bundle', name, version, keyId: secret.public.id, ...done };
    } finally {
      await bundle.close();
    }
  } finally {
    await release();
  }
}

async function signLock(path: string, secret: SecretKey): Promise<SignResult> {
  const bytes = await readFileLimited(path, { limit: LIMITS.lockText, missing: 'FILE_NOT_FOUND' });
  const { name, version } = parseLock(bytes, path);
  const comment = trustedComment({ name, version, lock: digestOf(bytes) });
  const signature = signatureFile(messageHash().update(bytes).digest(), secret, { comment });
  const done = await writeBeside(path, signature);
  return { path, kind: 'lock', name, version, keyId: secret.public.id, ...done };
}

/**
 * Signs a bundle: its B3SUMS, which vouches for every other byte. Only the end of the file, or of the last volume, is
 * written; where it is read-only, or with `detached`, the signature lies beside it. A lock is signed beside it. Contents are
 * not read: verify them before.
 * @throws KEY_INVALID, KEY_PASSWORD_WRONG, MEMORY_LACKING, PACK_BUSY, LOCK_INVALID and every fault of the structure
 */
export async function sign(options: SignOptions, context: Context): Promise<SignResult> {
  const path = resolve(options.path);
  const places = await placesOf([path, ...(options.others ?? []).map((other) => resolve(other))]);
  const [place = path] = places;
  if (places.length > 1) {
    throw new SealiftError('USAGE', `${places.map(pathOf).join(' and ')}: one bundle is signed at a time`, {
      hint: 'run `sealift sign` for each of them; several paths are for volumes of one bundle',
    });
  }
  // The key comes behind this: nobody types a password for nothing.
  const kind = typeof place === 'string' ? await kindOf(place) : 'volumes';
  if (kind === undefined) {
    throw new SealiftError('BUNDLE_NOT_FOUND', `${path}: no such file or folder`, {
      hint: 'give the path of a bundle that `sealift pack` wrote, or of a versions.lock',
    });
  }
  const isLock = typeof place === 'string' && kind === 'file' && !(await beginsAsBundle(place));
  const secret = await openKey(options.key, context);
  if (isLock) return signLock(path, secret);
  return signBundle(place, secret, { detached: options.detached === true, context });
}
