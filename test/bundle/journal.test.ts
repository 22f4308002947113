import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openJournal, readJournal } from '../../src/bundle/journal.ts';
import { digestOf } from '../../src/io/verify.ts';

let dir: string;
let path: string;
const [a, b] = [digestOf('a'), digestOf('b')];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'sealift-journal-'));
  path = join(dir, 'x.journal');
});

afterEach(() => rm(dir, { recursive: true, force: true }));

describe('the journal of a pack', () => {
  it('says what was noted, also after it was opened a second time', async () => {
    const first = await openJournal(path, { plan: 'p', kind: 'tar', fresh: true });
    await first.part(a, { offset: 512, bytes: 100 });
    await first.done(b, { offset: 2048, size: 7 });
    await first.close();
    const second = await openJournal(path, { plan: 'p', kind: 'tar', fresh: false });
    await second.part(a, { offset: 512, bytes: 300 });
    await second.close();
    expect(await readJournal(path)).toEqual({
      plan: 'p',
      kind: 'tar',
      done: new Map([[b, { offset: 2048, size: 7 }]]),
      parts: new Map([[a, { offset: 512, bytes: 300 }]]),
    });
  });

  it('begins anew when it is fresh', async () => {
    await writeFile(path, `{"plan":"old","kind":"tar"}\n{"d":"${a}","o":0,"s":1}\n`);
    await (await openJournal(path, { plan: 'new', kind: 'folder', fresh: true })).close();
    expect(await readFile(path, 'utf8')).toBe('{"plan":"new","kind":"folder"}\n');
  });

  it('that is absent, empty or somebody else’s is none', async () => {
    expect(await readJournal(path)).toBeUndefined();
    for (const text of [
      '',
      '\n',
      'hello\n',
      '{"plan":1,"kind":"tar"}\n',
      '{"plan":"p","kind":"zip"}\n',
      '[]',
      'null',
    ]) {
      await writeFile(path, text);
      expect(await readJournal(path)).toBeUndefined();
    }
  });

  it('skips lines that are torn, wrong or from somewhere else, and reads those behind them', async () => {
    const journal = await openJournal(path, { plan: 'p', kind: 'tar', fresh: true });
    await journal.done(a, { offset: 0, size: 5 });
    await journal.close();
    for (const line of [
      `{"d":"${b}","o":-1,"s":5}`,
      `{"d":"${b}","o":0,"s":-5}`,
      `{"d":"${b}","o":0.5,"s":5}`,
      `{"d":"${b}","o":0,"s":1e300}`,
      `{"d":"${b}","o":0,"p":"9"}`,
      '{"d":"sha256:12","o":0,"s":5}',
      '{"__proto__":{"d":1}}',
      `{"d":"${b}","o":0,"s":5`,
    ]) {
      await appendFile(path, `${line}\n`);
    }
    await appendFile(path, `{"d":"${b}","o":4`); // A kill tore it here.
    const again = await openJournal(path, { plan: 'p', kind: 'tar', fresh: false });
    await again.part(b, { offset: 8, bytes: 2 });
    await again.close();
    const state = await readJournal(path);
    expect(state?.done).toEqual(new Map([[a, { offset: 0, size: 5 }]]));
    expect(state?.parts).toEqual(new Map([[b, { offset: 8, bytes: 2 }]]));
  });

  it('survives any bytes behind its first line', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (garbage) => {
        const head = '{"plan":"p","kind":"tar"}\n';
        await writeFile(
          path,
          Buffer.concat([Buffer.from(head), garbage, Buffer.from(`\n{"d":"${a}","o":1,"s":2}\n`)]),
        );
        const state = await readJournal(path);
        expect(state?.done.get(a)).toEqual({ offset: 1, size: 2 });
      }),
      { numRuns: 100 },
    );
  });

  it('fails with our error where it cannot be written', async () => {
    await expect(
      openJournal(join(dir, 'absent', 'x'), { plan: 'p', kind: 'tar', fresh: true }),
    ).rejects.toMatchObject({
      code: 'FILE_UNREADABLE',
    });
  });
});
