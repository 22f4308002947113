import { z } from 'zod';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Sequence } from '../core/packed-list.ts';
import { imageName, isRepository, parseReference, type Reference } from '../core/reference.ts';
import { attachedTags, type Include } from '../core/referrer.ts';
import { pythonSchema } from './python-schema.ts';
import {
  CONTROL,
  digest,
  fileSource,
  free,
  isLocalPath,
  isWebUrl,
  localPath,
  matching,
  size,
  text,
} from './shapes.ts';

/** The version of the format that this program writes and the highest that it reads. */
export const LOCK_VERSION = 1;

/** A document that is carried beside its descriptor: an OCI manifest or config. */
export interface BlobLock {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** A signature, attestation or other manifest about an image that travels with it (registry.md 1.5). */
export interface ReferrerLock extends BlobLock {
  /** What it is about: a carried manifest or index of the image, or another of its referrers. */
  readonly subject: Digest;
  /** What it says it is; absent where only its tag was asked for. */
  readonly artifactType?: string;
  /** cosign's tag for the subject, under which it is found; without one its own `subject` says what it is about. */
  readonly tag?: string;
}

/** An image as decided by `lock`. */
export interface ImageLock {
  /** `imageName()`: `docker.io/library/nginx:1.25.2`, or with `@sha256:…` where there is no tag. */
  readonly ref: string;
  /** `imageName()` of where its bytes are pulled from instead; absent: of where `ref` says. */
  readonly replacedBy?: string;
  /** Of the index (or the single manifest) as published. */
  readonly digest: Digest;
  readonly mediaType: string;
  /** Bytes of the index or manifest. */
  readonly size: number;
  /** Why these are not the bytes of its registry: it was made anew from a `docker save` archive. */
  readonly recompressed?: string;
  /** The manifest said `all`: nothing that the index names is left out. */
  readonly allPlatforms: boolean;
  /** Carried platform → manifest digest. Empty for artifacts without a platform. */
  readonly platforms: Readonly<Record<string, Digest>>;
  /** Carried manifests without a usable platform, such as attestations; sorted. */
  readonly others: readonly Digest[];
  /** What shall travel with it, in the order of `INCLUDES`; absent: everything. */
  readonly include?: readonly Include[];
  /** What travels with it, by subject, tag and digest; absent when there is none. */
  readonly referrers?: readonly ReferrerLock[];
  /** Layers that registries need not hold are carried; absent: they are left out. */
  readonly foreignLayers?: true;
  /** Why it is there: `sealift.yaml`, `imagelists/x.txt`, or `<chart>-<version>`; sorted, at least one. */
  readonly usedBy: readonly string[];
}

/** Where a chart comes from. A path is relative to the manifest. */
export type ChartSource =
  | { readonly type: 'http'; readonly repo: string; readonly url: string }
  | { readonly type: 'oci'; readonly ref: string }
  | { readonly type: 'path'; readonly path: string };

/** The hashes of a chart (helm.md section 6). */
export interface ChartIntegrity {
  /** Of the archive's bytes. */
  readonly archive: Digest;
  /**
   * What the source says of itself: the index digest, the digest of the published OCI manifest, or of a `path` chart the
   * tree hash of its folder (the archive may have fetched dependencies added). Null where it says nothing.
   */
  readonly upstream: Digest | null;
  /** Of the unpacked tree. */
  readonly tree: Digest;
  readonly provenance: 'absent' | 'unverified' | 'verified';
  /** The `.prov` file; there unless `provenance` is `absent`. */
  readonly provenanceDigest?: Digest;
  /** Bytes. */
  readonly provenanceSize?: number;
}

export interface ChartDependency {
  readonly name: string;
  readonly version: string;
  readonly alias?: string;
  /** As Chart.yaml has it; may be empty. */
  readonly repository: string;
  readonly from: 'vendored' | 'fetched';
  /** Of the dependency's archive, where it is one. */
  readonly archive?: Digest;
}

/** A chart as decided by `lock`. */
export interface ChartLock {
  readonly name: string;
  readonly version: string;
  readonly appVersion: string | null;
  /** `charts/external/<name>-<version>`. */
  readonly dir: string;
  readonly source: ChartSource;
  readonly integrity: ChartIntegrity;
  readonly allowIndexMismatch?: string;
  /** Bytes of the archive. */
  readonly size: number;
  /** The OCI manifest and config that carry the archive. */
  readonly manifest: BlobLock;
  readonly config: BlobLock;
  readonly dependencies: readonly ChartDependency[];
  readonly values: readonly { readonly path: string; readonly sha256: Digest }[];
  /** `sealift.yaml`, or the `<name>-<version>` of the chart that depends on it; sorted, at least one. */
  readonly usedBy: readonly string[];
}

/** A file as decided by `lock`. */
export interface FileLock {
  /** Relative name with `/`, under which it is carried and written. */
  readonly name: string;
  readonly source: { readonly url: string } | { readonly path: string };
  /** Bytes. */
  readonly size: number;
  readonly sha256: Digest;
  /** Four octal digits: `0755`. */
  readonly mode: string;
}

/** A wheel or source archive as decided by `lock`. */
export interface PackageLock {
  /** Its file's name, `requests-2.32.3-py3-none-any.whl`; unique in a lock. */
  readonly file: string;
  /** Normalised (PEP 503). */
  readonly name: string;
  readonly version: string;
  readonly source: { readonly url: string } | { readonly path: string };
  /** Bytes. */
  readonly size: number;
  readonly sha256: Digest;
  /** As its index says (PEP 503 `data-requires-python`). */
  readonly requiresPython?: string;
  /** Why its publisher took it back (PEP 592); empty where no reason is given, absent where it was not. */
  readonly yanked?: string;
}

/** Python packages as decided by `lock`: what was asked, what that means, and every file for all targets. */
export interface PythonLock {
  /** Files of requirements and of constraints, as they were. */
  readonly requirements: readonly { readonly path: string; readonly sha256: Digest }[];
  readonly constraints: readonly { readonly path: string; readonly sha256: Digest }[];
  /** Requirements that stand in the manifest itself. */
  readonly packages: readonly string[];
  /** Versions of Python, `3.11`, and platforms, that files are carried for. */
  readonly pythons: readonly string[];
  readonly platforms: readonly string[];
  /** Addresses of the simple indexes that were asked, in order; empty: the resolver's own. */
  readonly indexes: readonly string[];
  /** What is installed: each project with its version, and where it is wanted (PEP 508 marker; absent: everywhere). */
  readonly pins: readonly { readonly name: string; readonly version: string; readonly marker?: string }[];
  readonly files: readonly PackageLock[];
}

/** versions.lock: everything that decides the bytes of a bundle. */
export interface Lock {
  readonly lockVersion: 1;
  readonly name: string;
  readonly version: string;
  /** Perhaps made when they are asked for: there may be very many. */
  readonly images: Sequence<ImageLock>;
  readonly charts: readonly ChartLock[];
  readonly files: readonly FileLock[];
  /** Absent where there are none. */
  readonly python?: PythonLock;
}

/** The name of a chart among the charts of a lock, unique there: `podinfo-6.7.0`. */
export function chartName(chart: { readonly name: string; readonly version: string }): string {
  return `${chart.name}-${chart.version}`;
}

/** Where the bytes of an image are pulled from. */
export function imageSource(image: Pick<ImageLock, 'ref' | 'replacedBy'>): Reference {
  return parseReference(image.replacedBy ?? image.ref);
}

/** The folder of a chart in the chart tree. */
export function chartDir(chart: { readonly name: string; readonly version: string }): string {
  return `charts/external/${chartName(chart)}`;
}

const WORD = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const BUNDLE_NAME = /^[a-z0-9][a-z0-9._-]{0,127}$/;
const VERSION = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$/;
const MEDIA_TYPE = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/;
const PLATFORM = /^[a-z0-9_.-]+(?:\([A-Za-z0-9._-]+\))?\/[a-z0-9_.-]+(?:\/[a-z0-9_.-]+)?$/;
const MODE = /^0[0-7]{3}$/;
function isFileName(name: string): boolean {
  return (
    isLocalPath(name) &&
    name.split('/').every((p) => p !== '' && p !== '.' && p !== '..' && Buffer.byteLength(p) <= 255)
  );
}

function isImageName(text: string): boolean {
  try {
    return imageName(parseReference(text)) === text;
  } catch (error) {
    if (error instanceof SealiftError) return false;
    throw error;
  }
}

function isOciReference(text: string): boolean {
  const match = /^oci:\/\/([^/@]+)\/([^:@]+)(?:[:@].*)?$/.exec(text);
  if (match?.[2] === undefined || !isRepository(match[2]) || CONTROL.test(text)) return false;
  try {
    parseReference(text.slice('oci://'.length));
    return true;
  } catch (error) {
    if (error instanceof SealiftError) return false;
    throw error;
  }
}

const mediaType = text(matching(MEDIA_TYPE), 'a media type');
const word = text(matching(WORD), 'a plain name');
const version = text(matching(VERSION), 'a version');
const usedBy = z.array(free.min(1)).min(1, { error: 'an empty list' });
const blob = z.strictObject({ mediaType, digest, size });

const referrer = z
  .strictObject({
    digest,
    mediaType,
    size,
    subject: digest,
    artifactType: free.min(1).exactOptional(),
    tag: z.string().exactOptional(),
  })
  .refine((r) => r.tag === undefined || attachedTags(r.subject).includes(r.tag), {
    path: ['tag'],
    error: 'not a tag of cosign for the subject',
  });

const include = z
  .array(z.enum(['signatures', 'referrers']))
  .max(1, { error: 'not written when everything is included' });

const imageText = text(isImageName, 'the full name of an image');

/** One image of the lock. */
export const imageSchema = z.strictObject({
  ref: imageText,
  replacedBy: imageText.exactOptional(),
  digest,
  mediaType,
  size,
  recompressed: free.min(1).exactOptional(),
  allPlatforms: z.boolean(),
  platforms: z.record(text(matching(PLATFORM), 'a platform'), digest),
  others: z.array(digest),
  include: include.exactOptional(),
  referrers: z.array(referrer).min(1, { error: 'an empty list' }).exactOptional(),
  foreignLayers: z.literal(true).exactOptional(),
  usedBy,
});

const integrity = z
  .strictObject({
    archive: digest,
    upstream: digest.nullable(),
    tree: digest,
    provenance: z.enum(['absent', 'unverified', 'verified']),
    provenanceDigest: digest.exactOptional(),
    provenanceSize: size.exactOptional(),
  })
  .refine(
    (i) =>
      (i.provenance === 'absent') === (i.provenanceDigest === undefined) &&
      (i.provenance === 'absent') === (i.provenanceSize === undefined),
    { error: 'provenance must have provenanceDigest and provenanceSize unless it is "absent"' },
  );

const dependency = z.strictObject({
  name: word,
  version: free,
  alias: word.exactOptional(),
  repository: free,
  from: z.enum(['vendored', 'fetched']),
  archive: digest.exactOptional(),
});

const chart = z
  .strictObject({
    name: word,
    version,
    appVersion: free.nullable(),
    dir: z.string(),
    source: z.discriminatedUnion('type', [
      z.strictObject({
        type: z.literal('http'),
        repo: text(isWebUrl, 'a URL'),
        url: text(isWebUrl, 'a URL'),
      }),
      z.strictObject({ type: z.literal('oci'), ref: text(isOciReference, 'an oci:// reference') }),
      z.strictObject({ type: z.literal('path'), path: localPath }),
    ]),
    integrity,
    allowIndexMismatch: free.min(1).exactOptional(),
    size,
    manifest: blob,
    config: blob,
    dependencies: z.array(dependency),
    values: z.array(z.strictObject({ path: localPath, sha256: digest })),
    usedBy,
  })
  .refine((c) => c.dir === chartDir(c), {
    path: ['dir'],
    error: 'not charts/external/<name>-<version>',
  });

const file = z.strictObject({
  name: text(isFileName, 'a relative file name'),
  source: fileSource,
  size,
  sha256: digest,
  mode: text(matching(MODE), 'a mode of four octal digits'),
});

/** The shape of versions.lock but for its images, which may be many: `imageSchema` checks each. Order and uniqueness of entries are checked by `parseLock`. */
export const lockSchema = z.strictObject({
  lockVersion: z.literal(LOCK_VERSION),
  name: text(matching(BUNDLE_NAME), 'a bundle name'),
  version,
  images: z.array(z.unknown()),
  charts: z.array(chart),
  files: z.array(file),
  python: pythonSchema.exactOptional(),
});
