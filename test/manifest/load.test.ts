import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadManifest } from '../../src/manifest/load.ts';
import { errorOf, faultsOf, folderOf, HEAD, load, loadRaw } from './folder.ts';

const SHA = 'a'.repeat(64);
const OTHER = 'b'.repeat(64);
const AMD64 = { os: 'linux', architecture: 'amd64' };
const ARM64 = { os: 'linux', architecture: 'arm64' };

describe('a manifest', () => {
  it('gives versions, modes and platforms exactly as written', async () => {
    const { manifest } = await loadRaw(`apiVersion: sealift/v1
name: test
version: 1.10
platforms: [linux/amd64, linux/aarch64]
images: [nginx:1.10]
charts:
  - {name: a, version: 1.20, repo: "https://charts.example/stable/", values: [./v.yaml]}
  - {name: b, version: v4.9.0+k8s, oci: oci://ghcr.io/x/b}
  - {path: ./charts/../own/}
files:
  - {url: "https://dl.example/x", name: bin/x, mode: 0755, sha256: ${SHA}}
  - {path: y, name: y}
`);
    expect(manifest.version).toBe('1.10');
    expect(manifest.platforms).toEqual([AMD64, ARM64]);
    expect(manifest.images.at(0)).toMatchObject({
      ref: { host: 'docker.io', repository: 'library/nginx', tag: '1.10' },
      text: 'nginx:1.10',
      platforms: [AMD64, ARM64],
      origins: ['sealift.yaml'],
    });
    expect(manifest.charts.map(({ position: _, ...chart }) => chart)).toEqual([
      { kind: 'repo', name: 'a', version: '1.20', repo: 'https://charts.example/stable', values: ['v.yaml'] },
      {
        kind: 'oci',
        name: 'b',
        version: 'v4.9.0+k8s',
        oci: 'oci://ghcr.io/x/b',
        ref: { host: 'ghcr.io', repository: 'x/b', tag: 'v4.9.0_k8s' },
        values: [],
      },
      { kind: 'path', path: 'own', values: [] },
    ]);
    expect(manifest.files.map(({ position: _, ...file }) => file)).toEqual([
      { name: 'bin/x', url: 'https://dl.example/x', mode: 0o755, sha256: `sha256:${SHA}` },
      { name: 'y', path: 'y', mode: 0o644 },
    ]);
  });

  it('carries every platform unless it says which', async () => {
    expect((await load('images: [nginx:1]\n')).manifest.images.at(0)?.platforms).toBe('all');
    const { manifest } = await load(
      'platforms: [linux/amd64]\nimages: [{ref: "nginx:1", platforms: all}, {ref: "redis:7", platforms: [linux/arm64]}]\n',
    );
    expect(Array.from(manifest.images, (i) => i.platforms)).toEqual(['all', [ARM64]]);
  });

  it('knows where each entry is written', async () => {
    const { manifest } = await load(`images:
  - nginx:1
  - {ref: "redis:7"}
charts:
  - path: charts/own
files:
  - name: x
    path: x
`);
    const places = [...manifest.images, ...manifest.charts, ...manifest.files].map(
      ({ position: p }) => `${p.line}:${p.column}`,
    );
    expect(places).toEqual(['5:5', '6:5', '8:5', '10:5']);
  });

  it('may have sections without entries', async () => {
    const { manifest } = await load(
      'images:\ncharts: []\nimageLists:\nfiles:\n  - {path: x, name: x}\nregistries:\n',
    );
    expect(manifest.files).toHaveLength(1);
  });

  it('names registries by host, the names of Docker Hub as one', async () => {
    const { manifest } = await load(`images: [nginx:1]
registries:
  "10.1.2.3:5000": {plainHttp: true}
  registry-1.docker.io: {mirrors: ["m.example/docker.io", "http://m.example:5000"], caFile: /etc/ca.pem}
  quay.io: {insecure: false, caFile: ca.pem, clientCert: certs/me.pem, clientKey: /etc/me.key}
`);
    expect(manifest.registries).toEqual({
      '10.1.2.3:5000': { plainHttp: true, mirrors: [] },
      'docker.io': { mirrors: ['m.example/docker.io', 'http://m.example:5000'], caFile: '/etc/ca.pem' },
      'quay.io': {
        insecure: false,
        caFile: 'ca.pem',
        clientCert: 'certs/me.pem',
        clientKey: '/etc/me.key',
        mirrors: [],
      },
    });
  });

  it('wants a client certificate and its key together', async () => {
    for (const lone of ['clientCert', 'clientKey']) {
      const work = load(`images: [nginx:1]\nregistries:\n  quay.io: {${lone}: me.pem}\n`);
      await expect(work).rejects.toMatchObject({
        code: 'MANIFEST_INVALID',
        message: expect.stringContaining(`${lone} stands without`),
      });
    }
  });

  it('warns of images without a tag or with the tag latest, once for each', async () => {
    const { warnings } = await load(
      `images: [nginx, "redis:latest", redis, "a.example/x@sha256:${SHA}", "b.example/y:latest@sha256:${SHA}"]\n`,
    );
    expect(warnings.map((w) => [w.code, w.position?.line, w.position?.column, w.message])).toEqual([
      ['IMAGE_TAG_FLOATING', 4, 10, 'image nginx has no tag: it may be other content tomorrow'],
      [
        'IMAGE_TAG_FLOATING',
        4,
        17,
        'image redis:latest has the tag "latest": it may be other content tomorrow',
      ],
    ]);
  });
});

