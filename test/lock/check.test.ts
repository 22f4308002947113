import { describe, expect, it } from 'vitest';
import {
  checkLock,
  type Wanted,
  type WantedChart,
  type WantedFile,
  type WantedImage,
} from '../../src/lock/check.ts';
import { chart, digestOf, file, image, lockOf } from './locks.ts';

const position = { file: 'sealift.yaml', line: 14, column: 5 };

function wantedImage(name: string, more: Partial<WantedImage> = {}): WantedImage {
  return { name, platforms: ['linux/amd64'], origins: ['sealift.yaml'], position, ...more };
}

function wantedChart(name: string, version: string, more: Partial<WantedChart> = {}): WantedChart {
  return {
    name,
    version,
    source: { type: 'http', repo: 'https://charts.example' },
    values: [],
    position,
    ...more,
  };
}

function wantedFile(name: string, more: Partial<WantedFile> = {}): WantedFile {
  return { name, source: { url: `https://dl.example/${name}` }, mode: 0o755, position, ...more };
}

function wantedOf(more: Partial<Wanted> = {}): Wanted {
  return { name: 'astrago', version: '2026.11', images: [], charts: [], files: [], ...more };
}

const NGINX = 'docker.io/library/nginx:1.25.2';

/** The message of every fault and the names that keep their pin. */
function check(lock: Parameters<typeof lockOf>[0], wanted: Partial<Wanted>) {
  const result = checkLock(lockOf(lock), wantedOf(wanted));
  expect(result.faults.filter((f) => f.code !== 'LOCK_STALE' || f.hint === undefined)).toEqual([]);
  const { images, charts, files } = result.satisfied;
  return {
    faults: result.faults.map((f) => f.message),
    kept: [...images, ...charts, ...files],
    pinned: [...result.pinned],
    positions: result.faults.map((f) => f.position),
  };
}

describe('a lock in step with the manifest', () => {
  it('has no fault and keeps every entry', () => {
    const tree = digestOf('1');
    const found = check(
      {
        images: [
          image(NGINX),
          image('quay.io/a/b:1', { allPlatforms: true }),
          image('ghcr.io/a/artifact:1', { platforms: {}, others: [digestOf('5')] }),
        ],
        charts: [
          chart('podinfo', '6.7.0', { source: { type: 'oci', ref: 'oci://ghcr.io/charts/podinfo:6.7.0' } }),
          chart('own', '0.1.0', { source: { type: 'path', path: 'charts/own' } }),
        ],
        files: [file('bin/kubectl')],
      },
      {
        images: [
          wantedImage(NGINX, { digest: digestOf('a') }),
          wantedImage('quay.io/a/b:1', { platforms: 'all' }),
          wantedImage('ghcr.io/a/artifact:1'),
        ],
        charts: [
          wantedChart('podinfo', '6.7.0', { source: { type: 'oci', ref: 'oci://ghcr.io/charts/podinfo' } }),
          wantedChart('own', '0.1.0', { source: { type: 'path', path: 'charts/own' }, treeNow: tree }),
        ],
        files: [wantedFile('bin/kubectl', { sha256: digestOf('7'), contentNow: digestOf('7') })],
      },
    );
    expect(found.faults).toEqual([]);
    expect(found.kept).toHaveLength(6);
    expect(found.pinned).toHaveLength(3);
  });

  it('may carry several OS versions of one wanted platform', () => {
    const platforms = {
      'windows(10.0.17763.1)/amd64': digestOf('b'),
      'windows(10.0.20348.2)/amd64': digestOf('c'),
    };
    const found = check(
      { images: [image(NGINX, { platforms })] },
      { images: [wantedImage(NGINX, { platforms: ['windows/amd64'] })] },
    );
    expect(found.faults).toEqual([]);
  });

  it('knows a platform by any of its spellings', () => {
    const found = check(
      { images: [image(NGINX, { platforms: { 'linux/arm64': digestOf('b') } })] },
      { images: [wantedImage(NGINX, { platforms: ['linux/aarch64'] })] },
    );
    expect(found.faults).toEqual([]);
  });
});

