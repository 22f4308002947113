import fc from 'fast-check';
import type { Digest } from '../../src/core/digest.ts';
import {
  type ChartLock,
  chartDir,
  type FileLock,
  type ImageLock,
  type Lock,
  type PackageLock,
  type PythonLock,
} from '../../src/lock/schema.ts';
import { compareBytes } from '../../src/lock/write.ts';

/** A digest that is told by one character. */
export function digestOf(c: string): Digest {
  return `sha256:${c.repeat(64)}`;
}

export function image(ref: string, more: Partial<ImageLock> = {}): ImageLock {
  return {
    ref,
    digest: digestOf('a'),
    mediaType: 'application/vnd.oci.image.index.v1+json',
    size: 1609,
    allPlatforms: false,
    platforms: { 'linux/amd64': digestOf('b') },
    others: [],
    usedBy: ['sealift.yaml'],
    ...more,
  };
}

export function chart(name: string, version: string, more: Partial<ChartLock> = {}): ChartLock {
  return {
    name,
    version,
    appVersion: null,
    dir: chartDir({ name, version }),
    source: {
      type: 'http',
      repo: 'https://charts.example',
      url: `https://charts.example/${name}-${version}.tgz`,
    },
    integrity: {
      archive: digestOf('1'),
      upstream: digestOf('1'),
      tree: digestOf('2'),
      provenance: 'absent',
    },
    size: 4711,
    manifest: {
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      digest: digestOf('3'),
      size: 322,
    },
    config: { mediaType: 'application/vnd.cncf.helm.config.v1+json', digest: digestOf('4'), size: 99 },
    dependencies: [],
    values: [],
    usedBy: ['sealift.yaml'],
    ...more,
  };
}

export function file(name: string, more: Partial<FileLock> = {}): FileLock {
  return {
    name,
    source: { url: `https://dl.example/${name}` },
    size: 7,
    sha256: digestOf('7'),
    mode: '0755',
    ...more,
  };
}

/** A wheel that runs everywhere. */
export function wheel(name: string, version: string, more: Partial<PackageLock> = {}): PackageLock {
  const file = `${name.replaceAll('-', '_')}-${version}-py3-none-any.whl`;
  return {
    file,
    name,
    version,
    source: { url: `https://files.example/${file}` },
    size: 11,
    sha256: digestOf('6'),
    ...more,
  };
}

/** Python packages of some files, all of them pinned everywhere. */
export function pythonOf(files: readonly PackageLock[], more: Partial<PythonLock> = {}): PythonLock {
  const pins = new Map(files.map(({ name, version }) => [`${name} ${version}`, { name, version }]));
  return {
    requirements: [],
    constraints: [],
    packages: [],
    pythons: ['3.11'],
    platforms: ['linux/amd64'],
    indexes: [],
    pins: [...pins.values()],
    files,
    ...more,
  };
}

export function lockOf(more: Partial<Lock> = {}): Lock {
  return { lockVersion: 1, name: 'astrago', version: '2026.11', images: [], charts: [], files: [], ...more };
}

const digest = fc.stringMatching(/^[0-9a-f]{64}$/).map((hex): Digest => `sha256:${hex}`);
const size = fc.maxSafeNat();
const free = fc.string({ unit: 'binary', maxLength: 30 });
const word = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,12}$/);
const version = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._+-]{0,12}$/);
const part = fc.stringMatching(/^[a-z0-9]{1,8}$/);
const path = fc.array(part, { minLength: 1, maxLength: 3 }).map((p) => p.join('/'));
const bytewise = <T>(fact: (item: T) => string) => {
  return (list: T[]) => list.toSorted((a, b) => compareBytes(fact(a), fact(b)));
};
const sorted = bytewise((s: string) => s);
const usedBy = fc
  .uniqueArray(
    free.filter((s) => s !== ''),
    { minLength: 1, maxLength: 4 },
  )
  .map(sorted);
const digests = fc.uniqueArray(digest, { maxLength: 3 }).map(bytewise((d: Digest) => d));

const imageArbitrary: fc.Arbitrary<ImageLock> = fc.record({
  ref: fc.tuple(path, word).map(([p, tag]) => `registry.example:5000/${p}:${tag}`),
  digest,
  mediaType: fc.constantFrom('application/vnd.oci.image.index.v1+json', 'application/vnd.x+json'),
  size,
  allPlatforms: fc.boolean(),
  platforms: fc
    .dictionary(fc.constantFrom('linux/amd64', 'linux/arm/v7', 'windows(10.0.20348.1)/amd64'), digest, {
      noNullPrototype: true,
    })
    .map((p) => Object.fromEntries(Object.entries(p).sort(([a], [b]) => compareBytes(a, b)))),
  others: digests,
  usedBy,
});

const blobArbitrary = fc.record({ mediaType: fc.constant('application/x'), digest, size });
const provenance = fc.oneof(
  fc.constant({ provenance: 'absent' as const }),
  fc.record({
    provenance: fc.constantFrom('unverified' as const, 'verified' as const),
    provenanceDigest: digest,
    provenanceSize: size,
  }),
);

