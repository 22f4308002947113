import { describe, expect, it } from 'vitest';
import { heldBlob, PassingBlob } from '../../src/bundle/passing-blob.ts';
import { SealiftError } from '../../src/core/errors.ts';
import { LIMITS } from '../../src/core/limits.ts';
import { digestOf } from '../../src/io/verify.ts';
import type { ContentReader } from '../../src/oci/content.ts';
import type { OnConflict, Target } from '../../src/target/target.ts';
import { rawTarget } from '../../src/target/web/raw.ts';
import { failureOf, someBytes, type TestContext, testContext } from '../io/server.ts';
import {
  contentOf,
  fileItem,
  runAll,
  SmallNexus,
  type SmallNexusOptions,
  serve,
  statesOf,
} from './small-nexus.ts';

const A = Buffer.from('a tool\n');
const B = Buffer.from('another tool\n');
const LARGE = someBytes(300_000);
const LARGEST = Buffer.alloc(LIMITS.assetCompared + 1, 'x');

async function rawOf(
  nexus: SmallNexus,
  more: { readonly onConflict?: OnConflict; readonly context?: TestContext; readonly parallel?: number } = {},
): Promise<Target> {
  const { context = testContext(), onConflict = 'fail', ...rest } = more;
  return rawTarget({ server: await serve(nexus, context), repository: 'r', onConflict, ...rest });
}

function options(source = contentOf(A, B, LARGE), more = {}) {
  return { context: testContext(), source, ...more };
}

function digestsIn({ files }: SmallNexus): Record<string, string> {
  return Object.fromEntries([...files].map(([name, bytes]) => [name, digestOf(bytes)]));
}

const BOTH: readonly SmallNexusOptions[] = [{ version: '3.30' }, { version: '3.71' }];

