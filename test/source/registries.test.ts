import { describe, expect, it } from 'vitest';
import { Registries, type RegistriesConfig } from '../../src/source/registries.ts';
import { selfSigned } from '../io/certificate.ts';
import { type Answer, failureOf, startServer, testClient, testContext } from '../io/server.ts';

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
    expect(failure).toMatchObject({ message: expect.stringContaining(broken.host) });
  });
});
