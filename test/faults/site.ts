/** A locked site behind one fault proxy and a target behind another: runs pack and load, and looks at what they leave. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { expect } from 'vitest';
import { faultOf, SealiftError } from '../../src/core/errors.ts';
import type { Context, Event } from '../../src/core/events.ts';
import { HttpClient } from '../../src/io/http.ts';
import { Registry } from '../../src/oci/registry.ts';
import { type LoadResult, load } from '../../src/ops/load.ts';
import { lock } from '../../src/ops/lock.ts';
import { pack } from '../../src/ops/pack.ts';
import type { AuthOptions } from '../../src/serve/auth.ts';
import { startRegistry } from '../../src/serve/registry.ts';
import { placeOf } from '../support/bundles.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { type FleetImage, type FleetOptions, makeFleet, pushImage } from '../support/fleet.ts';

const PASSWORD = 'hunter2-of-the-faults';
const AUTH: AuthOptions = { kind: 'bearer', users: { ann: PASSWORD } };

/** What a run ended with. */
export interface Outcome {
  readonly events: readonly Event[];
  /** undefined: it did what it should. */
  readonly error: unknown;
}

export interface FaultSite {
  readonly dir: string;
  readonly images: readonly FleetImage[];
  /** Before the registry that is packed from. */
  readonly source: FaultProxy;
  /** Before the registry that is loaded into. */
  readonly target: FaultProxy;
  /** The bundle as it must be. */
  readonly bundle: string;
  readonly bytes: Buffer;
  /** A new empty registry behind `target`. */
  emptyTarget(): Promise<void>;
  pack(out: string): Promise<Outcome>;
  load(): Promise<Outcome & { readonly result: LoadResult | undefined }>;
  /** Fails when the target holds a wrong byte, or lacks one while `whole`. */
  checkTarget(whole: boolean): Promise<void>;
  /** Fails when a password or a token is in what a run told or left below `path`. */
  checkSecrets(outcome: Outcome, path: string): Promise<void>;
  close(): Promise<void>;
}

function contextOf(home: string, events: Event[]): Context {
  return {
    signal: new AbortController().signal,
    emit: (event) => events.push(event),
    env: { HOME: home },
    now: Date.now,
    random: () => 0,
  };
}

/** Where the limits are short a registry on a busy machine closes a connection in the middle: what it has is not sent again. */
async function pushPatiently(host: string, image: FleetImage): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await pushImage(host, image);
      return;
    } catch (error) {
      if (!(error instanceof TypeError) || tries === 20) throw error;
    }
  }
}

/** A registry with content that asks for tokens: it is filled first, through one that does not. */
async function filledRegistry(dir: string, images: readonly FleetImage[]) {
  const open = await startRegistry({ storage: { dir } });
  for (const image of images) await pushPatiently(open.host, image);
  await open.close();
  return await startRegistry({ storage: { dir }, auth: AUTH });
}

async function logIn(home: string, hosts: readonly string[]): Promise<void> {
  const auth = Buffer.from(`ann:${PASSWORD}`).toString('base64');
  const auths = Object.fromEntries(hosts.map((host) => [host, { auth }]));
  await mkdir(join(home, '.docker'), { recursive: true });
  await writeFile(join(home, '.docker', 'config.json'), JSON.stringify({ auths }));
}

async function filesBelow(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries.filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name));
}

/** All that a person, a log or `--json` could be shown of an error. */
function shown(error: unknown): string {
  const e = error instanceof SealiftError ? error : undefined;
  return inspect([String(error), e?.hint, e?.details, e?.faults, faultOf(error)], { depth: 20 });
}

/** A clear error: ours, with a code that is no bug, and with what to do. */
export function expectClear(error: unknown): void {
  expect(error).toBeInstanceOf(SealiftError);
  const e = error as SealiftError;
  expect(e.code).not.toBe('INTERNAL');
  const where = expect.stringMatching(/127\.0\.0\.1|sha256/);
  // Several at once: each of them says where and what to do.
  for (const fault of e.faults.length > 0 ? e.faults : [e]) {
    expect([fault.message, fault.hint ?? e.hint]).toEqual([where, expect.any(String)]);
  }
}

