/** Generated images for the tests, and the shortest way to a registry that holds some. The maker is scripts/fleet.mjs. */
import {
  eachImage,
  type FleetImage,
  type FleetOptions,
  makeBigFleet,
  makeFleet,
  pushImage,
} from '../../scripts/fleet.mjs';

export type {
  FleetBlob,
  FleetImage,
  FleetKind,
  FleetManifest,
  FleetOptions,
  Pushed,
} from '../../scripts/fleet.mjs';
export { eachImage, makeBigFleet, makeFleet, pushImage };

/** One small image. */
export function makeImage(options: FleetOptions = {}): FleetImage {
  const [image] = makeFleet({ ...options, images: 1 });
  if (image === undefined) throw new Error('a fleet of one image has one image');
  return image;
}

/** Makes a small fleet and pushes all of it to `hostPort`. */
export async function pushFleet(hostPort: string, options: FleetOptions = {}): Promise<FleetImage[]> {
  const images = makeFleet(options);
  for (const image of images) await pushImage(hostPort, image);
  return images;
}

/** Bytes of all different blobs of some images. */
export function blobBytes(images: Iterable<FleetImage>): number {
  const sizes = new Map<string, number>();
  for (const image of images) for (const [digest, blob] of image.blobs) sizes.set(digest, blob.size);
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
}
