/** A registry client with what it needs, and the credential files of a person who does not exist. */
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Descriptor } from '../../src/core/descriptor.ts';
import { digestOf } from '../../src/io/verify.ts';
import { type HostConfig, Registry } from '../../src/oci/registry.ts';
import { type RegistryOptions, type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { type TestContext, testClient, testContext } from '../io/server.ts';

export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const INDEX = 'application/vnd.oci.image.index.v1+json';

/** A folder that goes away with the test. */
export async function tempDir(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sealift-oci-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** Writes files below a folder; values that are no text become JSON. */
export async function writeFiles(dir: string, files: Readonly<Record<string, unknown>>): Promise<void> {
  for (const [name, value] of Object.entries(files)) {
    const path = join(dir, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, typeof value === 'string' ? value : JSON.stringify(value));
  }
}

/** A credential helper that is a shell script, in `<home>/bin`. Its input is in `<home>/asked`. */
export async function writeHelper(home: string, name: string, body: string): Promise<void> {
  const path = join(home, 'bin', `docker-credential-${name}`);
  await writeFiles(home, {
    [`bin/docker-credential-${name}`]: `#!/bin/sh\n[ "$1" = get ] || exit 9\n${body}\n`,
  });
  await chmod(path, 0o755);
}

/** The environment of a person whose home is `home`. */
export function envOf(home: string): Record<string, string> {
  return { HOME: home, PATH: `${join(home, 'bin')}:/usr/bin:/bin` };
}

export function basicAuth(user: string, password: string): string {
  return Buffer.from(`${user}:${password}`).toString('base64');
}

/** The environment of a person whose docker configuration has these `auths`. */
export async function loggedIn(
  auths: Readonly<Record<string, unknown>> = {},
): Promise<Record<string, string>> {
  const home = await tempDir();
  await writeFiles(home, { '.docker/config.json': { auths } });
  return envOf(home);
}

export interface Bench {
  readonly registry: Registry;
  readonly context: TestContext;
}

/** A client of the registry at `host`. */
export function client(
  host: string,
  options: { readonly context?: TestContext; readonly config?: HostConfig } = {},
): Bench {
  const context = options.context ?? testContext({ HOME: '/nonexistent' });
  const http = testClient(context);
  const config = options.config === undefined ? {} : { config: options.config };
  return { context, registry: new Registry(host, { http, context, ...config }) };
}

/** A registry in memory that ends with the test. */
export async function runRegistry(options: Omit<RegistryOptions, 'storage'> = {}): Promise<RunningRegistry> {
  const running = await startRegistry({ storage: 'memory', ...options });
  onTestFinished(() => running.close());
  return running;
}

export function blobOf(content: string | Buffer): {
  readonly bytes: Buffer;
  readonly descriptor: Descriptor;
} {
  const bytes = Buffer.from(content);
  const descriptor = { mediaType: 'application/octet-stream', digest: digestOf(bytes), size: bytes.length };
  return { bytes, descriptor };
}

/** JSON as a manifest or index. */
export function manifestOf(
  body: Readonly<Record<string, unknown>>,
  mediaType = MANIFEST,
): { readonly bytes: Buffer; readonly descriptor: Descriptor } {
  const bytes = Buffer.from(JSON.stringify(body));
  return { bytes, descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length } };
}

/** A stream factory over some bytes, that counts how often it was asked. */
export function source(
  bytes: Buffer,
  chunk = 16_384,
): { open: () => AsyncGenerator<Buffer>; opened: number } {
  const self = {
    opened: 0,
    async *open(): AsyncGenerator<Buffer> {
      self.opened++;
      for (let at = 0; at < bytes.length; at += chunk) yield bytes.subarray(at, at + chunk);
    },
  };
  return self;
}

/** Puts an image of one layer and returns it. */
export async function pushImage(
  registry: Registry,
  place: { readonly repository: string; readonly tag: string },
): Promise<ReturnType<typeof manifestOf>> {
  const config = blobOf('{}');
  const layer = blobOf(`layer of ${place.tag}`);
  for (const { bytes, descriptor } of [config, layer]) {
    await registry.writeBlob(place.repository, descriptor, source(bytes).open);
  }
  const image = manifestOf({
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: config.descriptor,
    layers: [layer.descriptor],
  });
  await registry.putManifest(place.repository, place.tag, image);
  return image;
}