describe.each(BOTH)('a raw repository of Nexus $version', (generation) => {
  it('gets each file under its name, small and large, and is written to only once', async () => {
    const nexus = new SmallNexus(generation);
    const target = await rawOf(nexus);
    const items = [fileItem('bin/tool', A), fileItem('etc/ä b+c%.txt', B), fileItem('big.bin', LARGE)];
    const first = await runAll(target, items, options());
    expect(statesOf(first)).toEqual({
      'bin/tool': 'written',
      'etc/%C3%A4%20b%2Bc%25.txt': 'written',
      'big.bin': 'written',
    });
    expect(digestsIn(nexus)).toEqual({
      'bin/tool': digestOf(A),
      'etc/ä b+c%.txt': digestOf(B),
      'big.bin': digestOf(LARGE),
    });
    expect(first.tally).toMatchObject({ blobsWritten: 3, bytesWritten: A.length + B.length + LARGE.length });
    const second = await runAll(target, items, options());
    expect(second.entries.map(({ state }) => state)).toEqual(['present', 'present', 'present']);
    expect(nexus.count('PUT')).toBe(3);
  });

  it('keeps something else under a name, shows both digests, and gets the other files', async () => {
    const nexus = new SmallNexus(generation);
    nexus.files.set('tool', B).set('big.bin', someBytes(300_000, 2));
    const items = [fileItem('tool', A), fileItem('big.bin', LARGE), fileItem('new', B)];
    const run = await runAll(await rawOf(nexus), items, options());
    expect(statesOf(run)).toEqual({ tool: 'failed', 'big.bin': 'failed', new: 'written' });
    const [small, big] = run.entries;
    expect(small?.fault).toMatchObject({
      code: 'TARGET_CONFLICT',
      details: { expected: digestOf(A), found: digestOf(B) },
    });
    expect(small?.fault?.message).toContain(`expected ${digestOf(A)}, found ${digestOf(B)}`);
    expect(big?.found).toMatch(/^sha(1:[0-9a-f]{40}|256:[0-9a-f]{64})$/);
    expect(nexus.files.get('tool')).toEqual(B);
  });

  it('leaves what is there where the policy says keep, and replaces it where it says so', async () => {
    const nexus = new SmallNexus({ ...generation, policy: 'ALLOW' });
    nexus.files.set('tool', B);
    const kept = await runAll(await rawOf(nexus, { onConflict: 'keep' }), [fileItem('tool', A)], options());
    expect(statesOf(kept)).toEqual({ tool: 'kept' });
    expect(kept.entries[0]?.notes.join()).toContain(digestOf(B));
    expect(nexus.files.get('tool')).toEqual(B);
    const replaced = await runAll(
      await rawOf(nexus, { onConflict: 'replace' }),
      [fileItem('tool', A)],
      options(),
    );
    expect(replaced.entries[0]).toMatchObject({ state: 'written', found: digestOf(B) });
    expect(nexus.files.get('tool')).toEqual(A);
  });

  it('says which setting forbids to replace, and loses nothing', async () => {
    const nexus = new SmallNexus({ ...generation, policy: 'ALLOW_ONCE' });
    nexus.files.set('tool', B);
    const run = await runAll(await rawOf(nexus, { onConflict: 'replace' }), [fileItem('tool', A)], options());
    expect(run.entries[0]).toMatchObject({
      state: 'failed',
      fault: { code: 'TARGET_CONFLICT', hint: expect.stringContaining('Allow redeploy') },
    });
    expect(nexus.files.get('tool')).toEqual(B);
  });

  it('is told what its read-only policy means', async () => {
    const run = await runAll(
      await rawOf(new SmallNexus({ ...generation, policy: 'DENY' })),
      [fileItem('tool', A)],
      options(),
    );
    expect(run.entries[0]?.fault?.hint).toContain('Read-only');
    expect(run.entries[0]?.fault?.message).toMatch(/read.only/);
  });

  it('has taken a file whose answer was lost', async () => {
    let lost = 0;
    const nexus: SmallNexus = new SmallNexus({
      ...generation,
      keeps: (bytes) => bytes,
      instead: (req, res, self) => {
        if (req.method !== 'PUT' || lost > 0) return false;
        lost += 1;
        req.resume().on('end', () => {
          self.files.set('tool', A);
          res.destroy();
        });
        return true;
      },
    });
    const run = await runAll(await rawOf(nexus), [fileItem('tool', A)], options());
    expect(statesOf(run)).toEqual({ tool: 'written' });
    expect(nexus.count('PUT')).toBe(2);
  });

  it('leaves as it is what somebody else brought meanwhile', async () => {
    const nexus: SmallNexus = new SmallNexus({
      ...generation,
      instead: (req, _, self) => {
        if (req.method === 'PUT') self.files.set('same', A).set('other', B);
        return false;
      },
    });
    const run = await runAll(
      await rawOf(nexus, { parallel: 1 }),
      [fileItem('same', A), fileItem('other', A)],
      options(),
    );
    expect(statesOf(run)).toEqual({ same: 'present', other: 'failed' });
    expect(run.entries[1]?.fault).toMatchObject({ code: 'TARGET_CONFLICT', details: { found: digestOf(B) } });
    expect(nexus.puts).toBe(0);
  });

  it('tells when it has other bytes than were sent', async () => {
    const nexus = new SmallNexus({ ...generation, keeps: (bytes) => bytes.fill(0, 0, 1) });
    const run = await runAll(await rawOf(nexus), [fileItem('tool', A), fileItem('big', LARGE)], options());
    expect(statesOf(run)).toEqual({ tool: 'failed', big: 'failed' });
    expect(run.entries[0]?.fault).toMatchObject({
      code: 'TARGET_FAILED',
      details: { expected: digestOf(A) },
    });
    expect(run.entries[1]?.fault?.message).toContain('is not what was sent');
  });

  it('never gets a whole file whose bytes prove wrong at their end', async () => {
    const nexus = new SmallNexus(generation);
    const wrong = new SealiftError('BUNDLE_CHECKSUM_MISMATCH', 'damaged', { side: 'source' });
    const source = {
      async *open() {
        yield LARGE;
        throw wrong;
      },
    };
    const run = await (await rawOf(nexus)).plan([fileItem('big', LARGE)], { context: testContext(), source });
    expect(await failureOf(run.commit())).toBe(wrong);
    expect([...nexus.files.keys()]).toEqual([]);
  });

  it('takes blobs as they pass, the same bytes under two names as well', async () => {
    const nexus = new SmallNexus(generation);
    const target = await rawOf(nexus);
    const items = [fileItem('a', A), fileItem('big', LARGE), fileItem('copy', LARGE)];
    const run = await target.plan(items, options(undefined, { passing: true }));
    const intake = await run.intake();
    expect(intake.takersOf(digestOf(B))).toEqual([]);
    for (const take of intake.takersOf(digestOf(A))) await take(heldBlob(A));
    let at = 0;
    const next = async (): Promise<Buffer | undefined> => {
      const piece = LARGE.subarray(at, at + 65_536);
      at += piece.length;
      return piece.length === 0 ? undefined : Buffer.from(piece);
    };
    const blob = new PassingBlob({ mediaType: '', digest: digestOf(LARGE), size: LARGE.length }, { next });
    const view = blob.view();
    // Its beginning has passed when the second name is written.
    const once = { open: view.open.bind(view), has: () => at < LARGE.length };
    for (const take of intake.takersOf(digestOf(LARGE))) await take(once);
    view.close();
    await run.commit();
    await run.close();
    expect(statesOf(run)).toEqual({ a: 'written', big: 'written', copy: 'written' });
    expect(digestsIn(nexus).copy).toBe(digestOf(LARGE));
  });

  it('loses what came from a bad bundle again, but nothing that was there before', async () => {
    const nexus = new SmallNexus({ ...generation, policy: 'ALLOW' });
    nexus.files.set('old', B).set('there', A);
    const context = testContext();
    const target = await rawOf(nexus, { onConflict: 'replace' });
    const items = [fileItem('new', A), fileItem('old', A), fileItem('there', A)];
    const run = await target.plan(items, { ...options(undefined, { passing: true }), context });
    for (const take of (await run.intake()).takersOf(digestOf(A))) await take(heldBlob(A));
    expect([...nexus.files.keys()].sort()).toEqual(['new', 'old', 'there']);
    await run.close({ isBad: true });
    expect([...nexus.files.keys()].sort()).toEqual(['old', 'there']);
    const [warning] = context.events.flatMap((e) => (e.type === 'warning' ? [e.fault] : []));
    expect(warning?.message).toContain('/repository/r/old');
    expect(warning?.message).not.toContain('/repository/r/new');
  });

  it('goes on where a stopped load ended', async () => {
    const nexus = new SmallNexus(generation);
    const items = Array.from({ length: 30 }, (_, i) => fileItem(`f${i}`, A));
    const context = testContext();
    const stopping = await rawOf(nexus, { context, parallel: 2 });
    const source = contentOf(A);
    const run = await stopping.plan(items, { context, source });
    const open: ContentReader['open'] = source.open.bind(source);
    source.open = (descriptor, how) => {
      if (nexus.puts >= 10) context.stop();
      return open(descriptor, how);
    };
    expect(await failureOf(run.commit())).toMatchObject({ code: 'ABORTED' });
    await run.close();
    const before = nexus.puts;
    expect(before).toBeGreaterThanOrEqual(10);
    expect(before).toBeLessThan(30);
    const again = await runAll(await rawOf(nexus), items, options());
    expect(again.entries.filter(({ state }) => state === 'present').length).toBe(before);
    expect(again.entries.filter(({ state }) => state === 'written').length).toBe(30 - before);
  });
});

