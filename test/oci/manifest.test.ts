import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import { MEDIA } from '../../src/core/media.ts';
import { digestOf } from '../../src/io/verify.ts';
import {
  manifestMediaType,
  parseManifest,
  platformOfConfig,
  sniffMediaType,
} from '../../src/oci/manifest.ts';
import { INDEX, MANIFEST } from './bench.ts';

const HEX = 'ab'.repeat(32);
const layer = { mediaType: 'application/octet-stream', digest: `sha256:${HEX}`, size: 3 };
const image = { schemaVersion: 2, config: layer, layers: [layer] };
const index = { schemaVersion: 2, manifests: [layer] };

function parse(body: unknown, mediaType = MANIFEST) {
  const bytes = typeof body === 'string' ? Buffer.from(body) : Buffer.from(JSON.stringify(body));
  return parseManifest(bytes, { mediaType, digest: `sha256:${HEX}` });
}

function codeOf(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error instanceof Error && 'code' in error ? error.code : error;
  }
  return 'nothing wrong';
}

describe('a manifest', () => {
  it('gives its parts as they stand there', () => {
    const subject = { ...layer, mediaType: INDEX };
    const body = {
      ...image,
      mediaType: MANIFEST,
      artifactType: 'application/example',
      subject,
      annotations: { a: '1', odd: 7 },
      layers: [{ ...layer, annotations: { title: 'x' } }, layer],
    };
    expect(parse(body)).toEqual({
      kind: 'manifest',
      mediaType: MANIFEST,
      artifactType: 'application/example',
      subject,
      annotations: { a: '1' },
      config: layer,
      layers: body.layers,
    });
  });

  it('of Docker is read in the same way', () => {
    expect(parse({ ...image, mediaType: MEDIA.dockerManifest }, MEDIA.dockerManifest).kind).toBe('manifest');
    expect(parse({ ...index, mediaType: MEDIA.dockerList }, MEDIA.dockerList).kind).toBe('index');
  });

  it('may have no layers at all, and null for none', () => {
    expect(parse({ ...image, layers: [] })).toMatchObject({ layers: [] });
    expect(parse({ ...image, layers: null })).toMatchObject({ layers: [] });
  });
});

describe('an index', () => {
  it('gives its children with their platforms, its subject and its artifact type', () => {
    const platform = { os: 'windows', architecture: 'amd64', 'os.version': '10.0.1', variant: '' };
    const body = {
      ...index,
      artifactType: 'application/example',
      subject: layer,
      manifests: [{ ...layer, mediaType: MANIFEST, platform, artifactType: 'x/y' }],
    };
    expect(parse(body, INDEX)).toEqual({
      kind: 'index',
      mediaType: INDEX,
      annotations: {},
      artifactType: 'application/example',
      subject: layer,
      manifests: [
        {
          ...layer,
          mediaType: MANIFEST,
          artifactType: 'x/y',
          platform: { os: 'windows', architecture: 'amd64', osVersion: '10.0.1' },
        },
      ],
    });
  });

  it('without them says nothing of them', () => {
    expect(parse(index, INDEX)).toMatchObject({ artifactType: undefined, subject: undefined });
    expect(parse({ ...index, artifactType: '', subject: null }, INDEX)).toMatchObject({
      artifactType: undefined,
      subject: undefined,
    });
  });
});

