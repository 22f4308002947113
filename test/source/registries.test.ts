import { createHash } from 'node:crypto';
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { Registries, type RegistriesConfig } from '../../src/source/registries.ts';
import { selfSigned } from '../io/certificate.ts';
import { type Answer, failureOf, gather, startServer, testClient, testContext } from '../io/server.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

function registries(config: RegistriesConfig): Registries {
  const context = testContext();
  return new Registries({ http: testClient(context), context, config });
}

/** Has the tag `1` and the tag list `tags` of one repository, and nothing else. */
function holding(repository: string, tags: readonly string[] = ['1']): Answer {
  return (request, response) => {
    if (request.url === `/v2/${repository}/manifests/1`) {
      response.writeHead(200, { 'docker-content-digest': DIGEST }).end();
    } else if (request.url?.startsWith(`/v2/${repository}/tags/list`) === true) {
      response.end(JSON.stringify({ name: repository, tags }));
    } else response.writeHead(404).end();
  };
}

const nothing: Answer = (_, response) => response.writeHead(404).end();

describe('a mirror', () => {
  it.each([
    ['http', '/cache/x'],
    ['https', '/cache/x'],
    ['http', ''],
  ] as const)('is asked at %s://host%s', async (scheme, prefix) => {
    const origin = await startServer(nothing);
    const answer = holding(`${prefix}/app`.slice(1));
    const mirror = await startServer(answer, scheme === 'https' ? selfSigned() : undefined);
    const asked = registries({
      [origin.host]: { mirrors: [`${scheme}://${mirror.host}${prefix}`] },
      [mirror.host]: { insecure: true },
    });
    expect(await asked.resolve({ host: origin.host, repository: 'app' }, '1')).toBe(DIGEST);
    expect(origin.asked).toEqual([]);
  });

  it('that lacks a tag does not hide the original; only that says that there is none', async () => {
    const origin = await startServer(holding('app'));
    const mirror = await startServer(nothing);
    const asked = registries({ [origin.host]: { mirrors: [mirror.host] } });
    expect(await asked.resolve({ host: origin.host, repository: 'app' }, '1')).toBe(DIGEST);
    expect(mirror.asked).not.toEqual([]);
    expect(await asked.resolve({ host: origin.host, repository: 'app' }, '2')).toBeUndefined();
  });

  it('is asked for the list of tags only where the original fails', async () => {
    const origin = await startServer(holding('app', ['1', '2']));
    const broken = await startServer(nothing);
    const mirror = await startServer(holding('app', ['1']));
    const mirrors = [broken.host, mirror.host];
    const asked = registries({ [origin.host]: { mirrors }, [broken.host]: { mirrors } });
    expect(await asked.listTags({ host: origin.host, repository: 'app' })).toEqual(['1', '2']);
    expect(mirror.asked).toEqual([]);
    expect(await asked.listTags({ host: broken.host, repository: 'app' })).toEqual(['1']);
    const failure = await failureOf(asked.listTags({ host: broken.host, repository: 'none' }));
    expect(failure).toMatchObject({
      message: expect.stringMatching(
        new RegExp(`^${broken.host}: none tags.*; mirrors: .*${mirror.host}: none tags`),
      ),
    });
  });
});

