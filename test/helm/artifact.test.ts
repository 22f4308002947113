import { describe, expect, it } from 'vitest';
import type { Digest } from '../../src/core/digest.ts';
import { MEDIA } from '../../src/core/media.ts';
import { chartArtifact, selectChartLayers } from '../../src/helm/artifact.ts';
import { parseChartYaml } from '../../src/helm/chartfile.ts';
import { provenanceFiles, provenanceState } from '../../src/helm/provenance.ts';
import { parseManifest } from '../../src/oci/manifest.ts';

const digest = (c: string): Digest => `sha256:${c.repeat(64)}`;
const parse = (text: string) => parseChartYaml(Buffer.from(text), { what: 'Chart.yaml' });
const archive = { digest: digest('b'), size: 10 };
const provenance = { digest: digest('a'), size: 5 };
const TEXT = `version: 1.0.0
name: demo
apiVersion: v2
home: https://h.example
description: words
sources: [https://s1.example, https://s2.example]
maintainers: [{name: A, email: a@x.example}, {name: B}, {email: c@x.example}]
annotations:
  org.opencontainers.image.title: not this
  org.opencontainers.image.url: https://own.example
  zeta: "1"
`;

describe('a chart as an OCI artifact', () => {
  it('has the manifest of the written rule', () => {
    const made = chartArtifact(parse(TEXT), { archive, provenance });
    expect(made.config.toString()).toBe(
      '{"annotations":{"org.opencontainers.image.title":"not this","org.opencontainers.image.url":"https://own.example","zeta":"1"},"apiVersion":"v2","description":"words","home":"https://h.example","maintainers":[{"email":"a@x.example","name":"A"},{"name":"B"},{"email":"c@x.example"}],"name":"demo","sources":["https://s1.example","https://s2.example"],"version":"1.0.0"}',
    );
    const body = JSON.parse(made.manifest.toString());
    expect(Object.keys(body)).toEqual(['annotations', 'config', 'layers', 'mediaType', 'schemaVersion']);
    expect(body.annotations).toEqual({
      'org.opencontainers.image.authors': 'A (a@x.example), B,  (c@x.example)',
      'org.opencontainers.image.description': 'words',
      'org.opencontainers.image.source': 'https://s1.example',
      'org.opencontainers.image.title': 'demo',
      'org.opencontainers.image.url': 'https://own.example',
      'org.opencontainers.image.version': '1.0.0',
      zeta: '1',
    });
    expect(body.config).toEqual({ ...made.configDescriptor, mediaType: MEDIA.helmConfig });
    expect(body.layers.map((l: { mediaType: string }) => l.mediaType)).toEqual([
      MEDIA.helmProvenance,
      MEDIA.helmChart,
    ]);
    expect(made.manifest.toString()).not.toContain('created');
  });

  it('is the same for the same fields in another order, and another for other fields', () => {
    const [first = '', ...rest] = TEXT.split('\n');
    const moved = chartArtifact(parse([...rest, first].join('\n')), { archive });
    const same = chartArtifact(parse(TEXT), { archive });
    expect(moved.manifest.equals(same.manifest)).toBe(true);
    expect(chartArtifact(parse(TEXT), { archive, provenance }).descriptor.digest).not.toBe(
      same.descriptor.digest,
    );
    expect(chartArtifact(parse(TEXT.replace('words', 'word')), { archive }).descriptor).not.toEqual(
      same.descriptor,
    );
  });

  it('is read back by media type, whichever layer comes first', () => {
    const made = chartArtifact(parse(TEXT), { archive, provenance });
    const layers = selectChartLayers(parseManifest(made.manifest, made.descriptor), 'oci://x');
    expect(layers.archive.digest).toBe(archive.digest);
    expect(layers.provenance?.digest).toBe(provenance.digest);
    expect(layers.config).toEqual(made.configDescriptor);
  });

  it('is found under the old media type, too, and anything else is refused', () => {
    const layer = (mediaType: string, c: string) => ({ mediaType, digest: digest(c), size: 1 });
    const config = layer(MEDIA.helmConfig, 'c');
    const of = (layers: readonly unknown[], with_: unknown = config) => {
      const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, config: with_, layers }));
      const parsed = parseManifest(bytes, { mediaType: MEDIA.ociManifest, digest: 'x' });
      return selectChartLayers(parsed, 'oci://x');
    };
    expect(of([layer(MEDIA.helmChartLegacy, 'a')]).archive.digest).toBe(digest('a'));
    expect(of([layer(MEDIA.helmChartLegacy, 'a'), layer(MEDIA.helmChart, 'b')]).archive.digest).toBe(
      digest('b'),
    );
    const refused = expect.objectContaining({ code: 'OCI_MANIFEST_INVALID' });
    expect(() => of([])).toThrow(refused);
    expect(() => of([layer(MEDIA.helmChart, 'a'), layer(MEDIA.helmChart, 'b')])).toThrow(refused);
    expect(() => of([layer(MEDIA.helmChart, 'a')], layer(MEDIA.ociConfig, 'c'))).toThrow(refused);
    const index = parseManifest(Buffer.from('{"schemaVersion":2,"manifests":[]}'), {
      mediaType: MEDIA.ociIndex,
      digest: 'x',
    });
    expect(() => selectChartLayers(index, 'oci://x')).toThrow(refused);
  });
});

describe('provenance', () => {
  const hex = 'd'.repeat(64);
  const prov = (files: string): string =>
    `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\napiVersion: v1\nname: demo\nversion: 1.0.0\n\n...\n${files}\n-----BEGIN PGP SIGNATURE-----\n\nwsBc\n-----END PGP SIGNATURE-----\n`;
  const good = prov(`files:\n  demo-1.0.0.tgz: sha256:${hex}\n  other.tgz: md5:1`);
  const of = (text: string | undefined, fileName = 'demo-1.0.0.tgz', c = 'd') =>
    provenanceState(text, { fileName, digest: digest(c) });

  it('that names the archive is unverified, never verified', () => {
    expect([...provenanceFiles(good)]).toEqual([['demo-1.0.0.tgz', `sha256:${hex}`]]);
    expect(of(good)).toBe('unverified');
    expect(of(good.replaceAll('\n', '\r\n'))).toBe('unverified');
    expect(of(undefined)).toBe('absent');
  });

  it.each([
    ['other bytes', good, 'demo-1.0.0.tgz', 'e'],
    ['another file name', good, 'renamed.tgz', 'd'],
    ['nothing', '', 'demo-1.0.0.tgz', 'd'],
    ['no files', prov('nothing: here'), 'demo-1.0.0.tgz', 'd'],
    ['broken YAML', prov('files: {'), 'demo-1.0.0.tgz', 'd'],
    ['unsigned text', `files:\n  demo-1.0.0.tgz: sha256:${hex}`, 'demo-1.0.0.tgz', 'd'],
    ['more than a mebibyte', good + ' '.repeat(1024 * 1024), 'demo-1.0.0.tgz', 'd'],
  ])('that names %s is a mismatch', (_what, text, name, c) => expect(of(text, name, c)).toBe('mismatch'));
});