describe('[1.3-type-confusion] a body that is two things (CVE-2021-41190)', () => {
  const both = { ...image, ...index };
  for (const type of [MANIFEST, INDEX, MEDIA.dockerManifest, MEDIA.dockerList]) {
    it(`is refused as ${type}`, () => {
      expect(codeOf(() => parse(both, type))).toBe('OCI_MANIFEST_INVALID');
      expect(codeOf(() => parse({ ...both, mediaType: type }, type))).toBe('OCI_MANIFEST_INVALID');
    });
  }

  it('is refused with only a part of the other kind, also an empty one', () => {
    expect(codeOf(() => parse({ ...index, config: layer }, INDEX))).toBe('OCI_MANIFEST_INVALID');
    expect(codeOf(() => parse({ ...index, layers: [] }, INDEX))).toBe('OCI_MANIFEST_INVALID');
    expect(codeOf(() => parse({ ...image, manifests: null }))).toBe('OCI_MANIFEST_INVALID');
  });

  it('[1.3-type-body] is refused when its own media type says another thing than the answer', () => {
    expect(codeOf(() => parse({ ...image, mediaType: INDEX }))).toBe('OCI_MANIFEST_INVALID');
    expect(codeOf(() => parse({ ...index, mediaType: MANIFEST }, INDEX))).toBe('OCI_MANIFEST_INVALID');
    expect(codeOf(() => parse({ ...image, mediaType: MEDIA.dockerManifest }))).toBe('OCI_MANIFEST_INVALID');
  });
});

describe('what Sealift does not carry', () => {
  it('[1.3-schema1] is named: Docker schema 1, by its type or by its body', () => {
    for (const type of [MEDIA.dockerSchema1, MEDIA.dockerSchema1Signed]) {
      expect(codeOf(() => parse({ schemaVersion: 1, fsLayers: [] }, type))).toBe('CONTENT_UNSUPPORTED');
    }
    expect(() => parse({ ...image, schemaVersion: 1 })).toThrow('schema 1');
  });

  it('is named: any other type', () => {
    for (const type of ['text/html', 'application/octet-stream', '']) {
      expect(codeOf(() => parse({}, type))).toBe('CONTENT_UNSUPPORTED');
    }
  });

  it('is named: a digest of another algorithm, wherever it stands (registry.md 1.3 Descriptor checks)', () => {
    const foreign = { ...layer, digest: `sha512:${HEX}${HEX}` };
    const bodies = [
      [{ ...image, layers: [foreign] }, MANIFEST],
      [{ ...image, config: foreign }, MANIFEST],
      [{ ...image, subject: foreign }, MANIFEST],
      [{ ...index, manifests: [foreign] }, INDEX],
    ] as const;
    for (const [body, type] of bodies) {
      expect(codeOf(() => parse(body, type))).toBe('CONTENT_UNSUPPORTED');
      expect(() => parse(body, type)).toThrow('sha512');
    }
  });
});

describe('the withdrawn artifact manifest', () => {
  const artifact = { mediaType: MEDIA.ociArtifact, artifactType: 'application/x', blobs: [layer] };

  it('is read as a manifest without config whose layers are its blobs', () => {
    const parsed = parse({ ...artifact, subject: layer }, MEDIA.ociArtifact);
    expect(parsed).toMatchObject({ kind: 'manifest', config: undefined, artifactType: 'application/x' });
    expect(parsed.kind === 'manifest' && parsed.layers.map((l) => l.digest)).toEqual([layer.digest]);
    expect(parsed.subject?.digest).toBe(layer.digest);
  });

  it('is no index at the same time', () => {
    expect(codeOf(() => parse({ ...artifact, manifests: [] }, MEDIA.ociArtifact))).toBe(
      'OCI_MANIFEST_INVALID',
    );
    expect(codeOf(() => parse({ ...index, blobs: [] }, INDEX))).toBe('OCI_MANIFEST_INVALID');
  });
});

