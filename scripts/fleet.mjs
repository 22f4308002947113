/**
 * A deterministic maker of realistic container images, for the tests and the demonstration. Only Node is needed.
 * Layers are real gzip tar files with right diff_ids, so `ctr images import` and `skopeo copy` take them. One seed gives
 * one content on one machine (the compressed text may differ between builds of zlib). Layers are made when they are
 * asked for and are not kept: a big fleet needs the memory of its largest layer.
 */
import { makeLayer, sha256 } from './fleet-layer.mjs';

const OCI = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
};
const DOCKER = {
  index: 'application/vnd.docker.distribution.manifest.list.v2+json',
  manifest: 'application/vnd.docker.distribution.manifest.v2+json',
  config: 'application/vnd.docker.container.image.v1+json',
  layer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
};
const EMPTY = 'application/vnd.oci.empty.v1+json';
const CREATED = '2026-01-01T00:00:00Z';
const NAMES = [
  'web',
  'api',
  'worker',
  'db',
  'cache',
  'proxy',
  'auth',
  'metrics',
  'queue',
  'search',
  'mail',
  'agent',
];
const MIB = 1024 * 1024;

function splitPlatform(platform) {
  const [os, architecture, variant] = platform.split('/');
  return { architecture, os, ...(variant === undefined ? {} : { variant }) };
}

function document(mediaType, body, extra = {}) {
  const bytes = Buffer.from(JSON.stringify(body));
  return { mediaType, bytes, digest: sha256(bytes), ...extra };
}

function pointer(doc, extra = {}) {
  return { mediaType: doc.mediaType, digest: doc.digest, size: doc.bytes.length, ...extra };
}

/** Digests of layers that several images share are computed once. */
function layerBook() {
  const known = new Map();
  return (layer) => {
    const id = JSON.stringify(layer);
    let found = known.get(id);
    if (found === undefined) {
      const { bytes, diffId } = makeLayer(layer);
      found = { digest: sha256(bytes), diffId, size: bytes.length, bytes: () => makeLayer(layer).bytes };
      known.set(id, found);
    }
    return found;
  };
}

/** The image of one platform: config, layers and manifest. */
function platformImage(types, platform, layers) {
  const config = document(types.config, {
    created: CREATED,
    ...splitPlatform(platform),
    config: {
      Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      Cmd: ['/usr/bin/app'],
      Labels: { 'org.opencontainers.image.title': layers.at(-1).title },
    },
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
    history: layers.map((layer) => ({ created: CREATED, created_by: `COPY ${layer.title} / # fleet` })),
  });
  const manifest = document(types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: pointer(config),
    layers: layers.map(({ digest, size }) => ({ mediaType: types.layer, digest, size })),
  });
  const blobs = [
    { digest: config.digest, mediaType: types.config, size: config.bytes.length, bytes: () => config.bytes },
    ...layers.map(({ digest, size, bytes }) => ({ digest, mediaType: types.layer, size, bytes })),
  ];
  return { platform, manifest, blobs };
}

/** What BuildKit puts beside an image: a manifest for `unknown/unknown` with an in-toto statement. */
function attestation(of) {
  const statement = Buffer.from(
    JSON.stringify({
      _type: 'https://in-toto.io/Statement/v0.1',
      predicateType: 'https://slsa.dev/provenance/v0.2',
      subject: [{ name: of.platform, digest: { sha256: of.manifest.digest.slice(7) } }],
      predicate: { builder: { id: '' } },
    }),
  );
  const config = document(OCI.config, {
    architecture: 'unknown',
    os: 'unknown',
    config: {},
    rootfs: { type: 'layers', diff_ids: [sha256(statement)] },
  });
  const layer = {
    mediaType: 'application/vnd.in-toto+json',
    digest: sha256(statement),
    size: statement.length,
    annotations: { 'in-toto.io/predicate-type': 'https://slsa.dev/provenance/v0.2' },
  };
  const body = { schemaVersion: 2, mediaType: OCI.manifest, config: pointer(config), layers: [layer] };
  const { annotations: _, ...blob } = layer;
  return {
    platform: 'unknown/unknown',
    manifest: document(OCI.manifest, body),
    annotations: {
      'vnd.docker.reference.digest': of.manifest.digest,
      'vnd.docker.reference.type': 'attestation-manifest',
    },
    blobs: [
      { digest: config.digest, mediaType: OCI.config, size: config.bytes.length, bytes: () => config.bytes },
      { ...blob, bytes: () => statement },
    ],
  };
}

