import { type Digest, digestOfHex, hexOf, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { ShownContent, ShownRegistry, ShownRepository } from './shown.ts';
import type { Storage } from './storage.ts';

/**
 * One repository of a registry, as documents (a repository's path segments never begin with `_`):
 * ```
 * repositories/<name>/_blobs/<hex>                  may be pulled from here
 * repositories/<name>/_manifests/<hex>              ManifestRecord
 * repositories/<name>/_tags/<tag>                   digest
 * repositories/<name>/_referrers/<subject>/<hex>    this manifest names that subject
 * ```
 */
export interface Repository {
  readonly storage: Storage;
  /** Valid by `isRepository`. */
  readonly name: string;
}

/** What a registry remembers of a manifest beside its bytes. */
export interface ManifestRecord {
  readonly mediaType: string;
  /** Bytes. */
  readonly size: number;
  readonly subject?: Digest;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A referrer as the referrers API lists it. */
export interface Referrer extends Omit<ManifestRecord, 'subject'> {
  readonly digest: Digest;
}

const ROOT = 'repositories';
const HEX = /^[0-9a-f]{64}$/;

function folderOf(repository: Repository, kind: string): string {
  return `${ROOT}/${repository.name}/_${kind}`;
}

function referrersOf(repository: Repository, subject: Digest): string {
  return `${folderOf(repository, 'referrers')}/${hexOf(subject)}`;
}

/** Shows a blob of the storage in this repository. */
export async function linkBlob(repository: Repository, digest: Digest): Promise<void> {
  await repository.storage.writeDocument(folderOf(repository, 'blobs'), hexOf(digest), { text: digest });
}

/** The size of a blob that this repository shows, in bytes. */
export async function linkedBlobSize(repository: Repository, digest: Digest): Promise<number | undefined> {
  const link = await repository.storage.readDocument(folderOf(repository, 'blobs'), hexOf(digest));
  return link === undefined ? undefined : await repository.storage.blobSize(digest);
}

/** Hides a blob from this repository. The bytes stay: another repository may show them. */
export function unlinkBlob(repository: Repository, digest: Digest): Promise<boolean> {
  return repository.storage.removeDocument(folderOf(repository, 'blobs'), hexOf(digest));
}

/** The record of a manifest that this repository holds. */
export async function readRecord(
  repository: Repository,
  digest: Digest,
): Promise<ManifestRecord | undefined> {
  const text = await repository.storage.readDocument(folderOf(repository, 'manifests'), hexOf(digest));
  if (text === undefined) return undefined;
  // Written by `putManifest` below and by nothing else.
  const record: ManifestRecord = JSON.parse(text);
  return record;
}

/** Stores a manifest: bytes, then what it refers to, then the record that makes it visible. */
export async function putManifest(
  repository: Repository,
  digest: Digest,
  content: { readonly bytes: Uint8Array; readonly record: ManifestRecord },
): Promise<void> {
  const { storage } = repository;
  const incoming = await storage.receive();
  try {
    await incoming.write(content.bytes);
    await incoming.commit(digest);
  } finally {
    await incoming.discard();
  }
  const { subject } = content.record;
  if (subject !== undefined) {
    await storage.writeDocument(referrersOf(repository, subject), hexOf(digest), { text: digest });
  }
  const text = JSON.stringify(content.record);
  await storage.writeDocument(folderOf(repository, 'manifests'), hexOf(digest), { text });
}

/** Takes a manifest out of the repository, with its tags. */
export async function removeManifest(repository: Repository, digest: Digest): Promise<boolean> {
  const record = await readRecord(repository, digest);
  if (record === undefined) return false;
  const { storage } = repository;
  for (const tag of await listTags(repository)) {
    if ((await readTag(repository, tag)) === digest) await removeTag(repository, tag);
  }
  if (record.subject !== undefined) {
    await storage.removeDocument(referrersOf(repository, record.subject), hexOf(digest));
  }
  return await storage.removeDocument(folderOf(repository, 'manifests'), hexOf(digest));
}

/** What a tag points to. */
async function readTag(repository: Repository, tag: string): Promise<Digest | undefined> {
  const text = await repository.storage.readDocument(folderOf(repository, 'tags'), tag);
  if (text === undefined || isDigest(text)) return text;
  throw new SealiftError('CONTENT_NOT_FOUND', `${repository.name}:${tag}: the stored tag is damaged`);
}

export async function writeTag(
  repository: Repository,
  tag: string,
  target: { readonly digest: Digest },
): Promise<void> {
  await repository.storage.writeDocument(folderOf(repository, 'tags'), tag, { text: target.digest });
}

export function removeTag(repository: Repository, tag: string): Promise<boolean> {
  return repository.storage.removeDocument(folderOf(repository, 'tags'), tag);
}

/** All tags, sorted by code unit. */
function listTags(repository: Repository): Promise<string[]> {
  return repository.storage.listDocuments(folderOf(repository, 'tags'));
}

/** The manifests that name `subject`, whether or not the subject itself is here. */
async function listReferrers(repository: Repository, subject: Digest): Promise<Referrer[]> {
  const found: Referrer[] = [];
  for (const hex of await repository.storage.listDocuments(referrersOf(repository, subject))) {
    if (!HEX.test(hex)) continue;
    const digest = digestOfHex(hex);
    const record = await readRecord(repository, digest);
    if (record === undefined) continue;
    const { subject: _, ...rest } = record;
    found.push({ digest, ...rest });
  }
  return found;
}

/** Whether the repository holds a manifest. */
async function isPopulated(repository: Repository): Promise<boolean> {
  return (await repository.storage.listDocuments(folderOf(repository, 'manifests'))).length > 0;
}

/** A repository as clients read it. */
export function shownRepository(repository: Repository): ShownRepository {
  const { storage, name } = repository;
  const content = (digest: Digest, size: number): ShownContent => ({
    size,
    open: (span) => storage.openBlob(digest, span),
  });
  return {
    name,
    async blob(digest) {
      const size = await linkedBlobSize(repository, digest);
      return size === undefined ? undefined : content(digest, size);
    },
    async manifest(digest) {
      const record = await readRecord(repository, digest);
      if (record === undefined) return undefined;
      return { ...content(digest, record.size), mediaType: record.mediaType };
    },
    tag: (tag) => readTag(repository, tag),
    tags: async () => ((await isPopulated(repository)) ? await listTags(repository) : undefined),
    referrers: (subject) => listReferrers(repository, subject),
  };
}

/** What a storage holds as clients read it. In whose place they ask makes no difference. */
export function shownStorage(storage: Storage): ShownRegistry {
  return {
    repository: (name) => shownRepository({ storage, name }),
    names: () => listRepositories(storage),
  };
}

/** The names of all repositories that hold a manifest, sorted by code unit. */
async function listRepositories(storage: Storage): Promise<string[]> {
  const names: string[] = [];
  const visit = async (folder: string, name: string): Promise<void> => {
    for (const child of await storage.listFolders(folder)) {
      if (child === '_manifests') {
        if (await isPopulated({ storage, name })) names.push(name);
      } else if (!child.startsWith('_')) {
        await visit(`${folder}/${child}`, name === '' ? child : `${name}/${child}`);
      }
    }
  };
  await visit(ROOT, '');
  return names.sort();
}