describe('a manifest with faults', () => {
  it('tells all of them, with their places and what is allowed', async () => {
    const work = loadRaw(`apiVersion: sealift/v2
name: Test
version: true
platforms: linux/amd64
imags: [nginx]
images:
  - Nginx:1
  - {ref: "nginx:1", platform: [linux/amd64]}
  - {ref: "nginx:2", platforms: [linux]}
  - {ref: "nginx:3", platforms: []}
  - [x]
charts:
  - {name: a, version: ^1.0, repo: "https://charts.example"}
  - {name: a, version: 1.0.0}
  - {name: a, version: 1.0.0, repo: "https://charts.example", oci: "oci://x.example/a"}
  - {name: a, repo: charts.example, value: [x]}
  - {path: /etc}
  - text
files:
  - {url: "ftp://x.example/y", name: ../y, mode: "4755", sha256: abc}
registries:
  "https://x.example": {}
  y.example: {plainHTTP: true}
  z.example: {plainHttp: yes, mirrors: ["https://u:p@m.example"]}
`);
    const error = await errorOf(work);
    expect(error.code).toBe('MANIFEST_INVALID');
    expect(error.message).toMatch(/sealift\.yaml has 26 faults$/);
    expect(await faultsOf(Promise.reject(error))).toEqual([
      '1:13 apiVersion: expected "sealift/v1", found "sealift/v2"',
      '2:7 name: "Test" is not a bundle name',
      '3:10 version: expected text, found true',
      '4:12 platforms: expected "all" or a list of platforms, such as [linux/amd64], found "linux/amd64"',
      '5:1 unknown key "imags"; did you mean "images"?',
      '7:5 images[0]: "Nginx:1" is not an image reference: names are lower case',
      '8:22 images[1]: unknown key "platform"; did you mean "platforms"?',
      '9:34 images[2].platforms[0]: "linux" is not a platform',
      '10:33 images[3].platforms: expected at least 1 entry, found an empty list',
      '11:5 images[4]: expected an image reference, or {ref, replace, platforms, include, foreignLayers}, found a list',
      '13:24 charts[0].version: "^1.0" is not one chart version',
      '14:5 charts[1]: expected one of repo, oci, path, found none of them',
      '15:5 charts[2]: expected one of repo, oci, path, found repo and oci',
      '16:5 charts[3]: "version" is missing',
      '16:21 charts[3].repo: "charts.example" is not a URL',
      '16:37 charts[3]: unknown key "value"; did you mean "values"?',
      '17:12 charts[4].path: "/etc" is an absolute path',
      '18:5 charts[5]: expected a map with one of repo, oci, path, found "text"',
      '20:11 files[0].url: "ftp://x.example/y": expected http or https, found ftp',
      '20:38 files[0].name: "../y": ".." cannot be a part of a file name',
      '20:50 files[0].mode: "4755" is not a file mode',
      '20:66 files[0].sha256: "abc" is not a SHA-256',
      '22:3 registries: "https://x.example" is not a registry host',
      '23:15 registries."y.example": unknown key "plainHTTP"; did you mean "plainHttp"?',
      '24:26 registries."z.example".plainHttp: expected true or false, found "yes"',
      '24:41 registries."z.example".mirrors[0]: "https://***@m.example" is not a mirror',
    ]);
    const hints = error.faults.map((f) => f.hint ?? '');
    expect(hints[4]).toBe(
      'allowed keys: apiVersion, name, version, platforms, include, images, imageLists, charts, files, python, registries',
    );
    expect(hints[15]).toBe('allowed keys: name, version, repo, values, allowIndexMismatch');
    const silent = error.faults.filter((f) => f.hint === undefined && !f.message.includes(': expected '));
    expect(silent).toEqual([]);
  });

  it('is not there, is empty, asks for nothing, or is not text', async () => {
    const folder = await folderOf({});
    expect(await errorOf(loadManifest(join(folder, 'sealift.yaml')))).toMatchObject({
      code: 'MANIFEST_NOT_FOUND',
    });
    expect(await errorOf(loadRaw(''))).toMatchObject({ code: 'MANIFEST_EMPTY' });
    expect(await errorOf(loadRaw('# nothing\n'))).toMatchObject({ code: 'MANIFEST_EMPTY' });
    const nothing = await errorOf(load('images: []\n'));
    expect(nothing.code).toBe('MANIFEST_EMPTY');
    expect(nothing.hint).toContain('images');
    expect(await errorOf(load('imageLists: [a.txt]\n', { 'a.txt': '# none\n' }))).toMatchObject({
      code: 'MANIFEST_EMPTY',
    });
    expect(await errorOf(loadRaw(new Uint8Array([0x61, 0xff])))).toMatchObject({ code: 'MANIFEST_INVALID' });
    expect(await faultsOf(loadRaw('[a]\n'))).toEqual(['1:1 expected a map, found a list']);
    expect(await faultsOf(loadRaw('images: [nginx:1]\n'))).toEqual([
      '1:1 "apiVersion" is missing',
      '1:1 "name" is missing',
      '1:1 "version" is missing',
    ]);
    const large = new Uint8Array(8 * 1024 * 1024 + 1).fill(0x23);
    expect(await errorOf(loadRaw(large))).toMatchObject({ code: 'CONTENT_TOO_LARGE' });
  });

  it('is not YAML, has a key twice, or two documents', async () => {
    expect((await faultsOf(load('images: [nginx\ncharts: }\n'))).length).toBeGreaterThan(1);
    expect(await faultsOf(load('images: [a]\nimages: [b]\n'))).toEqual([
      '5:1 the key "images" is written twice; first at line 4',
    ]);
    expect(await faultsOf(load('images: [a]\n---\nimages: [b]\n'))).toEqual([
      '5:1 a second YAML document starts here',
    ]);
    expect(await faultsOf(load('base: &b {x: 1}\n<<: *b\n'))).toEqual([
      '4:1 unknown key "base"',
      '5:1 unknown key "<<"',
    ]);
  });

  it('holds a secret: it is refused and never shown', async () => {
    const error = await errorOf(
      load(`charts:
  - {name: a, version: 1.0.0, repo: "https://user:hunter2@charts.example"}
  - {name: a, version: 2.0.0, oci: "oci://user:hunter2@charts.example/a"}
files: [{url: "https://hunter2@x.example/y", name: y}]
`),
    );
    expect(error.faults).toHaveLength(3);
    expect(JSON.stringify([error.faults, error.message, error.hint])).not.toContain('hunter2');
    expect(error.faults.map((f) => f.hint)).toEqual([
      expect.stringContaining('`helm repo add`'),
      expect.stringContaining('sealift login'),
      expect.stringContaining('`helm repo add`'),
    ]);
  });

  it('names files that would leave their folder, or that no disk can hold', async () => {
    const names = [
      '/a',
      '..',
      'a/../b',
      'a//b',
      './a',
      'a/',
      'a\\b',
      'C:a',
      '"a\\u0001b"',
      `${'x'.repeat(256)}`,
      '""',
    ];
    for (const name of names) {
      const found = await faultsOf(load(`files: [{path: x, name: ${name}}]\n`));
      expect(found, name).toHaveLength(1);
      expect(found[0], name).toContain('4:25 files[0].name: ');
    }
    const { manifest } = await load('files: [{path: ../x, name: 한글/..x}]\n');
    expect(manifest.files[0]).toMatchObject({ path: '../x', name: '한글/..x' });
  });

  it('names a chart address that does not end in the chart, or that has a tag', async () => {
    const found = await faultsOf(
      load(`charts:
  - {name: a, version: 1.0.0, oci: "oci://x.example/charts/b"}
  - {name: a, version: 1.0.0, oci: "oci://x.example/charts/a:1.0.0"}
  - {name: a, version: 1.0.0, oci: "https://x.example/charts/a"}
  - {name: a, version: 1.0.0, oci: "oci://x.example"}
  - {path: a, allowIndexMismatch: why}
  - {name: a, version: 1.0.0, repo: "https://x.example", allowIndexMismatch: ""}
`),
    );
    expect(found.map((f) => f.slice(0, 20).split(' ')[0])).toEqual([
      '5:36',
      '6:36',
      '7:36',
      '8:36',
      '9:15',
      '10:78',
    ]);
    expect(found[0]).toContain('expected "a", found "b"');
  });
});

