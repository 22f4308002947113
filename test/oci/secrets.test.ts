import type { IncomingMessage, ServerResponse } from 'node:http';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { faultOf, SealiftError } from '../../src/core/errors.ts';
import type { Registry } from '../../src/oci/registry.ts';
import { failureOf, gather, startServer, testContext } from '../io/server.ts';
import { basicAuth, blobOf, client, envOf, source, tempDir, writeFiles, writeHelper } from './bench.ts';

/** Every secret in these tests holds this word, as it is or as Base64. */
const WORD = 'hunter2';
const PASSWORD = `${WORD}-password`;
const TOKEN = `${WORD}-token`;

/** All forms in which a secret could show. */
function leaks(text: string): string[] {
  const forms = [
    WORD,
    basicAuth('ann', PASSWORD),
    Buffer.from(PASSWORD).toString('base64'),
    encodeURIComponent(PASSWORD),
  ];
  return forms.filter((form) => text.includes(form));
}

/** What a person, a log or `--json` could be shown of an error. */
function shown(error: unknown): string {
  const e = error instanceof SealiftError ? error : undefined;
  return inspect([String(error), e?.hint, e?.details, e?.faults, faultOf(error)], { depth: 20 });
}

const { bytes, descriptor } = blobOf('content');
const never = new AbortController().signal;

const WORK: Record<string, (registry: Registry) => Promise<unknown>> = {
  ping: (r) => r.ping(),
  getManifest: (r) => r.getManifest('app', 'v1'),
  resolve: (r) => r.resolve('app', 'v1'),
  listTags: (r) => r.listTags('app'),
  hasBlob: (r) => r.hasBlob('app', descriptor.digest),
  readBlob: (r) => gather(r.readBlob('app', descriptor, { signal: never })),
  mountBlob: (r) => r.mountBlob('app', descriptor.digest, 'base'),
  writeBlob: (r) => r.writeBlob('app', descriptor, source(bytes).open),
  putManifest: (r) => r.putManifest('app', 'v1', { bytes, descriptor }),
};

const CREDENTIALS: Record<string, unknown> = {
  'a password': { auth: basicAuth('ann', PASSWORD) },
  'an identity token': { identitytoken: PASSWORD },
  'a registry token': { registrytoken: TOKEN },
};

/** Servers that misbehave, each in one way; all of them saw the secrets. */
const SERVERS: Record<string, (request: IncomingMessage, response: ServerResponse) => unknown> = {
  'refuses the login': (_, response) =>
    response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end(),
  'forbids everything': (_, response) => response.writeHead(403).end(),
  'cuts every connection': (request) => request.socket.destroy(),
  'is busy for ever': (_, response) => response.writeHead(503, { 'retry-after': '0' }).end(),
  'repeats the header in its error': (request, response) =>
    response.writeHead(400).end(`bad header Authorization: ${request.headers.authorization}`),
  'sends to a broken address with a token': (_, response) =>
    response.writeHead(307, { location: `http://ann:${PASSWORD}@[broken/?opaque=${TOKEN}` }).end(),
  'sends to an address that cuts, with a signature': (request, response) => {
    if (request.url?.startsWith('/signed') === true) request.socket.destroy();
    else response.writeHead(307, { location: `/signed?opaque=${TOKEN}&X-Amz-Signature=${TOKEN}` }).end();
  },
  'opens uploads at odd places': (request, response) => {
    if (request.method === 'POST') response.writeHead(202, { location: `gopher://x/?_state=${TOKEN}` }).end();
    else response.writeHead(404).end();
  },
};

