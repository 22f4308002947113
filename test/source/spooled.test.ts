/** A blob that is verified before its first byte is given, whoever gives it. */
import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { digestOf } from '../../src/io/verify.ts';
import { askInTurn, type Supply } from '../../src/source/in-turn.ts';
import { spooled } from '../../src/source/spooled.ts';
import { failureOf, gather, someBytes, testContext } from '../io/server.ts';

const bytes = someBytes(5000);
const descriptor = { mediaType: 'x', digest: digestOf(bytes), size: bytes.length };
/** Of the right length, and wrong only in its last byte. */
const wrong = Buffer.concat([bytes.subarray(0, -1), Buffer.from([(bytes.at(-1) ?? 0) ^ 1])]);

type Sends = (offset: number) => AsyncIterable<Uint8Array>;

const all = (of: Buffer): Sends =>
  async function* (offset) {
    yield of.subarray(offset, offset + 1000);
    yield of.subarray(offset + 1000);
  };

const cut: Sends = async function* (offset) {
  yield bytes.subarray(offset, offset + 1000);
  throw new SealiftError('NETWORK_FAILED', 'cut');
};

/** Reads from these, one after the other: what came, and who was asked from which byte. */
function reading(...sends: readonly Sends[]): { bytes: Promise<Buffer>; asked: string[] } {
  const asked: string[] = [];
  const supplies = sends.map(
    (open, i): Supply => ({
      name: `${i}`,
      open: (offset) => {
        asked.push(`${i} from ${offset}`);
        return open(offset);
      },
    }),
  );
  const context = testContext();
  const next = askInTurn(supplies, context);
  return { bytes: gather(spooled(next, { descriptor, what: 'it', signal: context.signal })), asked };
}

describe('a spooled blob', () => {
  it('goes on behind what came where one breaks', async () => {
    const { bytes: read, asked } = reading(cut, all(bytes));
    expect((await read).equals(bytes)).toBe(true);
    expect(asked).toEqual(['0 from 0', '1 from 1000']);
  });

  it('is asked for from the start where one is wrong at its end', async () => {
    const { bytes: read, asked } = reading(all(wrong), all(bytes));
    expect((await read).equals(bytes)).toBe(true);
    expect(asked).toEqual(['0 from 0', '1 from 0']);
  });

  it('is asked for from the start where a beginning was wrong that another ended', async () => {
    const beginning: Sends = async function* () {
      yield Buffer.alloc(1000);
      throw new SealiftError('NETWORK_FAILED', 'cut');
    };
    const { bytes: read, asked } = reading(beginning, all(bytes));
    expect((await read).equals(bytes)).toBe(true);
    expect(asked).toEqual(['0 from 0', '1 from 1000', '1 from 0']);
  });

  it('gives nothing at all where nobody has the right bytes', async () => {
    const given: Uint8Array[] = [];
    const context = testContext();
    const next = askInTurn([{ name: 'a', open: all(wrong) }], context);
    const read = async (): Promise<void> => {
      const blob = spooled(next, { descriptor, what: 'it', signal: context.signal });
      for await (const chunk of blob) given.push(chunk);
    };
    expect(await failureOf(read())).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
    expect(given).toEqual([]);
  });
});