describe('bad descriptors', () => {
  const bad: Record<string, unknown> = {
    'no object': 'sha256:x',
    null: null,
    'a list': [layer],
    'no media type': { ...layer, mediaType: undefined },
    'an empty media type': { ...layer, mediaType: '' },
    'no digest': { ...layer, digest: undefined },
    'a digest in capitals': { ...layer, digest: `sha256:${HEX.toUpperCase()}` },
    'a short digest': { ...layer, digest: 'sha256:abcd' },
    'embedded content of another digest': { ...layer, size: 3, data: Buffer.from('abc').toString('base64') },
    'embedded content of another size': {
      ...layer,
      digest: digestOf('abc'),
      size: 4,
      data: Buffer.from('abc').toString('base64'),
    },
    'a path for a digest': { ...layer, digest: 'sha256:../../../../etc/passwd' },
    'no size': { ...layer, size: undefined },
    'a negative size': { ...layer, size: -1 },
    'a fraction': { ...layer, size: 1.5 },
    'a size beyond all numbers': { ...layer, size: 2 ** 53 },
    'a size as text': { ...layer, size: '3' },
  };
  for (const [name, value] of Object.entries(bad)) {
    it(`are refused wherever they stand: ${name}`, () => {
      for (const [body, type] of [
        [{ ...image, layers: [layer, value] }, MANIFEST],
        [{ ...image, config: value }, MANIFEST],
        [{ ...index, manifests: [value] }, INDEX],
      ] as const) {
        expect(codeOf(() => parse(body, type))).toBe('OCI_MANIFEST_INVALID');
      }
      // null is how some tools write "no subject".
      if (value === null) return;
      expect(codeOf(() => parse({ ...image, subject: value }))).toBe('OCI_MANIFEST_INVALID');
      expect(codeOf(() => parse({ ...index, subject: value }, INDEX))).toBe('OCI_MANIFEST_INVALID');
    });
  }

  it('are named with their place, and long ones are cut', () => {
    expect(() => parse({ ...image, layers: [layer, { ...layer, digest: 'x'.repeat(1e6) }] })).toThrow(
      /layers\[1\].{1,200}$/,
    );
  });
});

describe('bodies that are no manifest', () => {
  const bodies: Record<string, string> = {
    nothing: '',
    'no JSON': '<html>not found</html>',
    'a list': '[]',
    null: 'null',
    'a number': '42',
    'cut short': '{"schemaVersion":2,"config":',
    'very deep': `${'['.repeat(2_000_000)}`,
  };
  for (const [name, body] of Object.entries(bodies)) {
    it(`are refused: ${name}`, () => {
      for (const type of [MANIFEST, INDEX])
        expect(codeOf(() => parse(body, type))).toBe('OCI_MANIFEST_INVALID');
    });
  }

  it('are refused: bytes that are no UTF-8', () => {
    const bytes = Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]);
    const work = (): unknown => parseManifest(bytes, { mediaType: MANIFEST, digest: 'x' });
    expect(codeOf(work)).toBe('OCI_MANIFEST_INVALID');
  });

  it('are refused: parts that are missing or no lists', () => {
    for (const body of [
      {},
      { config: layer },
      { layers: [] },
      { ...image, layers: {} },
      { ...image, layers: 'x' },
    ])
      expect(codeOf(() => parse(body))).toBe('OCI_MANIFEST_INVALID');
    for (const body of [{}, { manifests: {} }, { manifests: null }])
      expect(codeOf(() => parse(body, INDEX))).toBe('OCI_MANIFEST_INVALID');
  });

  it('are refused: lists over the limit', () => {
    const many = (n: number): unknown[] => new Array(n).fill(layer);
    expect(parse({ ...index, manifests: many(LIMITS.indexChildren) }, INDEX)).toHaveProperty('manifests');
    expect(codeOf(() => parse({ ...index, manifests: many(LIMITS.indexChildren + 1) }, INDEX))).toBe(
      'OCI_MANIFEST_INVALID',
    );
    expect(codeOf(() => parse({ ...image, layers: many(LIMITS.layersPerManifest + 1) }))).toBe(
      'OCI_MANIFEST_INVALID',
    );
  });

  it('only ever fail with our errors (property)', () => {
    const types = fc.constantFrom(MANIFEST, INDEX, MEDIA.dockerList, MEDIA.dockerManifest);
    const odd = fc.oneof(fc.jsonValue(), fc.constant(layer), fc.constant([layer]));
    const body = fc.record(
      {
        schemaVersion: odd,
        mediaType: odd,
        config: odd,
        layers: odd,
        manifests: odd,
        annotations: odd,
        subject: odd,
        artifactType: odd,
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(body, types, (value, type) => {
        const code = codeOf(() => parse(value, type));
        expect(['nothing wrong', 'OCI_MANIFEST_INVALID', 'CONTENT_UNSUPPORTED']).toContain(code);
      }),
    );
  });
});

