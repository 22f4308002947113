import type { Descriptor } from '../core/descriptor.ts';
import { WRONG_CONTENT } from '../io/resume.ts';
import { Spool } from '../io/spool.ts';
import { isWrongContent, Verifier } from '../io/verify.ts';
import type { NextStream } from '../oci/content.ts';

interface About {
  readonly descriptor: Descriptor;
  /** For messages. */
  readonly what: string;
  readonly signal: AbortSignal;
}

/** Fills a spool from whoever has the blob. @returns where in it the right bytes begin */
async function fill(spool: Spool, next: NextStream, { descriptor, what }: About): Promise<number> {
  const fresh = (): Verifier => new Verifier({ ...descriptor, what, hint: WRONG_CONTENT });
  let verifier = fresh();
  let begin = 0;
  for (let source = next(); ; ) {
    const at = spool.size - begin;
    try {
      for await (const chunk of source(at)) {
        verifier.update(chunk);
        await spool.write(chunk);
      }
      verifier.finish();
      return begin;
    } catch (error) {
      source = next(error);
      if (!isWrongContent(error)) continue;
      verifier = fresh();
      begin = spool.size;
    }
  }
}

/**
 * Streams a blob that was verified before its first byte is given: until then wrong bytes are asked for elsewhere. It lies in
 * a file without a name meanwhile, so it must be one of bounded size.
 * @throws what `next` throws in the end; DISK_FULL, FILE_UNREADABLE of the folder for temporary files
 */
export async function* spooled(next: NextStream, about: About): AsyncGenerator<Uint8Array> {
  const { descriptor, what, signal } = about;
  const spool = await Spool.open({ what, purpose: `for ${what}`, small: true }, { signal });
  try {
    const position = await fill(spool, next, about);
    yield* spool.read({ position, length: descriptor.size });
  } finally {
    await spool.close();
  }
}