/** A server that asks for a token first, and then behaves as given. */
function behindTokens(behave: (request: IncomingMessage, response: ServerResponse) => unknown) {
  return startServer((request, response) => {
    request.resume();
    if (request.url?.startsWith('/token') === true) response.end(JSON.stringify({ token: TOKEN }));
    else if (request.headers.authorization === undefined && !(request.url ?? '').startsWith('/signed')) {
      const challenge = `Bearer realm="http://${request.headers.host}/token",service="x"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
    } else behave(request, response);
  });
}

describe('[A10, A10-query] no secret is ever shown', () => {
  for (const [credentialName, entry] of Object.entries(CREDENTIALS)) {
    for (const [serverName, behave] of Object.entries(SERVERS)) {
      it(`${credentialName}, when the server ${serverName}`, async () => {
        const server = await behindTokens(behave);
        const home = await tempDir();
        await writeFiles(home, { '.docker/config.json': { auths: { [server.host]: entry } } });
        for (const [name, work] of Object.entries(WORK)) {
          const context = testContext(envOf(home));
          const { registry } = client(server.host, { context });
          const outcome = await work(registry).then(
            (value) => inspect(value),
            (error: unknown) => shown(error),
          );
          expect([name, leaks(outcome), leaks(inspect(context.events, { depth: 20 }))]).toEqual([
            name,
            [],
            [],
          ]);
        }
        // Without this the test could pass because nothing secret was ever sent.
        expect(server.asked.some((r) => r.headers.authorization !== undefined)).toBe(true);
      });
    }
  }

  const tokenServers: Record<string, (response: ServerResponse, asked: string) => unknown> = {
    'refuses and repeats what it was sent': (response, asked) => response.writeHead(401).end(asked),
    'fails and repeats what it was sent': (response, asked) => response.writeHead(500).end(asked),
    'sends something that is no token': (response, asked) => response.end(asked),
    'sends a token in a wrong shape': (response) => response.end(JSON.stringify({ token: { value: TOKEN } })),
    'sends a token that no header can hold': (response) =>
      response.end(JSON.stringify({ token: `${TOKEN}\n` })),
    'redirects with the secret in the address': (response) =>
      response.writeHead(302, { location: `ftp://ann:${PASSWORD}@x/?opaque=${TOKEN}` }).end(),
  };
  for (const [name, answer] of Object.entries(tokenServers)) {
    for (const credentialName of ['a password', 'an identity token']) {
      it(`${credentialName}, when the token server ${name}`, async () => {
        const server = await startServer(async (request, response) => {
          if (request.url?.startsWith('/token') !== true) {
            const challenge = `Bearer realm="http://${request.headers.host}/token?opaque=${TOKEN}"`;
            response.writeHead(401, { 'www-authenticate': challenge }).end();
            return;
          }
          let body = '';
          for await (const chunk of request) body += chunk;
          answer(response, `${request.headers.authorization} ${body}`);
        });
        const home = await tempDir();
        const auths = { [server.host]: CREDENTIALS[credentialName] };
        await writeFiles(home, { '.docker/config.json': { auths } });
        const context = testContext(envOf(home));
        const failure = await failureOf(client(server.host, { context }).registry.listTags('app'));
        expect(failure).toBeInstanceOf(SealiftError);
        expect([leaks(shown(failure)), leaks(inspect(context.events, { depth: 20 }))]).toEqual([[], []]);
      });
    }
  }

  it('a password in a realm that is no address, which is told about', async () => {
    const server = await startServer((_, response) =>
      response.writeHead(401, { 'www-authenticate': `Bearer realm="null://ann:${PASSWORD}@host/t"` }).end(),
    );
    const context = testContext({ HOME: '/nonexistent' });
    const failure = await failureOf(client(server.host, { context }).registry.listTags('app'));
    expect(context.events).toMatchObject([
      { type: 'note', message: expect.stringContaining('null://***@host') },
    ]);
    expect([leaks(shown(failure)), leaks(inspect(context.events))]).toEqual([[], []]);
  });

  it('a password from a helper, when the helper breaks', async () => {
    const home = await tempDir();
    const server = await startServer((_, response) =>
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end(),
    );
    for (const body of [
      `echo '{"Username":"ann","Secret":"${PASSWORD}"'`,
      `echo ${PASSWORD} >&2; echo ${PASSWORD}`,
    ]) {
      await writeHelper(home, 'x', `cat >/dev/null; ${body}`);
      await writeFiles(home, { '.docker/config.json': { credsStore: 'x' } });
      const context = testContext(envOf(home));
      const failure = await failureOf(client(server.host, { context }).registry.listTags('app'));
      expect(failure).toMatchObject({ code: 'AUTH_REQUIRED' });
      expect([leaks(shown(failure)), leaks(inspect(context.events))]).toEqual([[], []]);
    }
  });
});
