import type { ServerResponse } from 'node:http';
import { describe, expect, it } from 'vitest';
import { heldBlob } from '../../src/bundle/passing-blob.ts';
import type { Digest } from '../../src/core/digest.ts';
import { digestOf } from '../../src/io/verify.ts';
import type { Target } from '../../src/target/target.ts';
import { type HelmTargetOptions, helmTarget } from '../../src/target/web/helm.ts';
import { failureOf, type TestContext, testContext } from '../io/server.ts';
import {
  CHART_BYTES,
  chartItem,
  contentOf,
  runAll,
  SmallNexus,
  type SmallNexusOptions,
  serve,
  statesOf,
} from './small-nexus.ts';

const ARCHIVE = CHART_BYTES;
const OTHER = Buffer.from('other bytes of web-1.0.0.tgz');
const PROV = Buffer.from('-----BEGIN PGP SIGNED MESSAGE-----\n');

/** Lists the charts that are there, from the `after`-th question on. */
function indexOf(
  nexus: SmallNexus,
  res: ServerResponse,
  listed: { readonly digest?: (own: Digest) => string | undefined } = {},
): void {
  const { digest = (own: Digest): string => own.slice(7) } = listed;
  const entries = [...nexus.files].flatMap(([name, bytes]) => {
    const version = /^web-(.*)\.tgz$/.exec(name)?.[1];
    if (version === undefined) return [];
    const hex = digest(digestOf(bytes));
    const line = hex === undefined ? '' : `    digest: ${hex}\n`;
    return [`  - name: web\n    version: ${version}\n${line}    urls:\n    - ${name}\n`];
  });
  const list = entries.length === 0 ? 'entries: {}\n' : `entries:\n  web:\n${entries.join('')}`;
  res.end(`apiVersion: v1\n${list}generated: 2026-11-22T08:13:45.631Z\n`);
}

/** A server with an index: `index` answers the n-th question for it. */
function helmNexus(
  more: SmallNexusOptions & {
    readonly index?: (res: ServerResponse, asked: number, nexus: SmallNexus) => void;
  } = {},
): SmallNexus & { asks: () => number } {
  let asked = 0;
  const { index = (res, _, self) => indexOf(self, res), ...options } = more;
  const nexus = new SmallNexus({
    ...options,
    instead: (req, res, self) => {
      if (req.url !== '/repository/r/index.yaml') return options.instead?.(req, res, self) ?? false;
      asked += 1;
      index(res, asked, self);
      return true;
    },
  });
  return Object.assign(nexus, { asks: () => asked });
}

async function helmOf(
  nexus: SmallNexus,
  more: Partial<HelmTargetOptions> & { readonly context?: TestContext } = {},
): Promise<Target> {
  const { context = testContext(), ...rest } = more;
  const server = await serve(nexus, context);
  return helmTarget({ server, repository: 'r', onConflict: 'fail', ...rest });
}

function options(more = {}) {
  return { context: testContext(), source: contentOf(ARCHIVE, OTHER, PROV), ...more };
}

const BOTH: readonly SmallNexusOptions[] = [{ version: '3.30' }, { version: '3.71' }];

describe.each(BOTH)('a helm repository of Nexus $version', (generation) => {
  it('gets archive and provenance byte for byte, under exactly the names that its index gives', async () => {
    const nexus = helmNexus(generation);
    const items = [chartItem('1.0.0', { prov: PROV }), chartItem('1.0.1+b.2')];
    const target = await helmOf(nexus);
    const run = await runAll(target, items, options());
    expect(run.entries.map(({ state }) => state)).toEqual(['written', 'written', 'written']);
    expect(nexus.files).toEqual(
      new Map([
        ['web-1.0.0.tgz', ARCHIVE],
        ['web-1.0.0.tgz.prov', PROV],
        ['web-1.0.1+b.2.tgz', ARCHIVE],
      ]),
    );
    expect(nexus.asked).toContain('PUT /repository/r/web-1.0.1%2Bb.2.tgz');
    const again = await runAll(target, items, options());
    expect(again.entries.map(({ state }) => state)).toEqual(['present', 'present', 'present']);
    expect(nexus.count('PUT')).toBe(3);
  });

  it('keeps another chart of the same version, shows both digests, and gets no provenance that is not its own', async () => {
    const nexus = helmNexus(generation);
    nexus.files.set('web-1.0.0.tgz', OTHER);
    const items = [chartItem('1.0.0', { prov: PROV }), chartItem('2.0.0')];
    const run = await runAll(await helmOf(nexus), items, options());
    expect(statesOf(run)).toEqual({
      'web-1.0.0.tgz': 'failed',
      'web-1.0.0.tgz.prov': 'failed',
      'web-2.0.0.tgz': 'written',
    });
    const [conflict] = run.entries;
    expect(conflict?.fault?.message).toContain(`expected ${digestOf(ARCHIVE)}, found ${digestOf(OTHER)}`);
    expect(nexus.files.get('web-1.0.0.tgz')).toEqual(OTHER);
    const kept = await runAll(await helmOf(nexus, { onConflict: 'keep' }), items, options());
    expect(statesOf(kept)).toEqual({
      'web-1.0.0.tgz': 'kept',
      'web-1.0.0.tgz.prov': 'kept',
      'web-2.0.0.tgz': 'present',
    });
  });

  it('replaces a chart with its provenance where that is asked for', async () => {
    const nexus = helmNexus({ ...generation, policy: 'ALLOW' });
    nexus.files.set('web-1.0.0.tgz', OTHER);
    const run = await runAll(
      await helmOf(nexus, { onConflict: 'replace' }),
      [chartItem('1.0.0', { prov: PROV })],
      options(),
    );
    expect(run.entries.map(({ state, found }) => [state, found])).toEqual([
      ['written', digestOf(OTHER)],
      ['written', undefined],
    ]);
    expect(nexus.files.get('web-1.0.0.tgz')).toEqual(ARCHIVE);
  });

  it('writes a provenance behind its chart, however they pass', async () => {
    const nexus = helmNexus(generation);
    const run = await (await helmOf(nexus)).plan(
      [chartItem('1.0.0', { prov: PROV })],
      options({ passing: true }),
    );
    const intake = await run.intake();
    for (const bytes of [PROV, ARCHIVE]) {
      for (const take of intake.takersOf(digestOf(bytes))) await take(heldBlob(bytes));
    }
    expect([...nexus.files.keys()]).toEqual(['web-1.0.0.tgz']);
    await run.commit();
    expect([...nexus.files.keys()]).toEqual(['web-1.0.0.tgz', 'web-1.0.0.tgz.prov']);
    expect(run.entries.map(({ state }) => state)).toEqual(['written', 'written']);
  });
});

