import { errorOf, type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { parseReference } from '../core/reference.ts';
import { isSparse } from '../oci/graph.ts';
import { fullName, type ImageStore } from '../oci/image-store.ts';
import type { ImageItem } from '../target/target.ts';
import { type ArchivedImage, type ImageArchives, shownName } from './image-archives.ts';

/** What a source of images and more is: ours, or what another tool wrote. */
export type Format = 'bundle' | ImageStore['kind'];

const NAME_HINT = 'give the name that it shall have, with an archive of one image: --name registry/app:tag';

/** What nobody can know of an archive without a lock, and what the digests of docker save are. */
export function archiveWarnings(archives: ImageArchives): Fault[] {
  const { path, kinds } = archives;
  const noLock = fault('LOCK_NOT_FOUND', `${path}: no bundle of sealift: no lock says what it must hold`, {
    hint: 'its digests find damage, not forgery: load it only when you trust how it came here',
  });
  const saved = `${path}: docker save keeps no manifests; they are made anew, so digests are not those of the registry that the images came from, signatures do not fit them, and layers stay as they are (mostly uncompressed)`;
  const hint = 'where digests count, copy the image with `skopeo copy --all docker://… oci-archive:…`';
  return kinds.includes('docker-archive')
    ? [noLock, fault('CONTENT_DIGEST_MISMATCH', saved, { hint })]
    : [noLock];
}

/** The images under the name that was given: there must be just one image. */
function renamed(images: readonly ArchivedImage[], name: string): ArchivedImage[] {
  const full = fullName(name);
  if (full === undefined)
    throw new SealiftError('USAGE', `--name: "${name.slice(0, 200)}" is not an image name`);
  const [only] = images;
  if (only !== undefined && images.length === 1) return [{ ...only, names: [full] }];
  throw new SealiftError('USAGE', `--name: the archive holds ${images.length} images`, {
    hint: 'give --name only with an archive of one image',
  });
}

function itemOf(image: ArchivedImage, name: string): ImageItem {
  const { root, graph } = image;
  return {
    kind: 'image',
    name,
    root,
    graph,
    reference: parseReference(name),
    sparse: isSparse(graph),
  };
}

/**
 * What of archives is loaded: every image once for each of its names; one without a name is left out with a warning.
 * @throws the faults of the archives, USAGE when nothing has a name, TARGET_NAME_COLLISION
 */
export function itemsOfArchives(
  archives: ImageArchives,
  options: { readonly name?: string | undefined; readonly context: Context },
): ImageItem[] {
  const { path, faults } = archives;
  if (faults.length > 0) throw errorOf(faults, `${path}: ${faults.length} faults; nothing was written`);
  const images = options.name === undefined ? archives.images : renamed(archives.images, options.name);
  const items = new Map<string, ImageItem>();
  for (const image of images) {
    if (image.names.length === 0) {
      const message = `${path}: ${shownName(image)} is no full image name; it is left out`;
      options.context.emit({
        type: 'warning',
        fault: fault('REFERENCE_INVALID', message, { hint: NAME_HINT }),
      });
    }
    for (const name of image.names) {
      const known = items.get(name);
      if (known !== undefined && known.root.digest !== image.root.digest) {
        const what = `${path}: two images are called ${name}: ${known.root.digest} and ${image.root.digest}`;
        throw new SealiftError('TARGET_NAME_COLLISION', what, {
          hint: 'load archives with one of them each',
        });
      }
      items.set(name, itemOf(image, name));
    }
  }
  if (items.size > 0) return [...items.values()];
  throw new SealiftError('USAGE', `${path}: no image in it has a full name`, { hint: NAME_HINT });
}

/** Reads everything below every image and compares it with its digest. Returns every fault. */
export async function checkArchives(
  archives: ImageArchives,
  context: Context,
): Promise<{ readonly faults: Fault[]; readonly bytes: number; readonly entries: number }> {
  const faults: Fault[] = [...archives.faults];
  const all = new Map(
    archives.images.flatMap((i) =>
      [...i.graph.nodes.values()].map((n) => [n.descriptor.digest, n.descriptor]),
    ),
  );
  const bytes = [...all.values()].reduce((sum, d) => sum + d.size, 0);
  context.emit({ type: 'total', bytes, items: all.size });
  context.emit({ type: 'start', id: 'verify', label: 'bytes', size: bytes });
  for (const descriptor of all.values()) {
    try {
      for await (const chunk of archives.open(descriptor, { signal: context.signal }))
        context.emit({ type: 'progress', id: 'verify', bytes: chunk.length });
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError)) throw error;
      faults.push(faultOf(error));
    }
  }
  context.emit({ type: 'end', id: 'verify', outcome: faults.length === 0 ? 'done' : 'failed' });
  return { faults, bytes, entries: all.size };
}