/** An artifact that is no image: an empty config and one layer of any type (image-spec, "Guidelines for Artifact Usage"). */
function artifact(key) {
  const empty = Buffer.from('{}');
  const content = Buffer.from(`{"policy":"${key}"}\n`);
  const layer = {
    mediaType: 'application/vnd.example.policy+json',
    digest: sha256(content),
    size: content.length,
  };
  const config = { mediaType: EMPTY, digest: sha256(empty), size: empty.length };
  const body = {
    schemaVersion: 2,
    mediaType: OCI.manifest,
    artifactType: 'application/vnd.example.policy',
    config,
    layers: [{ ...layer, annotations: { 'org.opencontainers.image.title': 'policy.json' } }],
  };
  const blobs = [
    { ...config, bytes: () => empty },
    { ...layer, bytes: () => content },
  ];
  return { platform: undefined, manifest: document(OCI.manifest, body), blobs };
}

function entryOf(part) {
  const platform = part.platform === undefined ? {} : { platform: splitPlatform(part.platform) };
  return pointer(part.manifest, {
    ...platform,
    ...(part.annotations === undefined ? {} : { annotations: part.annotations }),
  });
}

function indexOf(types, entries) {
  return document(types.index, { schemaVersion: 2, mediaType: types.index, manifests: entries });
}

/** Puts the manifests of an image under one root; everything below the root stands in `manifests`, children first. */
function assemble(kind, types, parts) {
  const manifests = parts.map(({ manifest, platform }) => ({
    ...manifest,
    ...(platform === undefined ? {} : { platform }),
  }));
  if (kind === 'single' || kind === 'docker-single' || kind === 'artifact') {
    return { index: parts[0].manifest, manifests: [] };
  }
  if (kind !== 'nested') return { index: indexOf(types, parts.map(entryOf)), manifests };
  const inner = indexOf(types, parts.slice(1).map(entryOf));
  const root = indexOf(types, [entryOf(parts[0]), pointer(inner)]);
  return parts.length < 2
    ? { index: indexOf(types, parts.map(entryOf)), manifests }
    : { index: root, manifests: [...manifests, inner] };
}

function makeImage(at, options, book) {
  const { platforms, layerSizes, sharedBases, baseSize, seed, kinds, prefix, delivery } = options;
  const kind = kinds[at % kinds.length];
  const types = kind.startsWith('docker') ? DOCKER : OCI;
  const base = sharedBases === 0 ? undefined : at % sharedBases;
  const changed = delivery > 1 && at % 4 === 0;
  const name = `${prefix}${NAMES[at % NAMES.length]}${at < NAMES.length ? '' : Math.floor(at / NAMES.length)}`;
  const layersOf = (platform) => {
    const specs = layerSizes.map((size, i) => {
      const version = changed && i === layerSizes.length - 1 ? `/delivery ${delivery}` : '';
      return { key: `${seed}/image ${at}/${platform}/${i}${version}`, size };
    });
    const below = { key: `${seed}/base ${base}/${platform}`, size: baseSize };
    const all = base === undefined ? specs : [below, ...specs];
    if (all.length > 1)
      all[all.length - 1] = { ...all.at(-1), hides: `${sha256(all[0].key).slice(7, 15)}.conf` };
    return all.map((spec) => ({ ...book(spec), title: spec.key }));
  };
  const carried = kind === 'single' || kind === 'docker-single' ? platforms.slice(0, 1) : platforms;
  const images = carried.map((platform) => platformImage(types, platform, layersOf(platform)));
  const parts =
    kind === 'artifact'
      ? [artifact(`${seed}/${at}`)]
      : kind === 'attested'
        ? [...images, ...images.map(attestation)]
        : images;
  const blobs = new Map();
  for (const { digest, ...blob } of parts.flatMap((part) => part.blobs)) blobs.set(digest, blob);
  const byPlatform = Object.fromEntries(
    parts
      .filter((p) => p.platform !== undefined && p.platform !== 'unknown/unknown')
      .map((p) => [p.platform, p.manifest.digest]),
  );
  const tag = `1.${at}.${changed ? delivery - 1 : 0}`;
  return { name, tag, kind, ...assemble(kind, types, parts), platforms: byPlatform, blobs };
}

