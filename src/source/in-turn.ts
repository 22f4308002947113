import { SealiftError } from '../core/errors.ts';
import { throwIfAborted } from '../io/pool.ts';
import { WRONG_CONTENT } from '../io/resume.ts';
import { isWrongContent } from '../io/verify.ts';
import type { BlobStream, NextStream } from '../oci/content.ts';

/** One of those who may have a blob. */
export interface Supply {
  /** For messages. */
  readonly name?: string;
  readonly open: BlobStream;
  /** Hears what it failed with when it is left for the next one. */
  failed?(error: SealiftError): void;
}

/** Wrong content that the consumer found out, with who sent it. */
function sentBy(name: string, error: SealiftError): SealiftError {
  const { code, message, details } = error;
  const more = details === undefined ? {} : { details };
  return new SealiftError(code, `${name}: ${message}`, {
    hint: WRONG_CONTENT,
    side: 'source',
    cause: error,
    ...more,
  });
}

function lastOf(failures: readonly SealiftError[]): SealiftError {
  return failures.at(-1) ?? new SealiftError('INTERNAL', 'nobody to ask');
}

/**
 * Asks one after the other. This is the one place that decides who gives a blob and how often he is asked: who fails,
 * also in the middle, is left for the next one, which goes on behind the bytes that came; what one transfer bears is the
 * rule of `countCuts`. Wrong content is asked for again from the start: of the same one where its beginning was another's,
 * and once of the last one, because a byte that changed on the way is right the next time; then he verifies by himself,
 * and is named.
 * @param options.sum makes one failure of all, in their order; default the last one
 */
export function askInTurn(
  supplies: readonly Supply[],
  options: {
    readonly signal: AbortSignal;
    readonly sum?: (failures: readonly SealiftError[]) => SealiftError;
  },
): NextStream {
  const { signal, sum = lastOf } = options;
  const failures: SealiftError[] = [];
  let turn = 0;
  /** Whether the one whose turn it is was asked again: after another's beginning, and as the last one. */
  let [isWhole, isSecond] = [false, false];
  let start = 0;
  let own: unknown;
  const left = (supply: Supply | undefined, failure: SealiftError): void => {
    supply?.failed?.(failure);
    const isNamed = failure === own || supply?.name === undefined;
    failures.push(isNamed ? failure : sentBy(supply.name, failure));
    turn += 1;
    [isWhole, isSecond] = [false, false];
  };
  return (failure) => {
    if (failure !== undefined) {
      throwIfAborted(signal);
      const isWrong = isWrongContent(failure);
      if (!(failure instanceof SealiftError)) throw failure;
      // What is not the stream's concerns whoever comes next just as well, and so does the disk that it is poured to.
      const isOurs = (failure !== own && !isWrong) || failure.side === 'destination';
      if (isOurs) throw failure;
      const isLast = turn === supplies.length - 1;
      if (isWrong && start > 0 && !isWhole) isWhole = true;
      else if (isWrong && isLast && !isSecond) isSecond = true;
      else left(supplies[turn], failure);
    }
    const supply = supplies[turn];
    if (supply === undefined) throw sum(failures);
    const verifies = isSecond;
    return async function* stream(offset, into) {
      start = offset;
      try {
        yield* supply.open(offset, verifies ? undefined : into);
      } catch (error) {
        own = error;
        throw error;
      }
    };
  };
}
