import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import type { OnConflict } from '../../src/target/target.ts';
import { helmTarget } from '../../src/target/web/helm.ts';
import { testContext } from '../io/server.ts';
import { chartArchive, demoFiles } from '../support/charts.ts';
import { onEachNexus } from '../support/nexus.ts';
import { askNexus, listAssets, makeRepository, type NexusLogin } from '../support/nexus-server.ts';
import { peer, run } from '../support/peers.ts';
import { chartItem, contentOf, runAll, webServer } from '../target/small-nexus.ts';

const sha1 = (bytes: Uint8Array): string => createHash('sha1').update(bytes).digest('hex');

/** What `helm package --sign` writes, but for the signature itself: Nexus reads the chart's name in it. */
function provenanceOf(version: string, archive: Uint8Array): Buffer {
  const files = `files:\n  web-${version}.tgz: ${digestOf(archive)}\n`;
  const chart = `apiVersion: v2\nname: web\nversion: ${version}\n\n...\n${files}`;
  const signature =
    '-----BEGIN PGP SIGNATURE-----\n\nwsBcBAEBCgAQBQJkAAAA\n=abcd\n-----END PGP SIGNATURE-----\n';
  return Buffer.from(`-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n${chart}${signature}`);
}

function helmOf(nexus: NexusLogin, repository: { readonly name: string }, onConflict: OnConflict = 'fail') {
  const server = webServer(nexus, testContext());
  return helmTarget({ server, repository: repository.name, onConflict });
}

onEachNexus(['helm'], (nexus) => {
  it('gets charts and provenance byte for byte, lists them, and gets nothing the second time', async () => {
    const repository = await makeRepository(nexus, 'helm');
    const [one, two] = [
      await chartArchive(demoFiles('web', '1.0.0'), 'web'),
      await chartArchive(demoFiles('web', '1.1.0+build.7'), 'web'),
    ];
    const prov = provenanceOf('1.0.0', one);
    const items = [chartItem('1.0.0', { archive: one, prov }), chartItem('1.1.0+build.7', { archive: two })];
    const options = { context: testContext(), source: contentOf(one, two, prov) };
    const first = await runAll(helmOf(nexus, repository), items, options);
    expect(first.entries.map(({ state, fault }) => fault?.message ?? state)).toEqual(
      first.entries.map(() => 'written'),
    );
    const assets = await listAssets(nexus, repository.name);
    expect(assets).toEqual(
      expect.arrayContaining([
        `web-1.0.0.tgz ${sha1(one)}`,
        `web-1.0.0.tgz.prov ${sha1(prov)}`,
        `web-1.1.0+build.7.tgz ${sha1(two)}`,
      ]),
    );
    const { text } = await askNexus(nexus, { path: `../../repository/${repository.name}/index.yaml` });
    for (const bytes of [one, two]) expect(text).toContain(digestOf(bytes).slice('sha256:'.length));
    // Helm keeps what it pulled in the folder that it is told.
    const dir = await mkdtemp(join(tmpdir(), 'sealift-helm-'));
    for (const [version, bytes] of [
      ['1.0.0', one],
      ['1.1.0+build.7', two],
    ] as const) {
      const pull = [
        'pull',
        'web',
        '--repo',
        `${repository.url}/`,
        '--version',
        version,
        '--destination',
        dir,
      ];
      await run(peer('helm'), [...pull, '--username', nexus.username, '--password', nexus.password]);
      expect(await readFile(join(dir, `web-${version}.tgz`))).toEqual(bytes);
    }
    await rm(dir, { recursive: true });
    const second = await runAll(helmOf(nexus, repository), items, options);
    expect(second.entries.map(({ state }) => state)).toEqual(['present', 'present', 'present']);
    await repository.remove();
  });

  it('keeps another chart of the same version and shows both digests; the others arrive', async () => {
    const repository = await makeRepository(nexus, 'helm');
    const old = await chartArchive(demoFiles('web', '1.0.0'), 'web');
    const changed = await chartArchive({ ...demoFiles('web', '1.0.0'), 'values.yaml': 'a: 1\n' }, 'web');
    const next = await chartArchive(demoFiles('web', '2.0.0'), 'web');
    const options = { context: testContext(), source: contentOf(old, changed, next) };
    await runAll(helmOf(nexus, repository), [chartItem('1.0.0', { archive: old })], options);
    const items = [chartItem('1.0.0', { archive: changed }), chartItem('2.0.0', { archive: next })];
    const loaded = await runAll(helmOf(nexus, repository), items, options);
    expect(loaded.entries.map(({ state }) => state)).toEqual(['failed', 'written']);
    expect(loaded.entries[0]?.fault?.message).toContain(
      `expected ${digestOf(changed)}, found ${digestOf(old)}`,
    );
    const replacing = await runAll(helmOf(nexus, repository, 'replace'), items, options);
    expect(replacing.entries[0]?.fault?.hint).toContain('Allow redeploy');
    expect(await listAssets(nexus, repository.name)).toContain(`web-1.0.0.tgz ${sha1(old)}`);
    await repository.remove();
  });
});
