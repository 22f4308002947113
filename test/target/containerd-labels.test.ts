import { describe, expect, it } from 'vitest';
import type { Descriptor } from '../../src/core/descriptor.ts';
import { MEDIA } from '../../src/core/media.ts';
import { parseReference } from '../../src/core/reference.ts';
import { digestOf } from '../../src/io/verify.ts';
import {
  hasLabels,
  missingGcLabels,
  missingSourceLabels,
  recordLabels,
} from '../../src/target/containerd/labels.ts';

const GC = 'containerd.io/gc.ref.content';
const child = (seed: string, mediaType: string): Descriptor => ({
  mediaType,
  digest: digestOf(seed),
  size: 1,
});
const layer = (seed: string): Descriptor => child(seed, 'application/vnd.oci.image.layer.v1.tar+gzip');
const manifest = (seed: string): Descriptor => child(seed, MEDIA.ociManifest);
const none: ReadonlyMap<string, string> = new Map();

describe('labels that keep children from garbage collection', () => {
  it('numbers the children of a manifest as containerd does: one config, layers by their place', () => {
    const children = [
      child('c', MEDIA.ociConfig),
      layer('a'),
      child('d', 'application/vnd.docker.image.rootfs.diff.tar.gzip'),
      layer('a'),
      child('x', 'application/vnd.in-toto+json'),
    ];
    expect([...missingGcLabels(children, none)]).toEqual([
      [`${GC}.config`, digestOf('c')],
      [`${GC}.l.0`, digestOf('a')],
      [`${GC}.l.1`, digestOf('d')],
      [`${GC}.l.2`, digestOf('a')],
      [`${GC}.0`, digestOf('x')],
    ]);
  });

  it('numbers only the carried manifests of an index, and a nested index by itself', () => {
    const children = [manifest('m'), child('i', MEDIA.ociIndex), child('n', MEDIA.dockerManifest)];
    expect([...missingGcLabels(children, none).keys()]).toEqual([`${GC}.m.0`, `${GC}.0`, `${GC}.m.1`]);
  });

  it('wants nothing where every child is held already, whatever the number', () => {
    const there = new Map([
      [`${GC}.m.7`, digestOf('a')],
      [`${GC}.m.0`, digestOf('b')],
    ]);
    expect(missingGcLabels([manifest('a'), manifest('b')], there).size).toBe(0);
  });

  it('never takes the label of a child that somebody else brought', () => {
    const there = new Map([[`${GC}.m.0`, digestOf('their platform')]]);
    const missing = missingGcLabels([manifest('a'), manifest('b')], there);
    expect(missing.has(`${GC}.m.0`)).toBe(false);
    expect([...missing.values()].sort()).toEqual([digestOf('a'), digestOf('b')].sort());
    expect(missingGcLabels([manifest('a'), manifest('b')], new Map([...there, ...missing])).size).toBe(0);
  });
});

describe('labels that say where a blob is from', () => {
  const key = 'containerd.io/distribution.source.docker.io';

  it('lists the repositories of one host in one label, sorted, with those that are there', () => {
    const refs = ['nginx', 'docker.io/grafana/grafana:1'].map(parseReference);
    expect([...missingSourceLabels(refs, new Map([[key, 'library/redis']]))]).toEqual([
      [key, 'grafana/grafana,library/nginx,library/redis'],
    ]);
  });

  it('has one label for each host, without the port, as containerd reads it', () => {
    const refs = ['reg.test:5000/a:1', '127.0.0.1:5000/b:1'].map(parseReference);
    expect([...missingSourceLabels(refs, none)]).toEqual([
      ['containerd.io/distribution.source.reg.test', 'a'],
      ['containerd.io/distribution.source.127.0.0.1', 'b'],
    ]);
  });

  it('wants nothing when the repository is listed, and nothing that containerd would refuse for its length', () => {
    const refs = [parseReference('nginx')];
    expect(missingSourceLabels(refs, new Map([[key, 'a,library/nginx']])).size).toBe(0);
    expect(missingSourceLabels(refs, new Map([[key, 'x'.repeat(4096 - key.length - 5)]])).size).toBe(0);
    expect(missingSourceLabels(refs, new Map([[key, 'x'.repeat(4096 - key.length - 14)]])).size).toBe(1);
  });
});

describe('labels of an image record', () => {
  it('are managed, and pinned only when asked for', () => {
    expect([...recordLabels({ pin: false })]).toEqual([['io.cri-containerd.image', 'managed']]);
    expect([...recordLabels({ pin: true })]).toEqual([
      ['io.cri-containerd.image', 'managed'],
      ['io.cri-containerd.pinned', 'pinned'],
    ]);
  });

  it('are there when each has its value; more does not matter', () => {
    const there = new Map([...recordLabels({ pin: false }), ['mine', '1'] as const]);
    expect(hasLabels(there, recordLabels({ pin: false }))).toBe(true);
    expect(hasLabels(there, recordLabels({ pin: true }))).toBe(false);
  });
});