describe('the index of a helm repository', () => {
  it('is waited for until it lists name, version and digest', async () => {
    const nexus = helmNexus({
      index: (res, asked, self) => {
        if (asked === 1) res.writeHead(404).end();
        else if (asked === 2) indexOf(new SmallNexus(), res);
        else indexOf(self, res, asked === 3 ? { digest: () => digestOf(OTHER).slice(7) } : {});
      },
    });
    const run = await runAll(await helmOf(nexus), [chartItem('1.0.0')], options());
    expect(statesOf(run)).toEqual({ 'web-1.0.0.tgz': 'written' });
    expect(nexus.asks()).toBe(4);
  });

  it('need not state digests', async () => {
    const nexus = helmNexus({ index: (res, _, self) => indexOf(self, res, { digest: () => undefined }) });
    const run = await runAll(await helmOf(nexus), [chartItem('1.0.0')], options());
    expect(statesOf(run)).toEqual({ 'web-1.0.0.tgz': 'written' });
  });

  it.each([
    ['nothing', 'does not list it', (res: ServerResponse) => indexOf(new SmallNexus(), res)],
    [
      'another digest',
      `lists ${digestOf(OTHER)}, expected ${digestOf(ARCHIVE)}`,
      (res: ServerResponse, _: number, self: SmallNexus) =>
        indexOf(self, res, { digest: () => digestOf(OTHER).slice(7) }),
    ],
  ])('that lists %s to the end fails the chart, with the task that makes it anew', async (_, said, index) => {
    const target = await helmOf(helmNexus({ index }), { listedMs: 0 });
    const run = await runAll(target, [chartItem('1.0.0')], options());
    expect(run.entries[0]).toMatchObject({
      state: 'failed',
      fault: {
        code: 'TARGET_FAILED',
        message: expect.stringContaining(said),
        hint: expect.stringContaining('Rebuild Helm metadata'),
      },
    });
  });

  it('that is no index fails the charts at once', async () => {
    const nexus = helmNexus({ index: (res) => res.end('<html><body>Hello</body></html>') });
    const run = await runAll(await helmOf(nexus), [chartItem('1.0.0'), chartItem('2.0.0')], options());
    expect(run.entries.map(({ state, fault }) => [state, fault?.code])).toEqual([
      ['failed', 'CHART_INDEX_INVALID'],
      ['failed', 'CHART_INDEX_INVALID'],
    ]);
    expect(nexus.asks()).toBe(1);
  });

  it('that never ends is not read to its end', async () => {
    const line = `# ${'x'.repeat(1_000_000)}\n`;
    const nexus = helmNexus({
      index: (res) => {
        const more = (): void => {
          while (!res.destroyed && res.write(line));
          res.once('drain', more);
        };
        more();
      },
    });
    const run = await runAll(await helmOf(nexus), [chartItem('1.0.0')], options());
    expect(run.entries[0]?.fault?.code).toBe('CONTENT_TOO_LARGE');
  });

  it('is not waited for when the load is stopped', async () => {
    const context = testContext();
    const nexus = helmNexus({
      index: (res) => {
        indexOf(new SmallNexus(), res);
        context.stop();
      },
    });
    const run = await (await helmOf(nexus)).plan([chartItem('1.0.0')], options({ context }));
    expect(await failureOf(run.commit())).toMatchObject({ code: 'ABORTED' });
  });
});
