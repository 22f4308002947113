/** The few requests that the tests of the registry make again and again, by hand: no client library hides a wrong byte. */
import { createHash } from 'node:crypto';
import { expect } from 'vitest';

export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const INDEX = 'application/vnd.oci.image.index.v1+json';

export function digestOf(bytes: Uint8Array | string): `sha256:${string}` {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Pushes a blob in two requests. */
export async function pushBlob(url: string, repository: string, bytes: Buffer): Promise<`sha256:${string}`> {
  const start = await fetch(`${url}/v2/${repository}/blobs/uploads/`, { method: 'POST' });
  expect(start.status).toBe(202);
  const digest = digestOf(bytes);
  const location = locationOf(start, { digest });
  const put = await fetch(location, { method: 'PUT', body: bytes });
  expect(put.status).toBe(201);
  return digest;
}

/** Where an answer points, with more query parameters. */
export function locationOf(answer: Response, query: Readonly<Record<string, string>> = {}): string {
  const location = new URL(answer.headers.get('location') ?? 'missing:', answer.url);
  for (const [key, value] of Object.entries(query)) location.searchParams.set(key, value);
  return location.href;
}

export interface Artifact {
  readonly bytes: Buffer;
  readonly digest: `sha256:${string}`;
  readonly mediaType: string;
}

/** A manifest over the empty config and one layer, both pushed. More fields come last. */
export async function artifact(
  url: string,
  repository: string,
  more: Readonly<Record<string, unknown>> = {},
): Promise<Artifact> {
  const config = await pushBlob(url, repository, Buffer.from('{}'));
  const layer = await pushBlob(url, repository, Buffer.from('layer'));
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: { mediaType: 'application/vnd.oci.empty.v1+json', digest: config, size: 2 },
      layers: [{ mediaType: 'text/plain', digest: layer, size: 5 }],
      ...more,
    }),
  );
  return { bytes, digest: digestOf(bytes), mediaType: MANIFEST };
}

export function putManifest(
  url: string,
  place: { readonly repository: string; readonly reference: string },
  manifest: { readonly bytes: Buffer | string; readonly mediaType?: string },
): Promise<Response> {
  return fetch(`${url}/v2/${place.repository}/manifests/${place.reference}`, {
    method: 'PUT',
    headers: { 'content-type': manifest.mediaType ?? MANIFEST },
    body: manifest.bytes,
  });
}

/** The codes of an error answer. */
export async function errorCodes(answer: Response): Promise<string[]> {
  const body: unknown = await answer.json();
  expect(body).toMatchObject({ errors: expect.any(Array) });
  const { errors } = body as { errors: { code: string; message: string }[] };
  for (const error of errors) expect(error.message).not.toBe('');
  return errors.map((error) => error.code);
}
