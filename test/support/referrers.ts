/** What is about images, made by hand in the shape of cosign and of OCI 1.1, and pushed to a registry. */
import { createHash } from 'node:crypto';
import type { Digest } from '../../src/core/digest.ts';

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const EMPTY = { mediaType: 'application/vnd.oci.empty.v1+json', digest: shaOf('{}'), size: 2 };

export function shaOf(bytes: string | Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export interface Described {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

async function mustBe(response: Response, status: number): Promise<void> {
  const text = await response.text();
  if (response.status !== status) throw new Error(`${response.url}: ${response.status} ${text}`);
}

/** Pushes a blob by one POST and one PUT. */
export async function pushBlob(at: string, bytes: string | Uint8Array): Promise<Described> {
  const digest = shaOf(bytes);
  const started = await fetch(`${at}/blobs/uploads/`, { method: 'POST' });
  await mustBe(started, 202);
  const url = new URL(started.headers.get('location') ?? '', at);
  url.searchParams.set('digest', digest);
  const body = typeof bytes === 'string' ? bytes : Buffer.from(bytes);
  await mustBe(await fetch(url, { method: 'PUT', body }), 201);
  return { mediaType: 'application/octet-stream', digest, size: Buffer.byteLength(bytes) };
}

/** Pushes a manifest under a tag, or under its digest. @param at `http://host:port/v2/<name>` */
export async function pushManifest(
  at: string,
  body: unknown,
  more: { readonly tag?: string; readonly mediaType?: string } = {},
): Promise<Described> {
  const bytes = typeof body === 'string' ? body : JSON.stringify(body);
  const mediaType = more.mediaType ?? OCI_MANIFEST;
  const digest = shaOf(bytes);
  const url = `${at}/manifests/${more.tag ?? digest}`;
  const headers = { 'content-type': mediaType };
  await mustBe(await fetch(url, { method: 'PUT', headers, body: bytes }), 201);
  return { mediaType, digest, size: Buffer.byteLength(bytes) };
}

/** A signature as cosign keeps it: a manifest under a tag that is made of the subject's digest. */
export async function signByTag(at: string, subject: Digest, suffix = 'sig'): Promise<Described> {
  const payload = JSON.stringify({ critical: { image: { 'docker-manifest-digest': subject } }, suffix });
  const layer = {
    ...(await pushBlob(at, payload)),
    mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
    annotations: { 'dev.cosignproject.cosign/signature': 'c2lnbmF0dXJl' },
  };
  const config = {
    ...(await pushBlob(at, '{"rootfs":{}}')),
    mediaType: 'application/vnd.oci.image.config.v1+json',
  };
  const tag = `${subject.replace(':', '-')}.${suffix}`;
  return pushManifest(at, { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] }, { tag });
}

/** An artifact whose `subject` is another manifest; with `configType` its kind is only in its config, as cosign's OCI 1.1 mode writes it. */
export async function attach(
  at: string,
  subject: Described,
  more: { readonly type?: string; readonly configType?: string; readonly text?: string } = {},
): Promise<Described> {
  const { type = 'application/vnd.example.report', text = `about ${subject.digest}`, configType } = more;
  await pushBlob(at, '{}');
  const layer = await pushBlob(at, text);
  const { mediaType, digest, size } = subject;
  return pushManifest(at, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    ...(configType === undefined ? { artifactType: type } : {}),
    config: configType === undefined ? EMPTY : { ...EMPTY, mediaType: configType },
    layers: [layer],
    subject: { mediaType, digest, size },
    annotations: { 'org.example.about': 'test' },
  });
}
