import type { Descriptor } from '../core/descriptor.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { KIB } from '../core/limits.ts';
import type { ContentReader } from '../oci/content.ts';
import type { Registry } from '../oci/registry.ts';
import type { Tally } from './target.ts';

/** Stays in the processor's cache from the read over the hash to the socket. */
const PIECE = 256 * KIB;

/** Sends one blob from whoever has it into a repository; `again` also when the registry says that it has it. */
export type Upload = (
  repository: string,
  descriptor: Descriptor,
  source: ContentReader,
  how?: { readonly again: boolean },
) => Promise<void>;

/**
 * Uploads with progress and a count of what was written.
 * @param tools.passing whether blobs come by themselves: whoever passes them checks them
 */
export function uploader(tools: {
  readonly registry: Registry;
  readonly context: Context;
  readonly tally: Tally;
  readonly passing: boolean;
}): Upload {
  const { registry, context, tally, passing } = tools;
  return async (repository, descriptor, source, how) => {
    const id = `${registry.host}/${repository} ${descriptor.digest}`;
    const label = `${repository} ${descriptor.digest.slice(7, 19)}`;
    context.emit({ type: 'start', id, label, size: descriptor.size });
    let shown = 0;
    const open = async function* (): AsyncGenerator<Uint8Array> {
      context.emit({ type: 'progress', id, bytes: -shown });
      shown = 0;
      for await (const chunk of source.open(descriptor, { signal: context.signal, passOn: PIECE })) {
        shown += chunk.length;
        context.emit({ type: 'progress', id, bytes: chunk.length });
        yield chunk;
      }
    };
    let isOurs: boolean;
    try {
      isOurs = await registry.writeBlob(repository, descriptor, { open, again: how?.again === true });
    } catch (error) {
      context.emit({ type: 'end', id, outcome: 'failed' });
      if (!passing && isDoubtful(error)) {
        // What was passed on may be other bytes than its digest says: then that is the fault.
        for await (const _ of source.open(descriptor, { signal: context.signal }));
      }
      throw error;
    }
    context.emit({ type: 'end', id, outcome: 'done' });
    tally[isOurs ? 'blobsWritten' : 'blobsPresent'] += 1;
    if (isOurs) tally.bytesWritten += descriptor.size;
  };
}

/** A refusal that wrong bytes may have caused. */
function isDoubtful(error: unknown): boolean {
  const { status, stored } = (error instanceof SealiftError ? error.details : undefined) ?? {};
  return status === 400 || stored !== undefined;
}
