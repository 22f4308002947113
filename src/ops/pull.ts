import { mkdir } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { receiveChunks } from '../bundle/chunk-files.ts';
import { BUNDLE_CHUNK, type BundleLabel, parseBundleManifest } from '../bundle/chunks.ts';
import { holdPath } from '../bundle/partial.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { diskError, kindOf } from '../io/files.ts';
import { Registry } from '../oci/registry.ts';
import { type BundlePlace, formatBundlePlace } from './bundle-place.ts';
import { withHttp } from './session.ts';

export interface PullOptions {
  /** Without tag and digest: the tag `latest`. */
  readonly from: BundlePlace;
  /** Path of the bundle; a folder that gets it in volumes when it ends in `/`. */
  readonly out: string;
}

/** What was pulled; the label is what the registry says, nobody has compared it with the bundle yet. */
export interface PullResult extends BundleLabel {
  readonly place: string;
  /** Of the manifest. */
  readonly digest: Digest;
  readonly path: string;
  /** Names of the files in `path` where that is a folder. */
  readonly volumes: readonly string[] | null;
  /** Bytes of the bundle. */
  readonly size: number;
  readonly chunks: number;
  /** Bytes that came, and those that an interrupted pull had left. */
  readonly fetched: number;
  readonly resumed: number;
  /** `present`: the same bytes were there. */
  readonly outcome: 'pulled' | 'present';
}

/**
 * Fetches a bundle that `push` put into a registry. Each chunk is checked by its SHA-256 and lands at its final place; the
 * file appears when all are there. An interrupted pull goes on inside a chunk. Nothing is overwritten.
 * @throws CONTENT_NOT_FOUND, CONTENT_UNSUPPORTED, OCI_MANIFEST_INVALID, TARGET_CONFLICT, DISK_FULL, PACK_BUSY,
 *   CONTENT_DIGEST_MISMATCH, and what the registry says
 */
export function pull(options: PullOptions, context: Context): Promise<PullResult> {
  const { from } = options;
  const out = resolve(options.out);
  const kind = options.out.endsWith('/') ? 'volumes' : 'file';
  const reference = from.digest ?? from.tag ?? 'latest';
  const place = formatBundlePlace(from.digest === undefined ? { ...from, tag: reference } : from);
  return withHttp(context, async (http) => {
    const registry = new Registry(from.host, { http, context, config: from.config });
    const content = await registry.getManifest(from.repository, reference);
    const artifact = parseBundleManifest(content, place);
    await refuseOtherKind(out, kind);
    const home = kind === 'file' ? dirname(out) : out;
    await mkdir(home, { recursive: true }).catch((error: unknown) => {
      throw diskError(error, home);
    });
    context.emit({ type: 'phase', name: 'pull' });
    const release = await holdPath(out, 'pull');
    try {
      const stats = await receiveChunks(artifact, {
        out,
        kind,
        journal: content.descriptor.digest,
        context,
        read: ({ digest, size }, offset, into) =>
          registry.readBlob(
            from.repository,
            { mediaType: BUNDLE_CHUNK, digest, size },
            { signal: context.signal, offset, into },
          ),
      });
      const { label, size, chunks } = artifact;
      const volumes = kind === 'file' ? null : chunks.map((c) => c.title);
      const { fetched = 0, resumed = 0 } = stats ?? {};
      const about = { ...label, place, digest: content.descriptor.digest, path: out, volumes, size };
      const outcome = stats === undefined ? 'present' : 'pulled';
      return { ...about, chunks: chunks.length, fetched, resumed, outcome };
    } finally {
      await release();
    }
  });
}

async function refuseOtherKind(out: string, kind: 'file' | 'volumes'): Promise<void> {
  const found = await kindOf(out);
  if (found === undefined || (found === 'folder') === (kind === 'volumes')) return;
  throw new SealiftError('USAGE', `${out} is a ${found}`, {
    hint:
      found === 'folder'
        ? 'name the file: -o FOLDER/NAME.tar; or end the path with / to have it in volumes'
        : 'leave out the / at the end to write a file',
  });
}