describe('entries that name the same thing', () => {
  it('are merged when they agree', async () => {
    const { manifest } = await load(
      `platforms: [linux/amd64]
images:
  - nginx:1.25.2
  - {ref: "docker.io/library/nginx:1.25.2", platforms: [linux/arm64, linux/amd64]}
  - {ref: "index.docker.io/library/nginx:1.25.2@sha256:${SHA}", platforms: [linux/amd64, linux/arm64/v8]}
imageLists: [list.txt]
charts:
  - {name: a, version: 1.0.0, repo: "https://x.example/", values: [a.yaml, b.yaml]}
  - {name: a, version: 1.0.0, repo: "https://x.example", values: [b.yaml, c.yaml], allowIndexMismatch: known}
  - {path: own}
  - {path: ./own/, values: [v.yaml]}
files:
  - {url: "https://x.example/f", name: f}
  - {url: "https://x.example/f", name: f, sha256: ${SHA}}
`,
      { 'list.txt': 'docker.io/nginx:1.25.2\n' },
    );
    expect([...manifest.images]).toMatchObject([
      {
        ref: { tag: '1.25.2', digest: `sha256:${SHA}` },
        text: 'nginx:1.25.2',
        platforms: [ARM64, AMD64],
        origins: ['list.txt', 'sealift.yaml'],
        position: { line: 6, column: 5 },
      },
    ]);
    expect(manifest.charts).toMatchObject([
      {
        name: 'a',
        values: ['a.yaml', 'b.yaml', 'c.yaml'],
        allowIndexMismatch: 'known',
        position: { line: 11 },
      },
      { path: 'own', values: ['v.yaml'] },
    ]);
    expect(manifest.files).toMatchObject([{ name: 'f', sha256: `sha256:${SHA}`, position: { line: 16 } }]);
  });

  it('are a fault with both places when they contradict', async () => {
    const work = load(`images:
  - {ref: "nginx:1", platforms: [linux/amd64]}
  - {ref: "nginx:1", platforms: all}
  - redis:7@sha256:${SHA}
  - redis:7@sha256:${OTHER}
charts:
  - {name: a, version: 1.0.0, repo: "https://x.example"}
  - {name: a, version: 1.0.0, oci: "oci://x.example/a"}
files:
  - {url: "https://x.example/f", name: f}
  - {path: f, name: f}
  - {path: g, name: g}
  - {path: g, name: g, mode: "0755"}
  - {path: h, name: h, sha256: ${SHA}}
  - {path: h, name: h, sha256: ${OTHER}}
  - {path: i, name: f/i}
registries:
  docker.io: {}
  index.docker.io: {}
`);
    const error = await errorOf(work);
    expect(error.code).toBe('MANIFEST_CONFLICT');
    expect(error.faults.every((f) => f.code === 'MANIFEST_CONFLICT')).toBe(true);
    expect(
      (await faultsOf(Promise.reject(error))).map((f) => f.replace(/ is at .*sealift/, ' is at sealift')),
    ).toEqual([
      '6:5 image docker.io/library/nginx:1 is asked for with platforms all here and linux/amd64 elsewhere (the other is at sealift.yaml:5:5)',
      `8:5 image docker.io/library/redis:7 is pinned to sha256:${OTHER} here and to sha256:${SHA} elsewhere (the other is at sealift.yaml:7:5)`,
      '11:5 chart a 1.0.0 comes from oci://x.example/a here and from https://x.example elsewhere (the other is at sealift.yaml:10:5)',
      '14:5 file f comes from f here and from https://x.example/f elsewhere (the other is at sealift.yaml:13:5)',
      '16:5 file g has mode 755 here and 644 elsewhere (the other is at sealift.yaml:15:5)',
      `18:5 file h has sha256:${OTHER} here and sha256:${SHA} elsewhere (the other is at sealift.yaml:17:5)`,
      '19:5 file f/i lies below f, which is a file itself (the other is at sealift.yaml:13:5)',
      '22:3 registries: "index.docker.io" and another entry are both docker.io',
    ]);
    expect(error.faults[0]?.details).toMatchObject({ first: { line: 5, column: 5 } });
  });

  it('are told together with all other faults', async () => {
    const error = await errorOf(
      load('images: [{ref: "nginx:1", platforms: all}, {ref: "nginx:1", platforms: [linux/amd64]}, "x:"]\n'),
    );
    expect(error.code).toBe('MANIFEST_INVALID');
    expect(error.faults.map((f) => f.code)).toEqual(['MANIFEST_CONFLICT', 'MANIFEST_INVALID']);
  });
});