describe('a raw repository', () => {
  it.each([
    ['3.71', 0],
    ['3.30', 1],
  ] as const)(
    'is asked for the checksum of a large file, which it reads for nobody (%s)',
    async (version, opened) => {
      const nexus = new SmallNexus({ version });
      nexus.files.set('copy', LARGEST).set('large', LARGEST);
      const source = contentOf(LARGEST);
      const run = await runAll(await rawOf(nexus), [fileItem('large', LARGEST)], options(source));
      expect(statesOf(run)).toEqual({ large: 'present' });
      expect([source.opened, nexus.count('GET'), nexus.count('PUT')]).toEqual([opened, 0, 0]);
    },
  );

  it('is believed for what is there now, not for what its search index remembers', async () => {
    const nexus: SmallNexus = new SmallNexus({
      instead: (req, res) => {
        if (req.url?.startsWith('/service/rest/v1/search') !== true) return false;
        const checksum = { sha256: digestOf(LARGEST).slice(7) };
        const item = { id: 'large', path: '/large', repository: 'r', format: 'raw', checksum };
        res.end(JSON.stringify({ items: [item], continuationToken: null }));
        return true;
      },
    });
    const other = Buffer.from(LARGEST).fill(1, 0, 1);
    nexus.files.set('large', other);
    const run = await runAll(await rawOf(nexus), [fileItem('large', LARGEST)], options(contentOf(LARGEST)));
    expect(run.entries[0]?.fault).toMatchObject({
      code: 'TARGET_CONFLICT',
      details: { found: digestOf(other) },
    });
  });

  it.each([
    ['an error', 'ERROR: IndexNotFoundException[no such index]'],
    ['a hostile answer', JSON.stringify({ items: Array(20_000).fill({}), continuationToken: 'x' })],
    [
      'files of others',
      JSON.stringify({
        items: [{ id: 'x', path: '/other', repository: 'r', format: 'raw' }],
        continuationToken: 'x',
      }),
    ],
  ])('is read where its search gives %s and it has no ETag', async (_, answer) => {
    const nexus = new SmallNexus({
      version: '3.30',
      instead: (req, res) => {
        if (req.url?.startsWith('/service/rest/v1/search') !== true) return false;
        res.end(answer);
        return true;
      },
    });
    nexus.files.set('large', LARGEST);
    const run = await runAll(await rawOf(nexus), [fileItem('large', LARGEST)], options(contentOf(LARGEST)));
    expect(statesOf(run)).toEqual({ large: 'present' });
    expect(nexus.count('GET')).toBe(1);
  });

  it('does not read to its end what is far longer than it should be', async () => {
    let sent = 0;
    const nexus = new SmallNexus({
      instead: (req, res) => {
        if (req.url !== '/repository/r/tool' || req.method !== 'GET') return false;
        const more = (): void => {
          while (!res.destroyed && res.write(LARGE)) sent += LARGE.length;
          res.once('drain', more);
        };
        res.writeHead(200);
        more();
        return true;
      },
    });
    const run = await (await rawOf(nexus)).plan([fileItem('tool', A)], options());
    expect(run.entries[0]).toMatchObject({ state: 'failed', fault: { code: 'TARGET_CONFLICT' } });
    expect(sent).toBeLessThan(4 * LIMITS.assetOther);
  });

  it.each(['../up', 'a/../b', 'a//b', '/a', 'a/', '.', 'a\\b', 'a\nb', ''])(
    'gets no file named %j',
    async (name) => {
      const nexus = new SmallNexus();
      const run = await runAll(await rawOf(nexus), [fileItem(name, A), fileItem('good', B)], options());
      expect(run.entries.map(({ state }) => state)).toEqual(['failed', 'written']);
      expect([...nexus.files.keys()]).toEqual(['good']);
    },
  );

  it('is named where there is none', async () => {
    const server = await serve(new SmallNexus(), testContext());
    const target = rawTarget({ server, repository: 'nosuch', onConflict: 'fail' });
    const error = await failureOf(target.plan([fileItem('a', A)], options()));
    expect(error).toMatchObject({ code: 'TARGET_FAILED', message: expect.stringContaining('nosuch') });
  });

  it('is no web page', async () => {
    const nexus = new SmallNexus({
      instead: (_, res) => {
        res
          .writeHead(200, { 'content-type': 'text/html' })
          .end('<!DOCTYPE html><html><body>Hello</body></html>');
        return true;
      },
    });
    const error = await failureOf((await rawOf(nexus)).plan([fileItem('a', A)], options()));
    expect(error).toMatchObject({ code: 'TARGET_UNREACHABLE' });
  });

  it('is asked with a hint for what its settings refuse', async () => {
    const nexus = new SmallNexus({
      instead: (req, res) => {
        if (req.method !== 'PUT') return false;
        req.resume();
        res.writeHead(400, 'Content type could not be determined: /tool').end();
        return true;
      },
    });
    const run = await runAll(await rawOf(nexus), [fileItem('tool', A)], options());
    expect(run.entries[0]?.fault?.hint).toContain('Strict Content Type Validation');
  });

  it.each([
    [401, 'AUTH_REQUIRED'],
    [507, 'TARGET_FULL'],
  ])('is left as a whole after HTTP %d', async (status, code) => {
    const nexus = new SmallNexus({
      instead: (req, res) => {
        if (req.method !== 'PUT') return false;
        req.resume();
        res.writeHead(status).end();
        return true;
      },
    });
    const items = Array.from({ length: 200 }, (_, i) => fileItem(`f${i}`, A));
    const run = await (await rawOf(nexus, { parallel: 4 })).plan(items, options());
    expect(await failureOf(run.commit())).toMatchObject({ code });
    expect(nexus.count('PUT')).toBeLessThanOrEqual(8);
  });

  it('is left after many refusals in a row that are about no single file', async () => {
    const nexus = new SmallNexus({
      instead: (req, res) => {
        if (req.method !== 'PUT') return false;
        req.resume();
        res.writeHead(413).end();
        return true;
      },
    });
    const items = Array.from({ length: 200 }, (_, i) => fileItem(`f${i}`, A));
    const run = await (await rawOf(nexus)).plan(items, options());
    expect(await failureOf(run.commit())).toMatchObject({ details: { status: 413 } });
    expect(nexus.count('PUT')).toBeLessThan(60);
  });

  it('tells of what was sent before it was left that it is there', async () => {
    const nexus = new SmallNexus({
      instead: (req, res, self) => {
        if (req.method !== 'PUT' || self.puts < 3) return false;
        req.resume();
        res.writeHead(401).end();
        return true;
      },
    });
    const items = Array.from({ length: 5 }, (_, i) => fileItem(`f${i}`, A));
    const run = await (await rawOf(nexus, { parallel: 1 })).plan(items, options());
    await failureOf(run.commit());
    await run.close();
    expect(run.entries.filter(({ state }) => state === 'written').length).toBe(3);
  });

  it.each([
    ['3.71', 0],
    ['3.30', 30],
  ] as const)(
    'is not asked for each of many files where it is empty, and guards itself (%s)',
    async (version, asked) => {
      const nexus = new SmallNexus({ version, policy: 'ALLOW' });
      const items = Array.from({ length: 30 }, (_, i) => fileItem(`f${i}`, A));
      const run = await (await rawOf(nexus)).plan(items, options());
      expect([nexus.count('GET') + nexus.count('HEAD'), run.entries[7]?.writeBytes]).toEqual([
        asked,
        A.length,
      ]);
      // Somebody else is faster.
      nexus.files.set('f7', B);
      if (version === '3.30') return;
      await run.commit();
      expect(run.entries.filter(({ state }) => state === 'written').length).toBe(29);
      expect(run.entries[7]?.fault).toMatchObject({
        code: 'TARGET_CONFLICT',
        details: { found: digestOf(B) },
      });
      expect(nexus.files.get('f7')).toEqual(B);
    },
  );

  it('is not asked for what a short list does not have', async () => {
    const nexus = new SmallNexus();
    nexus.files.set('f3', A).set('f4', B);
    const items = Array.from({ length: 30 }, (_, i) => fileItem(`f${i}`, A));
    const run = await runAll(await rawOf(nexus), items, options());
    expect(run.entries.filter(({ state }) => state === 'written').length).toBe(28);
    expect([run.entries[3]?.state, run.entries[4]?.state]).toEqual(['present', 'failed']);
  });

  it('has no more writers than are allowed', async () => {
    const nexus = new SmallNexus();
    const items = Array.from({ length: 60 }, (_, i) => fileItem(`f${i}`, A));
    await runAll(await rawOf(nexus, { parallel: 500 }), items, options());
    expect(nexus.most).toBeLessThanOrEqual(LIMITS.writers);
    expect(nexus.puts).toBe(60);
  });

  it('says once that it keeps no permissions', async () => {
    const context = testContext();
    const items = [fileItem('a', A, 0o755), fileItem('b', B, 0o755), fileItem('c', LARGE)];
    await (await rawOf(new SmallNexus())).plan(items, { ...options(), context });
    const notes = context.events.flatMap((e) => (e.type === 'note' ? [e.message] : []));
    expect(notes).toEqual([expect.stringContaining('2 files')]);
  });

  it('needs of what is not at hand only what it lacks', async () => {
    const nexus = new SmallNexus();
    nexus.files.set('there', A).set('big', LARGE);
    const items = [fileItem('there', A), fileItem('big', LARGE), fileItem('new', B)];
    const absent = { isAbsent: () => true };
    const run = await (await rawOf(nexus)).plan(items, options(contentOf(), absent));
    expect(await run.needs(() => true)).toEqual([digestOf(B)]);
  });
});
