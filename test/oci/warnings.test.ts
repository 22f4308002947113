import { describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import { warningTexts } from '../../src/oci/warnings.ts';
import { failureOf, startServer } from '../io/server.ts';
import { client } from './bench.ts';

/** The warnings that listing tags `times` times gives, from a server with this header in its n-th answer. */
async function warned(header: (count: number) => string | string[], times = 1): Promise<unknown[]> {
  const server = await startServer((_, response, count) => {
    response.setHeader('warning', header(count));
    response.end('{"tags":["v1"]}');
  });
  const { registry, context } = client(server.host);
  for (let i = 0; i < times; i++) expect(await registry.listTags('app')).toEqual(['v1']);
  return context.events.map((e) => (e.type === 'warning' ? e.fault.message.replace(server.host, 'HOST') : e));
}

describe('[1.3-warning] the Warning header of a registry', () => {
  it('is shown once, however often it comes', async () => {
    expect(await warned(() => '299 - "this tag ends in May"', 3)).toEqual(['HOST: this tag ends in May']);
  });

  it('may hold several, in one header or more, and new ones later', async () => {
    const header = (count: number): string[] => [
      '299 - "one, with \\"quotes\\"", 299 registry.example "two" "Sat, 01 Jan 2026 00:00:00 GMT"',
      `299 - "three ${count}"`,
    ];
    expect(await warned(header, 2)).toEqual([
      'HOST: one, with "quotes"',
      'HOST: two',
      'HOST: three 1',
      'HOST: three 2',
    ]);
  });

  it('is shown with a refusal too', async () => {
    const server = await startServer((_, response) =>
      response.writeHead(404, { warning: '299 - "moved to elsewhere"' }).end(),
    );
    const { registry, context } = client(server.host);
    expect(await failureOf(registry.getManifest('app', 'v1'))).toMatchObject({ code: 'CONTENT_NOT_FOUND' });
    expect(context.events).toMatchObject([
      { type: 'warning', fault: { code: 'REGISTRY_WARNING', message: `${server.host}: moved to elsewhere` } },
    ]);
  });

  it('is not taken from where a redirect leads', async () => {
    const other = await startServer((_, response) =>
      response.writeHead(200, { warning: '299 - "buy now"' }).end('{"tags":[]}'),
    );
    const server = await startServer((_, response) => response.writeHead(307, { location: other.url }).end());
    const { registry, context } = client(server.host);
    await registry.listTags('app');
    expect([other.asked.length, context.events]).toEqual([1, []]);
  });

  it('never floods the screen', async () => {
    const many = await warned((count) => `299 - "warning ${count} ${'x'.repeat(1000)}"`, 50);
    expect(many).toHaveLength(LIMITS.registryWarnings);
    for (const text of many) expect(String(text).length).toBeLessThan(250);
  });

  it('says nothing in any other form', () => {
    for (const header of [
      undefined,
      '',
      '299',
      '299 - text',
      '110 - "stale"',
      '299 - "',
      '299 - ""',
      '1299 - "x"',
    ])
      expect(warningTexts(header)).toEqual([]);
  });

  it('is read in no time, whatever is sent', () => {
    expect(warningTexts(`299 - "${'\\'.repeat(50_000)}`)).toEqual([]);
    expect(warningTexts('299 - '.repeat(20_000))).toEqual([]);
    expect(warningTexts(`${' '.repeat(50_000)}299 - "x"`)).toEqual(['x']);
  });
});
