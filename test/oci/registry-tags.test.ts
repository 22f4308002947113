import { describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import { failureOf, startServer } from '../io/server.ts';
import { client, pushImage, runRegistry } from './bench.ts';

describe('the list of tags', () => {
  it('[1.3-tags-pages] is gathered over all pages', async () => {
    const running = await runRegistry();
    const { registry } = client(running.host);
    const all = Array.from({ length: 7 }, (_, i) => `v${i}`);
    for (const tag of all) await pushImage(registry, { repository: 'app', tag });
    const paged = await startServer(async (request, response) => {
      const url = new URL(request.url ?? '', running.url);
      url.searchParams.set('n', '2');
      const answer = await fetch(url);
      const link = answer.headers.get('link');
      response.writeHead(200, link === null ? {} : { link }).end(await answer.text());
    });
    expect(await client(paged.host).registry.listTags('app')).toEqual(all);
    expect(paged.asked.length).toBeGreaterThan(3);
  });

  /** Pages `a`, `b`, `c`, each with one tag; `link` writes the Link header to the next. */
  async function pages(
    link: (next: string, host: string) => string,
  ): Promise<{ tags: string[]; paths: string[] }> {
    const server = await startServer((request, response) => {
      const at = new URL(request.url ?? '', 'http://x').searchParams.get('last') ?? '';
      const next = { '': 'a', a: 'b', b: 'c' }[at];
      const headers =
        next === undefined || next === 'c' ? {} : { link: link(next, request.headers.host ?? '') };
      response.writeHead(200, headers).end(JSON.stringify({ tags: next === undefined ? [] : [next] }));
    });
    const tags = await client(server.host).registry.listTags('team/app');
    return { tags, paths: [...new Set(server.asked.map((r) => r.url.split('?')[0] ?? ''))] };
  }

  const links: Record<string, (next: string, host: string) => string> = {
    'a path': (next) => `</v2/team/app/tags/list?last=${next}&n=1>; rel="next"`,
    'a whole address': (next, host) => `<http://${host}/v2/team/app/tags/list?last=${next}>; rel="next"`,
    'only a query': (next) => `<?last=${next}>;rel=next`,
    'an address that leads nowhere (nexus-public #1011)': (next) =>
      `</repository/docker/v2/team/app/tags/list?n=1000&last=${next}>; rel="next"`,
    'another host': (next) => `<http://elsewhere.example/v2/team/app/tags/list?last=${next}>; rel="next"`,
    'more links before it': (next) => `<?last=x>; rel="prev", <?last=${next}>; REL="next"`,
    'told by another parameter first': (next) => `<?last=${next}>; title="a"; rel="next"`,
    'beside a title that looks like a link': (next) =>
      `<?last=x>; title="<?last=y>; rel=\\"next\\", z"; rel=prev, <?last=${next}>; n=1 ; rel = next`,
    'one of more relations': (next) => `<?last=${next}>; rel="last next"; rel="prev"`,
  };
  for (const [name, link] of Object.entries(links)) {
    it(`[1.3-tags-pages, 1.3-tags-link] goes on where the link is ${name}`, async () => {
      expect(await pages(link)).toEqual({
        tags: ['a', 'b', 'c'],
        paths: ['/v2/team/app/tags/list'],
      });
    });
  }

  it('[1.3-tags-link] goes on behind a full page whose link was lost, and ends where nothing is new', async () => {
    const all = Array.from({ length: 2300 }, (_, i) => `v${String(i).padStart(4, '0')}`);
    const server = await startServer((request, response) => {
      const last = new URL(request.url ?? '', 'http://x').searchParams.get('last');
      const from = last === null ? 0 : all.indexOf(last) + 1;
      response.writeHead(200).end(JSON.stringify({ tags: all.slice(from, from + 1000) }));
    });
    expect(await client(server.host).registry.listTags('app')).toEqual(all);
    expect(server.asked.length).toBe(3);
    // One that gives the whole list whatever is asked for.
    const whole = await startServer((_, response) => {
      response.writeHead(200).end(JSON.stringify({ tags: all }));
    });
    expect(await client(whole.host).registry.listTags('app')).toEqual(all);
    expect(whole.asked.length).toBe(2);
  });

  it('goes on with a page token that only the registry understands', async () => {
    const server = await startServer((request, response) => {
      const token = new URL(request.url ?? '', 'http://x').searchParams.get('next_page');
      const headers = token === null ? { link: '</v2/app/tags/list?n=50&next_page=opaque>; rel="next"' } : {};
      response.writeHead(200, headers).end(JSON.stringify({ tags: [token === null ? 'one' : 'two'] }));
    });
    expect(await client(server.host).registry.listTags('app')).toEqual(['one', 'two']);
  });

  for (const link of [
    '',
    'nonsense',
    '<http://[broken?last=x>; rel="next"',
    '<>; rel="next"',
    '<?last=v1',
    '</x>; rel="next"',
    '<?last=v1>; rel="nextish"',
    '<?last=v1>; rel="prev"; rel="next"',
    '<?last=v1>; title="rel=next"',
    '<?last=v1>; title="a; rel=next',
    '<?last=v1>; next',
  ]) {
    it(`ends at a link that says nothing: ${link}`, async () => {
      const server = await startServer((_, response) =>
        response.writeHead(200, { link }).end('{"tags":["v1"]}'),
      );
      expect(await client(server.host).registry.listTags('app')).toEqual(['v1']);
      expect(server.asked).toHaveLength(1);
    });
  }

  it('[1.3-tags-endless] ends when pages bring nothing new, however they are linked', async () => {
    const server = await startServer((_, response, count) => {
      response.writeHead(200, { link: `<?last=${count}>; rel="next"` }).end('{"tags":["v1","v2"]}');
    });
    expect(await client(server.host).registry.listTags('app')).toEqual(['v1', 'v2']);
    expect(server.asked).toHaveLength(2);
  });

  it('ends at the limit', async () => {
    const page = 20_000;
    const server = await startServer((_, response, count) => {
      const tags = Array.from({ length: page }, (__, i) => `v${count}-${i}`);
      response.writeHead(200, { link: `<?last=${count}>; rel="next"` }).end(JSON.stringify({ tags }));
    });
    expect(await client(server.host).registry.listTags('app')).toHaveLength(LIMITS.tags);
    expect(server.asked.length).toBeLessThanOrEqual(LIMITS.tags / page + 1);
  });

  it('leaves out what cannot be a tag, and knows null for none', async () => {
    const tags = ['v1', 7, null, '../x', '', 'a b', 'x'.repeat(200), 'v2'];
    const server = await startServer((_, response, count) =>
      response.end(JSON.stringify({ tags: count === 1 ? tags : null })),
    );
    const { registry } = client(server.host);
    expect(await registry.listTags('app')).toEqual(['v1', 'v2']);
    expect(await registry.listTags('app')).toEqual([]);
  });

  for (const body of ['', '[]', '{}', '{"tags":"v1"}', '<html>']) {
    it(`that is none is a fault: ${body}`, async () => {
      const server = await startServer((_, response) => response.end(body));
      expect(await failureOf(client(server.host).registry.listTags('app'))).toMatchObject({
        code: 'REGISTRY_ANSWER_INVALID',
      });
    });
  }

  it('of a repository that is not there is a fault', async () => {
    const running = await runRegistry();
    expect(await failureOf(client(running.host).registry.listTags('app'))).toMatchObject({
      code: 'CONTENT_NOT_FOUND',
    });
  });
});
