/** The fleets of the benchmark, written once as a registry keeps them, and kept in the temporary directory. */
import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { eachImage } from '../scripts/fleet.mjs';

const MIB = 1024 * 1024;
/** A change of the maker or of the shape of fleet.json makes old caches useless. */
const FORMAT = 2;

/**
 * 16 images for two platforms in four groups of unlike size, with four base layers that all groups share: 136 blobs,
 * about 733 MB. The small one has 52 blobs, 59 MB.
 */
export const FLEETS = {
  full: {
    deliveries: 2,
    groups: [
      [14 * MIB, 6 * MIB, MIB],
      [10 * MIB, 4 * MIB, MIB / 4],
      [20 * MIB, 8 * MIB, 2 * MIB],
      [6 * MIB, 3 * MIB, MIB / 2],
    ].map((layerSizes, i) => ({ ...shape(`bench/${'abcd'[i]}-`, 11 * MIB), images: 4, layerSizes })),
  },
  small: {
    deliveries: 2,
    groups: [
      { ...shape('bench/a-', 2 * MIB), images: 4, layerSizes: [3 * MIB, MIB, MIB / 8] },
      { ...shape('bench/b-', 2 * MIB), images: 2, layerSizes: [MIB, MIB / 2, MIB / 8] },
    ],
  },
};

function shape(prefix, baseSize) {
  return { prefix, sharedBases: 4, baseSize, kinds: ['oci'], seed: 'bench' };
}

/** Many images of a few hundred bytes for one platform, over one shared base. */
export function tinyFleet(images) {
  const platforms = ['linux/amd64'];
  const group = {
    ...shape('tiny/', 4096),
    sharedBases: 1,
    images,
    platforms,
    layerSizes: [256],
    kinds: ['single'],
  };
  return { deliveries: 1, groups: [group] };
}

const encode = (manifest) => ({
  mediaType: manifest.mediaType,
  digest: manifest.digest,
  text: manifest.bytes.toString('utf8'),
});

function describe(image) {
  return {
    name: image.name,
    tag: image.tag,
    root: encode(image.index),
    manifests: image.manifests.map(encode),
    blobs: [...image.blobs].map(([digest, { size }]) => ({ digest, size })),
  };
}

/** One file of the registry's folder; a blob that is there already is the same. */
async function put(path, bytes) {
  if (existsSync(path)) return;
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
}

const under = (digest) => digest.replace(':', '/');

/** Where docker-registry keeps the bytes of a digest. */
export const dataOf = (content, digest) =>
  join(
    content,
    `docker/registry/v2/blobs/sha256/${digest.slice(7, 9)}/${digest.slice('sha256:'.length)}/data`,
  );

/** Puts an image where docker-registry keeps it. Pushing thousands of images would take minutes of fsync. */
async function storeImage(content, image) {
  const repository = join(content, 'docker/registry/v2/repositories', image.name);
  const link = (path, digest) => put(join(repository, path, 'link'), digest);
  for (const [digest, blob] of image.blobs) {
    if (!existsSync(dataOf(content, digest))) await put(dataOf(content, digest), blob.bytes());
    await link(`_layers/${under(digest)}`, digest);
  }
  for (const { digest, bytes } of [...image.manifests, image.index]) {
    await put(dataOf(content, digest), bytes);
    await link(`_manifests/revisions/${under(digest)}`, digest);
  }
  const { digest } = image.index;
  await link(`_manifests/tags/${image.tag}/index/${under(digest)}`, digest);
  await link(`_manifests/tags/${image.tag}/current`, digest);
}

async function storeDelivery(content, images) {
  const described = [];
  for (const image of images) {
    await storeImage(content, image);
    described.push(describe(image));
  }
  return { images: described };
}

function* imagesOf(fleet, delivery) {
  for (const group of fleet.groups) yield* eachImage({ ...group, delivery });
}

async function makeFleet(dir, fleet) {
  const partial = `${dir}.${process.pid}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  const content = join(partial, 'content');
  const deliveries = [];
  for (let n = 1; n <= fleet.deliveries; n++)
    deliveries.push(await storeDelivery(content, imagesOf(fleet, n)));
  await writeFile(join(partial, 'fleet.json'), JSON.stringify({ deliveries }));
  // Another run may have been faster with the same fleet.
  if (existsSync(join(dir, 'fleet.json'))) await rm(partial, { recursive: true });
  else await rename(partial, dir);
}

/** Whether all content is there in its size: a machine that went down, or whoever cleans up, may have left a part. */
function isWhole(content, deliveries) {
  const images = deliveries.flatMap((delivery) => delivery.images);
  const wanted = [
    ...images.flatMap(({ blobs }) => blobs),
    ...images
      .flatMap(({ root, manifests }) => [root, ...manifests])
      .map(({ digest, text }) => ({
        digest,
        size: Buffer.byteLength(text),
      })),
  ];
  return wanted.every(
    ({ digest, size }) => statSync(dataOf(content, digest), { throwIfNoEntry: false })?.size === size,
  );
}

/**
 * The content of a registry that holds a fleet, and what is in it; made when it is not there yet, or not wholly.
 * @returns {Promise<{content: string, deliveries: {images: {name: string, tag: string}[]}[]}>}
 */
export async function openFleet(home, fleet) {
  const key = createHash('sha256').update(JSON.stringify({ FORMAT, fleet })).digest('hex').slice(0, 12);
  const dir = join(home, `fleet-${key}`);
  const read = async () => JSON.parse(await readFile(join(dir, 'fleet.json'), 'utf8')).deliveries;
  const content = join(dir, 'content');
  if (existsSync(join(dir, 'fleet.json'))) {
    const deliveries = await read();
    if (isWhole(content, deliveries)) return { content, deliveries };
    await rm(dir, { recursive: true, force: true });
  }
  await makeFleet(dir, fleet);
  return { content, deliveries: await read() };
}

/** Every different blob of some images, with the first repository that has it; manifests are not among them. */
export function blobsOf(images) {
  const found = new Map();
  for (const image of images)
    for (const blob of image.blobs)
      if (!found.has(blob.digest)) found.set(blob.digest, { ...blob, repository: image.name });
  return [...found.values()];
}