describe('a stale lock', () => {
  it('tells everything that is missing, stale and extra, each with the place in the manifest', () => {
    const found = check(
      { name: 'old', images: [image(NGINX), image('docker.io/library/redis:7.2')], files: [file('gone')] },
      {
        images: [
          wantedImage(NGINX, { platforms: ['linux/arm64'] }),
          wantedImage('docker.io/library/redis:7.4'),
        ],
      },
    );
    expect(found.faults).toEqual([
      "the bundle's name is astrago, the lock has old",
      `image ${NGINX} asks for linux/arm64, the lock has linux/amd64`,
      'image docker.io/library/redis:7.4 is missing in the lock',
      'image docker.io/library/redis:7.2 is in the lock, but nothing asks for it',
      'file gone is in the lock, but nothing asks for it',
    ]);
    expect(found.positions).toEqual([undefined, position, position, undefined, undefined]);
    expect(found.kept).toEqual([]);
  });

  it('keeps the digest of an image that only wants other platforms', () => {
    const more = check(
      { images: [image(NGINX)] },
      { images: [wantedImage(NGINX, { platforms: ['linux/amd64', 'linux/arm64'] })] },
    );
    expect(more.faults).toEqual([
      `image ${NGINX} asks for linux/amd64, linux/arm64, the lock has linux/amd64`,
    ]);
    expect(more.kept).toEqual([]);
    expect(more.pinned).toEqual([NGINX]);
    const all = check({ images: [image(NGINX)] }, { images: [wantedImage(NGINX, { platforms: 'all' })] });
    expect(all.faults).toEqual([`image ${NGINX} asks for all platforms, the lock has linux/amd64`]);
    expect(all.pinned).toEqual([NGINX]);
    const fewer = check({ images: [image(NGINX, { allPlatforms: true })] }, { images: [wantedImage(NGINX)] });
    expect(fewer.faults).toEqual([`image ${NGINX} asks for linux/amd64, the lock has all platforms`]);
  });

  it('gives up the digest of an image that the manifest pins to another', () => {
    const found = check(
      { images: [image(NGINX)] },
      { images: [wantedImage(NGINX, { digest: digestOf('f') })] },
    );
    expect(found.faults).toEqual([`image ${NGINX} asks for ${digestOf('f')}, the lock has ${digestOf('a')}`]);
    expect(found.pinned).toEqual([]);
  });

  it('keeps the content of an entry of which only the reason changed', () => {
    const found = check(
      { images: [image(NGINX)] },
      { images: [wantedImage(NGINX, { origins: ['imagelists/a.txt', 'sealift.yaml'] })] },
    );
    expect(found.faults).toEqual([
      `image ${NGINX} is used by imagelists/a.txt, sealift.yaml, the lock says sealift.yaml`,
    ]);
    expect(found.kept).toEqual([NGINX]);
  });

  it('sees a chart from another place, a changed folder, and another version', () => {
    const own = chart('own', '0.1.0', { source: { type: 'path', path: 'charts/own' } });
    const source = { type: 'path', path: 'charts/own' } as const;
    const edited = check(
      { charts: [own] },
      { charts: [wantedChart('own', '0.1.0', { source, treeNow: digestOf('e') })] },
    );
    expect(edited.faults).toEqual([
      `chart own-0.1.0 has changed in its folder: its tree is ${digestOf('e')}, the lock has ${digestOf('1')}`,
    ]);
    const moved = check({ charts: [own] }, { charts: [wantedChart('own', '0.1.0')] });
    expect(moved.faults).toEqual([
      'chart own-0.1.0 comes from https://charts.example, the lock has charts/own',
    ]);
    const newer = check({ charts: [own] }, { charts: [wantedChart('own', '0.2.0', { source })] });
    expect(newer.faults).toEqual([
      'chart own-0.2.0 is missing in the lock',
      'chart own-0.1.0 is in the lock, but nothing asks for it',
    ]);
    expect([...edited.kept, ...moved.kept, ...newer.kept]).toEqual([]);
  });

  it('does not take a port for a tag', () => {
    const lock = {
      charts: [chart('a', '1.0.0', { source: { type: 'oci', ref: 'oci://127.0.0.1:5000/a' } })],
    };
    const same = wantedChart('a', '1.0.0', { source: { type: 'oci', ref: 'oci://127.0.0.1:5000/a' } });
    const other = wantedChart('a', '1.0.0', { source: { type: 'oci', ref: 'oci://127.0.0.1:5001/a' } });
    expect(check(lock, { charts: [same] }).faults).toEqual([]);
    expect(check(lock, { charts: [other] }).faults).toHaveLength(1);
  });

  it('keeps a chart whose values files changed, and says so', () => {
    const values = [{ path: 'v.yaml', sha256: digestOf('8') }];
    const found = check(
      { charts: [chart('a', '1.0.0', { values })] },
      { charts: [wantedChart('a', '1.0.0', { values: [{ path: 'v.yaml', sha256: digestOf('9') }] })] },
    );
    expect(found.faults).toEqual([
      'chart a-1.0.0 has values files v.yaml 999999999999, the lock has v.yaml 888888888888',
    ]);
    expect(found.kept).toEqual(['a-1.0.0']);
  });

  it('does not keep a chart whose mismatch with the index is no longer allowed', () => {
    const a = chart('a', '1.0.0');
    const bad = { ...a, allowIndexMismatch: 'known', integrity: { ...a.integrity, upstream: digestOf('0') } };
    const allowed = wantedChart('a', '1.0.0', { allowIndexMismatch: 'known' });
    expect(check({ charts: [bad] }, { charts: [allowed] }).faults).toEqual([]);
    const gone = check({ charts: [bad] }, { charts: [wantedChart('a', '1.0.0')] });
    expect(gone.faults[0]).toContain('no longer allows it');
    expect(gone.kept).toEqual([]);
    const reworded = wantedChart('a', '1.0.0', { allowIndexMismatch: 'still known' });
    const said = check({ charts: [bad] }, { charts: [reworded] });
    expect(said.faults).toEqual(['chart a-1.0.0 has another allowIndexMismatch']);
    expect(said.kept).toEqual(['a-1.0.0']);
  });

  it('keeps fetched dependencies, also of dependencies, while the chart that needs them is kept', () => {
    const charts = [
      chart('parent', '1.0.0'),
      chart('child', '2.0.0', { usedBy: ['parent-1.0.0'] }),
      chart('grandchild', '3.0.0', { usedBy: ['child-2.0.0'] }),
      chart('orphan', '4.0.0', { usedBy: ['gone-1.0.0'] }),
      chart('loop', '5.0.0', { usedBy: ['loop-5.0.0'] }),
    ];
    const orphans = [
      'chart orphan-4.0.0 is in the lock, but nothing asks for it',
      'chart loop-5.0.0 is in the lock, but nothing asks for it',
    ];
    const kept = check({ charts }, { charts: [wantedChart('parent', '1.0.0')] });
    expect(kept.faults).toEqual(orphans);
    expect(kept.kept).toEqual(['parent-1.0.0', 'child-2.0.0', 'grandchild-3.0.0']);
    const moved = wantedChart('parent', '1.0.0', { source: { type: 'path', path: 'x' } });
    const lost = check({ charts }, { charts: [moved] });
    expect(lost.kept).toEqual([]);
    expect(lost.faults).toHaveLength(5);
  });

  it('sees a chart change between wanted and only needed', () => {
    const charts = [
      chart('parent', '1.0.0'),
      chart('child', '2.0.0', { usedBy: ['parent-1.0.0', 'sealift.yaml'] }),
    ];
    const dropped = check({ charts }, { charts: [wantedChart('parent', '1.0.0')] });
    expect(dropped.faults).toEqual([
      'chart child-2.0.0 is only a dependency now, the manifest no longer asks for it',
    ]);
    const only = [chart('parent', '1.0.0'), chart('child', '2.0.0', { usedBy: ['parent-1.0.0'] })];
    const both = [wantedChart('parent', '1.0.0'), wantedChart('child', '2.0.0')];
    const added = check({ charts: only }, { charts: both });
    expect(added.faults).toEqual(['chart child-2.0.0 is in the lock only as a dependency of another chart']);
    expect([...dropped.kept, ...added.kept]).toHaveLength(4);
  });

  it('sees files that differ, and keeps the content where only the mode does', () => {
    const lock = { files: [file('bin/a')] };
    const mode = check(lock, { files: [wantedFile('bin/a', { mode: 0o644 })] });
    expect(mode.faults).toEqual(['file bin/a has mode 0644, the lock has 0755']);
    expect(mode.kept).toEqual(['bin/a']);
    for (const other of [
      wantedFile('bin/a', { source: { url: 'https://dl.example/other' } }),
      wantedFile('bin/a', { source: { path: 'https://dl.example/bin/a' } }),
      wantedFile('bin/a', { sha256: digestOf('0') }),
      wantedFile('bin/a', { contentNow: digestOf('0') }),
    ]) {
      const found = check(lock, { files: [other] });
      expect(found.faults).toHaveLength(1);
      expect(found.kept).toEqual([]);
    }
  });
});
