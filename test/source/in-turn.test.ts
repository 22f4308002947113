/** Who is asked for a blob, and how often: the one rule. */
import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { askInTurn, type Supply } from '../../src/source/in-turn.ts';
import { failureOf, gather, testContext } from '../io/server.ts';

const cut = new SealiftError('NETWORK_FAILED', 'cut');
const lacks = new SealiftError('CONTENT_NOT_FOUND', 'not there');
/** What a consumer says of all bytes. */
const wrong = (): SealiftError => new SealiftError('CONTENT_DIGEST_MISMATCH', 'other bytes');

/** What happens each time that somebody is asked: his own failure, or undefined where his stream ends well. */
type Script = Readonly<Record<string, readonly (SealiftError | undefined)[]>>;

/**
 * Asks as the writer does: each stream gives ten bytes, the consumer refuses the whole `refusals` times.
 * @returns who was asked, and from which byte; who heard that he is left
 */
async function ask(
  script: Script,
  refusals = 0,
): Promise<{ asked: string[]; left: string[]; failure: unknown }> {
  const context = testContext();
  const asked: string[] = [];
  const left: string[] = [];
  const supplies = Object.entries(script).map(([name, turns]): Supply => {
    let turn = 0;
    return {
      name,
      open: async function* (offset) {
        asked.push(`${name} ${offset}`);
        const failure = turns[turn++];
        if (failure === lacks) throw failure;
        yield Buffer.alloc(10);
        if (failure !== undefined) throw failure;
      },
      failed: ({ message }) => left.push(`${name}: ${message}`),
    };
  });
  const next = askInTurn(supplies, { signal: context.signal });
  let [at, refused] = [0, 0];
  const fill = async (): Promise<void> => {
    for (let stream = next(); ; ) {
      try {
        for await (const chunk of stream(at)) at += chunk.length;
        if (refused++ < refusals) throw wrong();
        return;
      } catch (error) {
        if (error instanceof SealiftError && error.code === 'CONTENT_DIGEST_MISMATCH') at = 0;
        stream = next(error);
      }
    }
  };
  const failure = await fill().catch((error: unknown) => error);
  return { asked, left, failure };
}

describe('who is asked for a blob', () => {
  it('is left in the middle for the next one, which goes on behind the bytes that came', async () => {
    const { asked, left, failure } = await ask({ a: [cut], b: [lacks], origin: [undefined] });
    expect(asked).toEqual(['a 0', 'b 10', 'origin 10']);
    expect([left, failure]).toEqual([['a: cut', 'b: not there'], undefined]);
  });

  it('is asked again for the whole where its beginning was from another, and then it is known who is wrong', async () => {
    const { asked, left, failure } = await ask({ a: [cut], b: [], origin: [] }, 2);
    expect(asked).toEqual(['a 0', 'b 10', 'b 0', 'origin 0']);
    expect([left, failure]).toEqual([['a: cut', 'b: other bytes'], undefined]);
  });

  it('is asked a second time for wrong content only when it is the last; then it is named', async () => {
    const { asked, failure } = await ask({ a: [], origin: [] }, 3);
    expect(asked).toEqual(['a 0', 'origin 0', 'origin 0']);
    expect(failure).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH', message: 'origin: other bytes' });
  });

  it('is never asked again where it broke, and the last one has the last word', async () => {
    const { asked, failure } = await ask({ a: [cut], origin: [lacks] });
    expect(asked).toEqual(['a 0', 'origin 10']);
    expect(failure).toBe(lacks);
  });

  it('is no one for ever, also where a consumer cannot begin at the start', async () => {
    let asked = 0;
    const open: Supply['open'] = () => {
      asked += 1;
      return gatherable();
    };
    const next = askInTurn([{ open }], testContext());
    const fill = async (): Promise<void> => {
      for (let stream = next(); ; stream = next(wrong())) await gather(stream(5));
    };
    expect(await failureOf(fill())).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
    expect(asked).toBe(3);
  });

  it.each([
    ['a full disk', 'DISK_FULL'],
    ['a bug', 'INTERNAL'],
  ] as const)('is not changed for what the consumer fails with: %s', async (_, code) => {
    const failure = new SealiftError(code, 'ours');
    const next = askInTurn([{ open: () => gatherable() }, { open: () => gatherable() }], testContext());
    await gather(next()(0));
    expect(await failureOf((async () => next(failure))())).toBe(failure);
  });

  it('is not changed for the disk that a stream is poured to', async () => {
    const faulty = new SealiftError('FILE_UNREADABLE', '/out: EIO', { side: 'destination' });
    const { asked, left, failure } = await ask({ a: [faulty], origin: [undefined] });
    expect([asked, left]).toEqual([['a 0'], []]);
    expect(failure).toBe(faulty);
  });

  it('is left where it has no room of its own to unpack what it has', async () => {
    const full = new SealiftError('DISK_FULL', 'no space left to unpack a.tar.gz');
    const { asked, left, failure } = await ask({ a: [full], origin: [undefined] });
    expect(asked).toEqual(['a 0', 'origin 10']);
    expect([left, failure]).toEqual([['a: no space left to unpack a.tar.gz'], undefined]);
  });

  it('is nobody any more after the run was stopped', async () => {
    const context = testContext();
    const next = askInTurn([{ open: () => gatherable() }, { open: () => gatherable() }], context);
    context.stop();
    expect(await failureOf((async () => next(cut))())).toMatchObject({ code: 'ABORTED' });
  });
});

async function* gatherable(): AsyncGenerator<Uint8Array> {
  yield Buffer.from('x');
}