/** A place on this machine where nobody listens. */
async function deadHost(): Promise<string> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  await new Promise((done) => server.close(done));
  return `127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
}

const BLOB = Buffer.from('the bytes of a layer');
const LAYER = {
  mediaType: 'application/octet-stream',
  digest: `sha256:${createHash('sha256').update(BLOB).digest('hex')}`,
  size: BLOB.length,
} as const;

/** Has `holding('app')` and the one blob of it. */
const full: Answer = (request, response, count) => {
  if (request.url === `/v2/app/blobs/${LAYER.digest}`) response.end(BLOB);
  else holding('app')(request, response, count);
};

describe('a mirror with other bytes', () => {
  const wrong: Answer = (request, response, count) => {
    if (request.url?.includes('/blobs/') === true) response.end(Buffer.alloc(BLOB.length, 'x'));
    else holding('app')(request, response, count);
  };

  /** A registry that has the blob, behind a mirror that has other bytes for it. */
  async function behindWrong() {
    const [origin, mirror] = [await startServer(full), await startServer(wrong)];
    const context = testContext();
    const config = { [origin.host]: { mirrors: [mirror.host] } };
    const asked = new Registries({ http: testClient(context), context, config });
    return { origin, mirror, context, asked, of: { host: origin.host, repository: 'app' } };
  }

  it('of a small blob is left for the next one at once, named, and not asked again', async () => {
    const { mirror, context, asked, of } = await behindWrong();
    for (let i = 0; i < 2; i++) expect((await asked.readWhole(of, LAYER, 100)).equals(BLOB)).toBe(true);
    expect(mirror.asked).toHaveLength(1);
    expect(context.events).toMatchObject([{ type: 'note', message: expect.stringContaining(mirror.host) }]);
  });

  it('is left before anybody has a byte of it, named, and not asked again', async () => {
    const { origin, mirror, context, asked, of } = await behindWrong();
    for (let i = 0; i < 2; i++) expect((await gather(asked.read(of, LAYER))).equals(BLOB)).toBe(true);
    expect([mirror.asked.length, origin.asked.length]).toEqual([1, 2]);
    expect(context.events).toMatchObject([{ type: 'note', message: expect.stringContaining(mirror.host) }]);
  });

  it('of an empty blob fails as wrong content after everybody was asked', async () => {
    const empty: Answer = (request, response, count) => {
      if (request.url?.includes('/blobs/') === true) response.end();
      else holding('app')(request, response, count);
    };
    const [origin, mirror] = [await startServer(empty), await startServer(empty)];
    const asked = registries({ [origin.host]: { mirrors: [mirror.host] } });
    const reading = gather(asked.read({ host: origin.host, repository: 'app' }, { ...LAYER, size: 0 }));
    expect(await failureOf(reading)).toMatchObject({ code: 'CONTENT_DIGEST_MISMATCH' });
    expect([mirror.asked.length, origin.asked.length]).toEqual([1, 2]);
  });

  it('fails at the registry itself after a second question, and what is too long is not asked for twice', async () => {
    const origin = await startServer(wrong);
    const asked = registries({});
    const of = { host: origin.host, repository: 'app' };
    expect(await failureOf(asked.readWhole(of, LAYER, 100))).toMatchObject({
      code: 'CONTENT_DIGEST_MISMATCH',
      message: expect.stringContaining(origin.host),
    });
    expect(origin.asked).toHaveLength(2);
    expect(await failureOf(asked.readWhole(of, LAYER, 5))).toMatchObject({ code: 'CONTENT_TOO_LARGE' });
    expect(origin.asked).toHaveLength(3);
  });
});

describe('a mirror where nobody is', () => {
  /** Asks for blobs and tags one after the other: what was noted, and how many tries were made again. */
  async function askAll(
    config: RegistriesConfig,
    host: string,
  ): Promise<{ notes: string[]; retries: number }> {
    const context = testContext();
    const asked = new Registries({ http: testClient(context), context, config });
    const of = { host, repository: 'app' };
    for (const tag of ['1', '2', '1']) {
      const blob = asked.read(of, LAYER);
      expect((await gather(blob)).toString()).toBe(BLOB.toString());
      expect(await asked.resolve(of, tag)).toBe(tag === '1' ? DIGEST : undefined);
    }
    return {
      notes: context.events.flatMap((e) => (e.type === 'note' ? [e.message] : [])),
      retries: context.events.filter((e) => e.type === 'retry').length,
    };
  }

  it('costs its tries once, is named once, and the next is asked', async () => {
    const [origin, dead] = [await startServer(full), await deadHost()];
    const { notes, retries } = await askAll({ [origin.host]: { mirrors: [dead] } }, origin.host);
    expect(retries).toBe(5);
    expect(notes).toEqual([
      expect.stringMatching(new RegExp(`^mirror ${dead}: .*ECONNREFUSED.*; it is not asked again$`)),
    ]);
  });

  it('is known for lists of tags too, whoever found it out', async () => {
    const [host, dead] = [await deadHost(), await deadHost()];
    const mirror = await startServer(holding('app', ['1']));
    const context = testContext();
    const config = { [host]: { mirrors: [dead, mirror.host] } };
    const asked = new Registries({ http: testClient(context), context, config });
    const of = { host, repository: 'app' };
    for (let i = 0; i < 3; i++) expect(await asked.listTags(of)).toEqual(['1']);
    expect(await asked.resolve(of, '1')).toBe(DIGEST);
    expect(context.events.filter((e) => e.type === 'retry')).toHaveLength(10);
    expect(context.events.filter((e) => e.type === 'note')).toHaveLength(1);
  });

  it('is found by a blob as well, and by many at once', async () => {
    const [origin, dead] = [await startServer(full), await deadHost()];
    const context = testContext();
    const config = { [origin.host]: { mirrors: [dead] } };
    const asked = new Registries({ http: testClient(context), context, config });
    const of = { host: origin.host, repository: 'app' };
    const read = async (): Promise<string> => (await gather(asked.read(of, LAYER))).toString();
    const texts = await Promise.all([read(), read(), read()]);
    expect(new Set([...texts, await read()])).toEqual(new Set([BLOB.toString()]));
    expect(context.events.filter((e) => e.type === 'note')).toHaveLength(1);
    expect(context.events.filter((e) => e.type === 'retry')).toHaveLength(15);
  });

  it('is another than one that sends its readers where nobody is', async () => {
    const [origin, dead] = [await startServer(full), await deadHost()];
    const mirror = await startServer((request, response, count) => {
      if (request.url?.includes('/blobs/') !== true) return holding('app')(request, response, count);
      return response.writeHead(307, { location: `http://${dead}/elsewhere` }).end();
    });
    const config = { [origin.host]: { mirrors: [mirror.host] }, [mirror.host]: {} };
    const { notes } = await askAll(config, origin.host);
    expect(notes.join()).toContain(`http://${dead}`);
    expect(mirror.asked.filter(({ url }) => url?.includes('/manifests/1'))).toHaveLength(2);
  });

  it('is told again with each failure of a host where nobody is either, which is not waited for again', async () => {
    const [host, dead] = [await deadHost(), await deadHost()];
    const context = testContext();
    const asked = new Registries({
      http: testClient(context),
      context,
      config: { [host]: { mirrors: [dead] } },
    });
    const of = { host, repository: 'app' };
    for (const work of [
      () => gather(asked.read(of, LAYER)),
      () => asked.resolve(of, '1'),
      () => asked.resolve(of, '2'),
    ]) {
      expect(await failureOf(work())).toMatchObject({
        code: 'NETWORK_FAILED',
        message: expect.stringMatching(new RegExp(`${host}: .*; mirrors: .*${dead}: `)),
      });
    }
    expect(context.events.filter((e) => e.type === 'retry')).toHaveLength(10);
  });
});