describe('the media type', () => {
  const bytes = (body: unknown): Buffer => Buffer.from(JSON.stringify(body));

  it('[1.3-type] is the Content-Type, without parameters and in any case', () => {
    expect(manifestMediaType(bytes(index), INDEX, 'x')).toBe(INDEX);
    expect(manifestMediaType(bytes(image), `${MANIFEST.toUpperCase()}; charset=utf-8`, 'x')).toBe(MANIFEST);
    // Wrong, but it is for parseManifest to say so.
    expect(manifestMediaType(bytes({ ...index, mediaType: INDEX }), MANIFEST, 'x')).toBe(MANIFEST);
  });

  it('[1.3-type-body] is that of the answer where the body names none', () => {
    for (const [body, type] of [
      [image, MANIFEST],
      [image, MEDIA.dockerManifest],
      [index, INDEX],
      [index, MEDIA.dockerList],
    ] as const) {
      expect(manifestMediaType(bytes(body), type, 'x')).toBe(type);
      expect(parse(body, type).mediaType).toBe(type);
    }
  });

  it('[1.3-type-sniff] is taken from the body when the Content-Type says nothing', () => {
    for (const type of [undefined, 'application/json', 'text/plain', 'application/octet-stream', '']) {
      expect(manifestMediaType(bytes({ ...image, mediaType: MEDIA.dockerManifest }), type, 'x')).toBe(
        MEDIA.dockerManifest,
      );
      expect(manifestMediaType(bytes(image), type, 'x')).toBe(MANIFEST);
      expect(manifestMediaType(bytes(index), type, 'x')).toBe(INDEX);
      expect(manifestMediaType(bytes({ schemaVersion: 1 }), type, 'x')).toBe(MEDIA.dockerSchema1);
    }
    expect(sniffMediaType({ hello: 1 })).toBeUndefined();
  });

  it('is that of a web page when it is one, which is then refused', () => {
    expect(manifestMediaType(bytes({}), 'text/html', 'x')).toBe('text/html');
    expect(codeOf(() => manifestMediaType(Buffer.from('<html>'), 'text/html', 'x'))).toBe(
      'OCI_MANIFEST_INVALID',
    );
  });
});

it('the platform of an image config is read, and one that says nothing is none', () => {
  const config = (body: unknown): unknown => platformOfConfig(Buffer.from(JSON.stringify(body)), 'x');
  expect(config({ os: 'linux', architecture: 'arm', variant: 'v7' })).toEqual({
    os: 'linux',
    architecture: 'arm',
    variant: 'v7',
  });
  expect(config({ os: 'linux' })).toBeUndefined();
  expect(config({})).toBeUndefined();
  expect(codeOf(() => platformOfConfig(Buffer.from('x'), 'x'))).toBe('OCI_MANIFEST_INVALID');
});

it('says a digest or a size that is nested ever so deep, or that cannot be printed, in a few characters', () => {
  const deep = `${'['.repeat(50_000)}${']'.repeat(50_000)}`;
  for (const [key, value] of [
    ['digest', deep],
    ['size', deep],
    ['digest', '{"toString":1}'],
    ['size', '{"toString":1,"valueOf":1}'],
  ] as const) {
    const descriptor = JSON.stringify({ ...layer, [key]: '@' }).replace('"@"', value);
    const text = `{"schemaVersion":2,"config":${descriptor},"layers":[]}`;
    expect(codeOf(() => parse(text))).toBe('OCI_MANIFEST_INVALID');
  }
});