describe('image lists', () => {
  it('are found by patterns, sorted, each read once', async () => {
    const { manifest } = await load('imageLists: ["lists/*.txt", lists/b.txt, "more/**/*.txt"]\n', {
      'lists/b.txt': 'b.example/x:1\n',
      'lists/a.txt': 'a.example/x:1\n',
      'lists/.hidden.txt': 'hidden.example/x:1\n',
      'lists/c.md': 'c.example/x:1\n',
      'more/deep/er/z.txt': 'z.example/x:1\na.example/x:1\n',
    });
    expect(Array.from(manifest.images, (i) => [i.ref.host, ...i.origins])).toEqual([
      ['a.example', 'lists/a.txt', 'more/deep/er/z.txt'],
      ['b.example', 'lists/b.txt'],
      ['z.example', 'more/deep/er/z.txt'],
    ]);
  });

  it('reads lists of very many lines, and names each line that is wrong', async () => {
    const lines = (more: string): string =>
      Array.from({ length: 130_000 }, (_, i) => `r.example/i${i}:1${more}\n`).join('');
    const { manifest } = await load('imageLists: [l.txt]\n', { 'l.txt': lines('') });
    expect(manifest.images.length).toBe(130_000);
    const error = await errorOf(load('imageLists: [l.txt]\n', { 'l.txt': lines(' two') }));
    expect(error.faults.length).toBe(130_000);
  });

  it('may have comments, blank lines, CRLF, a byte order mark and spaces', async () => {
    const { manifest } = await load('imageLists: [l.txt]\n', {
      'l.txt': `\ufeff# 목록\r\n\r\nnginx:1  \r\n\t redis:7 # cache\r\n  # x:1\r\n#y:1\r\nquay.io/a/b:2\t# c\r\nlast@sha256:${SHA}`,
    });
    expect(Array.from(manifest.images, (i) => [i.text, `${i.position.line}:${i.position.column}`])).toEqual([
      ['nginx:1', '3:1'],
      ['redis:7', '4:3'],
      ['quay.io/a/b:2', '7:1'],
      [`last@sha256:${SHA}`, '8:1'],
    ]);
    expect(manifest.images.at(0)?.position.file).toMatch(/\/l\.txt$/);
  });

  it('tell every line that is wrong, after the faults of the manifest', async () => {
    const found = await faultsOf(
      load('imageLists: [l.txt, none.txt, "*.md", "!x", /etc/passwd]\nx: 1\n', {
        'l.txt': 'nginx:1\nNginx\n  two words:1\nx:1 #ok\nx#y\n',
      }),
    );
    expect(found).toEqual([
      '4:21 imageLists: no file matches "none.txt"',
      '4:31 imageLists: no file matches "*.md"',
      '4:39 imageLists[3]: "!x": a pattern cannot start with "!"',
      '4:45 imageLists[4]: "/etc/passwd" is an absolute path',
      '5:1 unknown key "x"',
      'l.txt:2:1 "Nginx" is not an image reference: names are lower case',
      'l.txt:3:3 "two words:1" is more than one word',
      'l.txt:5:1 "x#y" is not an image reference: "library/x#y" is not a repository name',
    ]);
  });

  it('are not text, or too large', async () => {
    const found = await faultsOf(
      load('imageLists: [a.txt, b.txt]\n', {
        'a.txt': new Uint8Array([0xff, 0x0a]),
        'b.txt': new Uint8Array(8 * 1024 * 1024 + 1),
      }),
    );
    expect(found[0]).toBe('4:14 image list a.txt is not UTF-8 text');
    expect(found[1]).toContain('4:21 image list b.txt: b.txt: 8388609 bytes, the limit is');
  });

  it('lie in the folder of the manifest; only ".." in the pattern leads out', async () => {
    const folder = await folderOf({
      'in/sealift.yaml': `${HEAD}imageLists: [link.txt]\n`,
      'in/up.yaml': `${HEAD}imageLists: [../out.txt]\n`,
      'in/near.yaml': `${HEAD}imageLists: ["*/near.txt"]\n`,
      'in/lists/real.txt': 'redis:7\n',
      'out.txt': 'nginx:1\n',
    });
    await symlink('../out.txt', join(folder, 'in/link.txt'));
    await symlink('real.txt', join(folder, 'in/lists/near.txt'));
    const found = await faultsOf(loadManifest(join(folder, 'in/sealift.yaml')));
    expect(found).toEqual([
      "in/sealift.yaml:4:14 image list link.txt is a link to a file outside the manifest's folder",
    ]);
    const up = await loadManifest(join(folder, 'in/up.yaml'));
    expect(up.manifest.images.at(0)).toMatchObject({ text: 'nginx:1', origins: ['../out.txt'] });
    const near = await loadManifest(join(folder, 'in/near.yaml'));
    expect(near.manifest.images.at(0)).toMatchObject({ text: 'redis:7', origins: ['lists/near.txt'] });
  });
});