function withDefaults(options) {
  return {
    images: 3,
    platforms: ['linux/amd64', 'linux/arm64'],
    layerSizes: [48 * 1024, 8 * 1024],
    sharedBases: 1,
    baseSize: 96 * 1024,
    seed: 1,
    kinds: ['oci', 'docker'],
    prefix: 'fleet/',
    delivery: 1,
    ...options,
  };
}

/** See fleet.d.mts. */
export function* eachImage(options = {}) {
  const all = withDefaults(options);
  const book = layerBook();
  for (let at = 0; at < all.images; at++) yield makeImage(at, all, book);
}

/** See fleet.d.mts. */
export function makeFleet(options = {}) {
  return [...eachImage(options)];
}

/** See fleet.d.mts. */
export function makeBigFleet(options = {}) {
  return eachImage({
    images: 12,
    layerSizes: [6 * MIB, 4 * MIB, MIB],
    sharedBases: 3,
    baseSize: 8 * MIB,
    ...options,
  });
}

async function expectStatus(response, wanted, what) {
  const text = await response.text();
  if (!wanted.includes(response.status))
    throw new Error(`${what}: HTTP ${response.status} ${text.slice(0, 500)}`);
}

async function pushBlob(base, digest, blob, headers) {
  const head = await fetch(`${base}/blobs/${digest}`, { method: 'HEAD', headers });
  if (head.status === 200) return false;
  await expectStatus(head, [404], `HEAD ${digest}`);
  const start = await fetch(`${base}/blobs/uploads/`, { method: 'POST', headers });
  await expectStatus(start, [202], 'POST uploads');
  const location = new URL(start.headers.get('location') ?? '', start.url);
  location.searchParams.set('digest', digest);
  const type = { 'content-type': 'application/octet-stream' };
  const put = await fetch(location, { method: 'PUT', headers: { ...headers, ...type }, body: blob.bytes() });
  await expectStatus(put, [201, 204], `PUT ${digest}`);
  return true;
}

async function pushManifest(base, reference, manifest, headers) {
  const put = await fetch(`${base}/manifests/${reference}`, {
    method: 'PUT',
    headers: { ...headers, 'content-type': manifest.mediaType },
    body: manifest.bytes,
  });
  await expectStatus(put, [201], `PUT ${reference}`);
}

/** See fleet.d.mts. */
export async function pushImage(hostPort, image, options = {}) {
  const headers = options.headers ?? {};
  const base = `http://${hostPort}/v2/${options.repository ?? image.name}`;
  const done = { blobsSent: 0, blobsPresent: 0, bytesSent: 0 };
  for (const [digest, blob] of image.blobs) {
    if (await pushBlob(base, digest, blob, headers)) {
      done.blobsSent += 1;
      done.bytesSent += blob.size;
    } else done.blobsPresent += 1;
  }
  for (const manifest of image.manifests) await pushManifest(base, manifest.digest, manifest, headers);
  await pushManifest(base, options.tag ?? image.tag, image.index, headers);
  return done;
}
