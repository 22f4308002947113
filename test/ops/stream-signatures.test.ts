/** Signed bundles through pipes: who signed stands at the end, and nothing is visible before it was judged. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { Readable, Writable } from 'node:stream';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Event } from '../../src/core/events.ts';
import { type LoadOptions, type LoadResult, load } from '../../src/ops/load.ts';
import { pack } from '../../src/ops/pack.ts';
import { packSigned } from '../../src/ops/pack-signed.ts';
import { verify } from '../../src/ops/verify.ts';
import { publicKeyFile } from '../../src/trust/public-key.ts';
import { contextOf, openSite, packSite } from '../bundle/site.ts';
import { type Fake, startFake } from '../target/containerd-fake.ts';
import { keyOf } from '../trust/keys.ts';

const site = await openSite();
const plain = await packSite(site);
const keys: { readonly path: string; readonly pub: string; readonly id: string }[] = [];
for (const word of ['a', 'b']) {
  const { secret, file } = await keyOf(word);
  const [path, pub] = [site.path(`${word}.key`), site.path(`${word}.pub`)];
  await writeFile(path, file);
  await writeFile(pub, publicKeyFile(secret.public));
  keys.push({ path, pub, id: secret.public.id });
}
const [ours = { path: '', pub: '', id: '' }, foreign = ours] = keys;
const password = async (): Promise<string> => Promise.reject(new Error('it has none'));
afterAll(() => site.close());

/** What a signed pack gives to an output. */
async function streamed(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const output = new Writable({
    write: (chunk: Buffer, _, done) => {
      chunks.push(Buffer.from(chunk));
      done();
    },
  });
  const key = { path: ours.path, password };
  const { signature } = await packSigned(
    { manifestPath: site.manifestPath, out: '-', output, key },
    contextOf(),
  );
  expect(signature).toMatchObject({ keyId: ours.id, name: 'site', version: '2026.11', written: true });
  return Buffer.concat(chunks);
}

const signed = await streamed();
let fake: Fake;
let count = 0;

beforeEach(async () => {
  fake = await startFake();
  count += 1;
});

afterEach(() => fake.stop());

function loadOf(bytes: Buffer, more: Partial<LoadOptions> = {}): Promise<LoadResult> {
  const containerd = [{ socket: fake.socket, namespaces: ['k8s.io'] }];
  const to = { containerd, files: [site.path(`files-${count}`)], chartTrees: [site.path(`trees-${count}`)] };
  return load({ bundle: '-', input: Readable.from([bytes]), ...to, ...more }, contextOf());
}

/** Nothing of the load is seen: no image, no lease, no file, no tree. */
async function expectNothing(): Promise<void> {
  expect([fake.images.size, fake.leases.size]).toEqual([0, 0]);
  for (const folder of ['files', 'trees']) {
    const names = await readdir(site.path(`${folder}-${count}`), { recursive: true }).catch(() => []);
    expect(names.filter((name) => name !== 'bin')).toEqual([]);
  }
}

describe('a signed stream', () => {
  it('is the bytes of the bundle, with a signature that verify takes', async () => {
    expect(signed.subarray(0, plain.bytes.length - 1024).equals(plain.bytes.subarray(0, -1024))).toBe(true);
    await writeFile(site.path('signed.tar'), signed);
    const found = await verify({ bundle: site.path('signed.tar'), keys: [ours.pub] }, contextOf());
    expect(found.faults).toEqual([]);
  });

  it('is loaded with its key, and the receipt names it', async () => {
    const result = await loadOf(signed, { keys: [ours.pub] });
    expect([result.failed, result.bundle.signedBy]).toEqual([0, ours.id]);
    expect(JSON.parse(JSON.stringify(result.bundle)).signedBy).toBe(ours.id);
    expect(fake.images.size).toBeGreaterThan(0);
    expect(await readFile(site.path(`files-${count}`, 'notes.txt'), 'utf8')).toContain('read me first');
  });

  it('is planned by a dry run, which says that it does not know who signed it', async () => {
    const events: Event[] = [];
    const containerd = [{ socket: fake.socket, namespaces: ['k8s.io'] }];
    const options = { bundle: '-', containerd, keys: [ours.pub], dryRun: true };
    const result = await load({ ...options, input: Readable.from([signed]) }, contextOf({ events }));
    expect(result.bundle.signedBy).toBeNull();
    const notes = events.flatMap((e) => (e.type === 'note' ? [e.message] : []));
    expect(notes).toContainEqual(expect.stringContaining('which --dry-run does not read'));
  });

  it('is loaded unchecked where nobody says what is trusted', async () => {
    const result = await loadOf(signed);
    expect([result.failed, result.bundle.signedBy]).toEqual([0, null]);
  });

  const flipped = (at: number): Buffer => {
    const bytes = Buffer.from(signed);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return bytes;
  };
  const text = signed.toString('latin1');

  it.each<[string, () => Buffer, string, () => readonly string[]]>([
    ['without a signature', () => plain.bytes, 'SIGNATURE_MISSING', () => [ours.pub]],
    ['of a foreign key', () => signed, 'SIGNATURE_KEY_UNKNOWN', () => [foreign.pub]],
    [
      'with another trusted comment',
      () => flipped(text.lastIndexOf('version=2026') + 10),
      'SIGNATURE_INVALID',
      () => [ours.pub],
    ],
    [
      'with another signature',
      () => flipped(text.lastIndexOf('trusted comment') - 30),
      'SIGNATURE_INVALID',
      () => [ours.pub],
    ],
  ])('%s is refused, with nothing visible', async (_, make, code, trusted) => {
    await expect(loadOf(make(), { keys: trusted() })).rejects.toMatchObject({ code });
    await expectNothing();
  });

  it('below the lowest version of the site is refused before its blobs come', async () => {
    const sitePath = site.path('site.yaml');
    await writeFile(sitePath, 'apiVersion: sealift-site/v1\ntrust: {minVersion: 2026.12}\n');
    const head = signed.subarray(0, (plain.entries.find((e) => e.kind === 'config')?.offset ?? 0) - 512);
    await expect(loadOf(head, { sitePath })).rejects.toMatchObject({ code: 'POLICY_DOWNGRADE' });
    await expectNothing();
  });
});

describe('a delta through a pipe', () => {
  it('is refused, because what it leaves out cannot be proved before', async () => {
    const out = site.path('delta.tar');
    await pack({ manifestPath: site.manifestPath, out, since: [plain.path] }, contextOf());
    await expect(loadOf(await readFile(out))).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining('is a delta or a repair'),
    });
    await expectNothing();
  });
});