/** What went wrong in a load, as one error. */
function loadError(result: LoadResult): unknown {
  const faults = result.targets.flatMap((t) => [t.fault, ...t.entries.map((e) => e.fault)]);
  const first = faults.find((f) => f !== null);
  if (first === undefined || first === null) return undefined;
  const { code, message, hint } = first;
  return new SealiftError(code, message, hint === undefined ? {} : { hint });
}

/** Makes the site. `fleet` is small by default: two platforms, layers of some 100 KB. */
export async function openFaultSite(fleet: FleetOptions = {}): Promise<FaultSite> {
  const dir = await mkdtemp(join(tmpdir(), 'sealift-faults-'));
  const home = join(dir, 'home');
  const images = makeFleet({ images: 2, layerSizes: [150_000, 9_000], baseSize: 200_000, ...fleet });
  const registry = await filledRegistry(join(dir, 'registry'), images);
  const source = await startFaultProxy(registry.host);
  const target = await startFaultProxy('127.0.0.1:9');
  await logIn(home, [source.host, target.host]);
  const manifestPath = join(dir, 'site', 'sealift.yaml');
  await mkdir(join(dir, 'site'));
  const refs = images.map((i) => `  - ${source.host}/${i.name}:${i.tag}\n`).join('');
  const head = 'apiVersion: sealift/v1\nname: faults\nversion: "1"\nplatforms: [linux/amd64, linux/arm64]\n';
  await writeFile(manifestPath, `${head}images:\n${refs}`);
  await lock({ manifestPath }, contextOf(home, []));
  const bundle = join(dir, 'good.tar');
  await pack({ manifestPath, out: bundle }, contextOf(home, []));
  let empty = await startRegistry({ storage: 'memory', auth: AUTH });
  target.upstream = empty.host;

  const readTarget = async (whole: boolean): Promise<void> => {
    const context = contextOf(home, []);
    const http = new HttpClient(context);
    const client = new Registry(target.host, { http, context });
    try {
      for (const image of images) {
        const tag = await client.resolve(image.name, image.tag);
        if (whole || tag !== undefined) await checkImage(client, image, context.signal);
      }
    } finally {
      await http.close();
    }
  };

  return {
    dir,
    images,
    source,
    target,
    bundle,
    bytes: await readFile(bundle),
    emptyTarget: async () => {
      await empty.close();
      empty = await startRegistry({ storage: 'memory', auth: AUTH });
      target.upstream = empty.host;
    },
    pack: async (out) => {
      const events: Event[] = [];
      const error = await pack({ manifestPath, out }, contextOf(home, events)).then(
        () => undefined,
        (e: unknown) => e,
      );
      return { events, error };
    },
    load: async () => {
      const events: Event[] = [];
      const receiptPath = join(dir, 'receipt', 'receipt.json');
      await mkdir(join(dir, 'receipt'), { recursive: true });
      try {
        const result = await load(
          { bundle, registries: [placeOf(target)], receiptPath },
          contextOf(home, events),
        );
        return { events, result, error: loadError(result) };
      } catch (error) {
        return { events, result: undefined, error };
      }
    },
    checkTarget: async (whole) => {
      target.decide = () => undefined;
      await readTarget(whole);
    },
    checkSecrets: async (outcome, path) => {
      const secrets = [PASSWORD, ...source.secrets, ...target.secrets].filter((s) => s.length > 8);
      expect(secrets.length).toBeGreaterThan(1);
      const texts = [shown(outcome.error), inspect(outcome.events, { depth: 20 })];
      for (const file of await filesBelow(path)) texts.push((await readFile(file)).toString('latin1'));
      for (const secret of secrets) expect(texts.findIndex((t) => t.includes(secret))).toBe(-1);
    },
    close: async () => {
      await source.close();
      await target.close();
      await registry.close();
      await empty.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Reads a whole image; the client verifies every digest. */
async function checkImage(client: Registry, image: FleetImage, signal: AbortSignal): Promise<void> {
  const top = await client.getManifest(image.name, image.tag);
  expect(top.bytes.equals(image.index.bytes)).toBe(true);
  for (const manifest of image.manifests) {
    const found = await client.getManifest(image.name, manifest.digest);
    expect(found.bytes.equals(manifest.bytes)).toBe(true);
  }
  for (const [digest, blob] of image.blobs) {
    let size = 0;
    const descriptor = { digest, size: blob.size, mediaType: blob.mediaType };
    for await (const chunk of client.readBlob(image.name, descriptor, { signal })) size += chunk.length;
    expect(size).toBe(blob.size);
  }
}