describe('python of a manifest', () => {
  const faultsOfPython = async (body: string) => {
    const error = await errorOf(load(`python:\n${body}`));
    return error.faults.map((f) => [f.position?.line, f.position?.column, f.message]);
  };

  it('is read with its defaults, each thing once', async () => {
    const { manifest } = await load(
      'python:\n  requirements: [./r.txt, r.txt]\n  pythons: [3.10, "3.10"]\n  indexes: [https://pypi.example.com/simple/]\n',
    );
    expect(manifest.python).toMatchObject({
      requirements: ['r.txt'],
      constraints: [],
      packages: [],
      pythons: ['3.10'],
      platforms: ['linux/amd64'],
      indexes: ['https://pypi.example.com/simple'],
      sdists: false,
      position: { line: 4, column: 1 },
    });
    expect(manifest.python?.resolver).toBeUndefined();
  });

  it('tells all its faults with their places', async () => {
    const found = await faultsOfPython(
      [
        '  packages: [-rother, "a --pre", "a\\tb", "a $HOME", "a @ https://u:p@e.example.com/a.whl"]',
        '  pythons: [3.11.2, "2.7"]',
        '  platforms: [windows/amd64]',
        '  indexes: ["https://u:hunter2@e.example.com/simple", "https://e.example.com/simple?token=hunter2"]',
        '  resolver: poetry',
        '  sdist: true',
        '',
      ].join('\n'),
    );
    expect(found.map(([line, column]) => `${line}:${column}`)).toEqual([
      '5:14',
      '5:23',
      '5:34',
      '5:42',
      '5:53',
      '6:13',
      '6:21',
      '7:15',
      '8:13',
      '8:55',
      '9:13',
      '10:3',
    ]);
    expect(JSON.stringify(found)).not.toContain('hunter2');
    expect(found.at(-1)?.[2]).toContain('did you mean "sdists"?');
  });

  it('needs something to install, and a Python', async () => {
    expect(await faultsOfPython('  pythons: [3.11]\n')).toEqual([[5, 3, 'python: no requirements']]);
    expect((await faultsOfPython('  packages: [a]\n'))[0]?.[2]).toBe('python: "pythons" is missing');
  });
});
