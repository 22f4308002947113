import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Digest } from '../../src/core/digest.ts';
import { HttpClient } from '../../src/io/http.ts';
import { digestOf } from '../../src/io/verify.ts';
import { type ManifestContent, Registry } from '../../src/oci/registry.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { type ConflictRule, putTag } from '../../src/target/registry-conflicts.ts';
import { RegistryEntry } from '../../src/target/registry-plan.ts';
import { contextOf } from '../bundle/site.ts';
import { createStore, makeImage } from './containerd-fixture.ts';

let there: RunningRegistry;
let http: HttpClient;
let registry: Registry;
const context = contextOf();

beforeEach(async () => {
  there = await startRegistry({ storage: 'memory', acceptSparse: true });
  http = new HttpClient(context);
  registry = new Registry(there.host, { http, context });
});
afterEach(async () => {
  await http.close();
  await there.close();
});

function indexOf(note: string): ManifestContent {
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const bytes = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType, manifests: [], annotations: { note } }),
  );
  return { bytes, descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length } };
}

/** A tag that the plan did not find, and that somebody pushed before it is written. */
async function lateTag(onConflict: ConflictRule['onConflict']): Promise<{
  readonly entry: RegistryEntry;
  readonly put: Promise<boolean>;
  readonly theirs: Digest;
  readonly ours: Digest;
}> {
  const item = await makeImage(createStore(), 'app:1.0');
  const entry = new RegistryEntry(item, { host: there.host, place: { repository: 'app', tag: '1.0' } });
  entry.added = { names: ['1.0'], manifests: [] };
  const [theirs, ours] = [indexOf('theirs'), indexOf('ours')];
  await registry.putManifest('app', '1.0', theirs);
  const put = putTag(registry, entry, { content: ours, context, rule: { onConflict, movesLatest: false } });
  return { entry, put, theirs: theirs.descriptor.digest, ours: ours.descriptor.digest };
}

describe('a tag that came after the plan', () => {
  it('is told where the target says fail, and is never taken for what the load added', async () => {
    const { entry, put, theirs } = await lateTag('fail');
    expect(await put).toBe(false);
    expect(entry).toMatchObject({ state: 'failed', found: theirs, fault: { code: 'TARGET_CONFLICT' } });
    expect(entry.added).toEqual({ names: [], manifests: [] });
    expect(await registry.resolve('app', '1.0')).toBe(theirs);
  });

  it('stays where the target says keep', async () => {
    const { entry, put, theirs } = await lateTag('keep');
    expect(await put).toBe(false);
    expect(entry.state).toBe('kept');
    expect(await registry.resolve('app', '1.0')).toBe(theirs);
  });

  it('is written over where the target says replace', async () => {
    const { put, ours } = await lateTag('replace');
    expect(await put).toBe(true);
    expect(await registry.resolve('app', '1.0')).toBe(ours);
  });
});