const chartArbitrary: fc.Arbitrary<ChartLock> = fc
  .record(
    {
      name: word,
      version,
      appVersion: fc.option(free),
      source: fc.oneof(
        path.map((p) => ({
          type: 'http' as const,
          repo: `https://a.example/${p}`,
          url: `https://b.example/${p}.tgz`,
        })),
        path.map((p) => ({ type: 'oci' as const, ref: `oci://ghcr.example/${p}:1.0` })),
        path.map((p) => ({ type: 'path' as const, path: `../${p}` })),
      ),
      integrity: fc
        .tuple(fc.record({ archive: digest, upstream: fc.option(digest), tree: digest }), provenance)
        .map(([a, b]) => ({ ...a, ...b })),
      allowIndexMismatch: free.filter((s) => s !== ''),
      size,
      manifest: blobArbitrary,
      config: blobArbitrary,
      dependencies: fc
        .uniqueArray(
          fc.record(
            {
              name: word,
              version: free,
              alias: word,
              repository: free,
              from: fc.constantFrom('vendored' as const, 'fetched' as const),
              archive: digest,
            },
            { requiredKeys: ['name', 'version', 'repository', 'from'] },
          ),
          { selector: (d) => d.name, maxLength: 3 },
        )
        .map(bytewise((d) => d.name)),
      values: fc.array(fc.record({ path, sha256: digest }), { maxLength: 3 }),
      usedBy,
    },
    {
      requiredKeys: [
        'name',
        'version',
        'appVersion',
        'source',
        'integrity',
        'size',
        'manifest',
        'config',
        'dependencies',
        'values',
        'usedBy',
      ],
    },
  )
  .map((c) => ({ ...c, dir: chartDir(c) }));

const fileArbitrary: fc.Arbitrary<FileLock> = fc.record({
  name: path.map((p) => `${p}.bin`),
  source: fc.oneof(
    path.map((p) => ({ url: `https://dl.example/${p}` })),
    path.map((p) => ({ path: p })),
  ),
  size,
  sha256: digest,
  mode: fc.constantFrom('0644', '0755', '0600'),
});

const texts = fc
  .uniqueArray(fc.record({ path, sha256: digest }), { selector: (t) => t.path, maxLength: 3 })
  .map(bytewise((t) => t.path));
const marker = fc.constantFrom('python_version < "3.12"', "sys_platform == 'win32' and extra == 'x'");

/** A project in one version with its files. */
const projectArbitrary = fc
  .record({
    name: fc.stringMatching(/^[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,4})?$/),
    version: fc.stringMatching(/^[1-9]\.[1-9]{1,3}(rc1|\.post2)?$/),
    markers: fc.uniqueArray(fc.option(marker, { nil: undefined }), { minLength: 1, maxLength: 2 }),
    files: fc.uniqueArray(
      fc.record(
        {
          ending: fc.constantFrom('-py3-none-any.whl', '-1-cp311-cp311-manylinux_2_28_x86_64.whl', '.tar.gz'),
          source: fc.oneof(
            path.map((p) => ({ url: `https://files.example/${p}` })),
            path.map((p) => ({ path: p })),
          ),
          size,
          sha256: digest,
          requiresPython: fc.constantFrom('>=3.7', '>=2.7, !=3.0.*, <4'),
          yanked: free,
        },
        { requiredKeys: ['ending', 'source', 'size', 'sha256'] },
      ),
      { selector: (f) => f.ending, minLength: 0, maxLength: 3 },
    ),
  })
  .map(({ name, version, markers, files }) => ({
    pins: markers.map((m) => ({ name, version, ...(m === undefined ? {} : { marker: m }) })),
    files: files.map(({ ending, source, ...facts }): PackageLock => {
      const file = `${name.replaceAll('-', '_')}-${version}${ending}`;
      return { file, name, version, source, ...facts };
    }),
  }));

const pythonArbitrary: fc.Arbitrary<PythonLock> = fc
  .record({
    requirements: texts,
    constraints: texts,
    packages: fc.uniqueArray(fc.constantFrom('flask', 'flask[async]>=2 ; os_name == "nt"'), { maxLength: 2 }),
    pythons: fc.constantFrom([], ['3.9', '3.10'], ['3.11.4']),
    platforms: fc.constantFrom([], ['linux/amd64', 'manylinux_2_28_x86_64']),
    indexes: fc.uniqueArray(
      path.map((p) => `https://pypi.example/${p}/simple/`),
      { maxLength: 3 },
    ),
    projects: fc.uniqueArray(projectArbitrary, {
      selector: ({ pins: [pin] }) => `${pin?.name} ${pin?.version}`,
      maxLength: 4,
    }),
  })
  .map(({ projects, packages, ...asked }) => ({
    ...asked,
    packages: sorted(packages),
    pins: bytewise((p: PythonLock['pins'][number]) => `${p.name} ${p.version} ${p.marker ?? ''}`)(
      projects.flatMap((p) => p.pins),
    ),
    files: bytewise((f: PackageLock) => `${f.name} ${f.version} ${f.file}`)(projects.flatMap((p) => p.files)),
  }));

function unique<T>(items: fc.Arbitrary<T>, fact: (item: T) => string): fc.Arbitrary<T[]> {
  return fc.uniqueArray(items, { selector: fact, maxLength: 4 });
}

/** Any valid lock, its lists in the lock's own order. */
export const lockArbitrary: fc.Arbitrary<Lock> = fc.record(
  {
    lockVersion: fc.constant(1 as const),
    name: fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,10}$/),
    version,
    images: unique(imageArbitrary, (i) => i.ref).map(bytewise((i) => i.ref)),
    charts: unique(chartArbitrary, (c) => c.dir).map((list) =>
      list.toSorted((a, b) => compareBytes(a.name, b.name) || compareBytes(a.version, b.version)),
    ),
    files: unique(fileArbitrary, (f) => f.name).map(bytewise((f) => f.name)),
    python: pythonArbitrary,
  },
  { requiredKeys: ['lockVersion', 'name', 'version', 'images', 'charts', 'files'] },
);
