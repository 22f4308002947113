import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { formatPlatform } from '../../src/core/platform.ts';
import { imageName } from '../../src/core/reference.ts';
import { loadManifest } from '../../src/manifest/load.ts';
import { manifestSchemaText } from '../../src/manifest/schema.ts';
import { faultsOf, folderOf, HEAD } from './folder.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const lists = `${root}/../shared/data/imagelists`;

describe('the example manifests', () => {
  it('are all named in this test', async () => {
    const found = (await readdir(`${root}/manifests`)).filter((name) => name.endsWith('.yaml'));
    expect(found.toSorted()).toEqual([
      'astrago.yaml',
      'minimal.yaml',
      'platforms.yaml',
      'python.yaml',
      'replace.yaml',
    ]);
  });

  it('minimal.yaml carries two images for one platform', async () => {
    const { manifest, warnings } = await loadManifest(`${root}/manifests/minimal.yaml`);
    expect(warnings).toEqual([]);
    expect(manifest.version).toBe('1.0');
    expect(Array.from(manifest.images, (i) => imageName(i.ref))).toEqual([
      'docker.io/library/nginx:1.25.2',
      'docker.io/library/redis:7.4.1',
    ]);
  });

  it('platforms.yaml chooses platforms per image', async () => {
    const { manifest } = await loadManifest(`${root}/manifests/platforms.yaml`);
    const platforms = Array.from(manifest.images, (i) =>
      i.platforms === 'all' ? 'all' : i.platforms.map(formatPlatform).join(' '),
    );
    expect(platforms).toEqual(['linux/amd64', 'linux/amd64 linux/arm64', 'linux/arm/v7', 'all']);
  });

  it('replace.yaml takes the bytes of one image from another', async () => {
    const { manifest, warnings } = await loadManifest(`${root}/manifests/replace.yaml`);
    expect(warnings).toEqual([]);
    const [image] = manifest.images;
    expect(imageName(image?.ref ?? { host: '', repository: '' })).toBe('ghcr.io/nobody/pypi:latest');
    expect(image?.replacedBy).toBe('docker.io/jonasal/devpi-server:6.17.0-alpine');
  });

  it('python.yaml asks for packages for four targets', async () => {
    const { manifest, warnings } = await loadManifest(`${root}/manifests/python.yaml`);
    expect(warnings).toEqual([]);
    expect(manifest.python).toMatchObject({
      requirements: ['files/requirements.txt'],
      packages: ['uvicorn[standard]', "tomli; python_version < '3.11'"],
      pythons: ['3.10', '3.11'],
      platforms: ['linux/amd64', 'linux/arm64'],
      indexes: [],
      sdists: false,
    });
    expect(existsSync(`${root}/manifests/files/requirements.txt`)).toBe(true);
  });

  it('astrago.yaml uses everything, and what it names is there', async () => {
    const { manifest, warnings } = await loadManifest(`${root}/manifests/astrago.yaml`);
    expect(warnings).toEqual([]);
    expect(manifest.version).toBe('2026.11');
    expect(Array.from(manifest.images, (i) => i.origins)).toContainEqual([
      'astrago.yaml',
      'imagelists/astrago.txt',
    ]);
    expect(manifest.images).toHaveLength(7);
    expect(manifest.charts.map((c) => c.kind)).toEqual(['repo', 'oci', 'path']);
    for (const chart of manifest.charts) {
      for (const path of chart.values) expect(existsSync(`${root}/manifests/${path}`), path).toBe(true);
      if (chart.kind === 'path') {
        expect(existsSync(`${root}/manifests/${chart.path}/Chart.yaml`)).toBe(true);
      }
    }
    const local = manifest.files.filter((f) => f.path !== undefined);
    expect(local).toHaveLength(1);
    for (const file of local) {
      const bytes = await readFile(`${root}/manifests/${file.path}`);
      expect(`sha256:${createHash('sha256').update(bytes).digest('hex')}`).toBe(file.sha256);
    }
    expect(manifest.registries['10.1.2.3:5000']).toEqual({ plainHttp: true, mirrors: [] });
  });
});

describe('the JSON schema for editors', () => {
  it('in manifests/ is what the code makes: after a change run `npm run build && npm run schema`', async () => {
    const written = await readFile(`${root}/manifests/sealift.schema.json`, 'utf8');
    expect(written).toBe(manifestSchemaText());
  });

  it('describes every key and takes an unquoted version', () => {
    const schema = JSON.parse(manifestSchemaText());
    for (const [key, value] of Object.entries(schema.properties)) {
      expect(value, key).toHaveProperty('description');
    }
    expect(schema.properties.version.type).toEqual(['string', 'number']);
    expect(schema.additionalProperties).toBe(false);
    expect(schema.required).toEqual(['apiVersion', 'name', 'version']);
  });
});

describe.skipIf(!existsSync(lists))(
  'the real lists of ../shared/data/imagelists (skipped where absent)',
  () => {
    it('are read, with a warning for each floating tag', async () => {
      const files: Record<string, string> = { 'sealift.yaml': `${HEAD}imageLists: ["l/*.txt"]\n` };
      for (const name of await readdir(lists))
        files[`l/${name}`] = await readFile(`${lists}/${name}`, 'utf8');
      const folder = await folderOf(files);
      const lines = Object.entries(files)
        .filter(([name]) => name.startsWith('l/'))
        .flatMap(([, text]) => text.split('\n').map((l) => l.trim()))
        .filter((l) => l !== '' && !l.startsWith('#'));
      const { manifest, warnings } = await loadManifest(`${folder}/sealift.yaml`);
      expect(manifest.images.length).toBeGreaterThan(50);
      expect(Array.from(manifest.images, (i) => i.text).toSorted()).toEqual([...new Set(lines)].toSorted());
      const floating = new Set(
        lines.filter((l) => l.endsWith(':latest') || !l.split('/').at(-1)?.includes(':')),
      );
      expect(warnings.map((w) => w.code)).toEqual([...floating].map(() => 'IMAGE_TAG_FLOATING'));
    });

    it('are told apart from lists that are broken', async () => {
      const text = await readFile(`${lists}/astrago.txt`, 'utf8');
      const folder = await folderOf({
        'sealift.yaml': `${HEAD}imageLists: [a.txt]\n`,
        'a.txt': text.replace('docker.io/xiilab', 'docker.io/Xiilab'),
      });
      expect(await faultsOf(loadManifest(`${folder}/sealift.yaml`))).toEqual([
        expect.stringMatching(/^a\.txt:4:1 .*names are lower case$/),
      ]);
    });
  },
);
