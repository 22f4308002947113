import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { HttpClient } from '../../src/io/http.ts';
import { type CredentialSource, NOBODY } from '../../src/oci/credentials.ts';
import { WebServer } from '../../src/target/web/server.ts';
import { contextOf } from '../bundle/site.ts';

const PASSWORD = 'swordfish/ä"';
const ANNA: CredentialSource = {
  find: async () => ({ kind: 'password', username: 'anna', password: PASSWORD }),
};

type Answer = (req: IncomingMessage, res: ServerResponse) => void;
const open: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of open.splice(0)) await close();
});

async function serverOf(answer: Answer, credentials = NOBODY, path = '/'): Promise<WebServer> {
  const server = createServer(answer);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const context = contextOf();
  const http = new HttpClient(context);
  open.push(async () => {
    await http.close();
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  });
  const { port } = server.address() as AddressInfo;
  return new WebServer({ http, context, base: new URL(`http://127.0.0.1:${port}${path}`), credentials });
}

async function failureOf(answer: Answer, credentials = NOBODY): Promise<SealiftError> {
  const server = await serverOf(answer, credentials);
  return server.fail(
    await server.send({ method: 'PUT', path: 'x', body: Buffer.from('1'), tries: 1 }),
    'PUT x',
  );
}

const says =
  (status: number, body: string): Answer =>
  (_, res) =>
    void res.writeHead(status).end(body);

describe('a server of packages', () => {
  it('is quoted with its status line where that says more than the name of its status', async () => {
    const refused = 'Repository does not allow updating assets: raw-hosted';
    const error = await failureOf((_, res) => void res.writeHead(400, refused).end());
    expect(error.message).toContain(`HTTP 400: ${refused}`);
    const echoing = await failureOf((_, res) => void res.writeHead(400, 'no swordfish here').end('a'), {
      find: async () => ({ kind: 'password', username: 'anna', password: 'swordfish' }),
    });
    expect(echoing.message).toContain('HTTP 400: no *** here');
    const plain = await failureOf((_, res) => void res.writeHead(400, 'Bad Request').end('its body'));
    expect(plain.message).toContain('HTTP 400: its body');
  });

  it('gets the login with the first request, below its own path', async () => {
    const seen: string[] = [];
    const server = await serverOf(
      (req, res) => {
        seen.push(`${req.url} ${req.headers.authorization}`);
        res.end('{"a":1}');
      },
      ANNA,
      '/nexus/',
    );
    expect(await server.json('service/rest/v1/status?x=1', 1000)).toEqual({ a: 1 });
    const coded = Buffer.from(`anna:${PASSWORD}`).toString('base64');
    expect(seen).toEqual([`/nexus/service/rest/v1/status?x=1 Basic ${coded}`]);
  });

  it('never sends the login to another origin', async () => {
    const seen: (string | undefined)[] = [];
    const other = await serverOf((req, res) => {
      seen.push(req.headers.authorization);
      res.end('there');
    });
    const server = await serverOf((_, res) => res.writeHead(302, { location: other.base.href }).end(), ANNA);
    expect(await server.text('x', 1000)).toBe('there');
    expect(seen).toEqual([undefined]);
  });

  it('refuses a path that leads out of its base', async () => {
    const server = await serverOf(says(200, ''), NOBODY, '/nexus/');
    expect(() => server.url('../x')).toThrow(/leads out/);
    expect(() => server.url('//evil.example/x')).toThrow(/leads out/);
    expect(server.url('repository/r/a%2Bb').pathname).toBe('/nexus/repository/r/a%2Bb');
  });

  it('tells a missing text from a refused one, and stops at the limit', async () => {
    expect(await (await serverOf(says(404, '<html>no'))).text('x', 10)).toBeUndefined();
    await expect((await serverOf(says(200, 'x'.repeat(11)))).text('x', 10)).rejects.toMatchObject({
      code: 'CONTENT_TOO_LARGE',
    });
    await expect((await serverOf(says(200, '<!doctype html><p>Hi'))).json('x', 100)).rejects.toMatchObject({
      code: 'TARGET_UNREACHABLE',
      message: expect.stringContaining('a web page answered'),
    });
  });

  const rows: readonly (readonly [number, string, CredentialSource, string, RegExp])[] = [
    [401, '', NOBODY, 'AUTH_REQUIRED', /no login was found/],
    [401, '', ANNA, 'AUTH_DENIED', /"anna": check user name and password/],
    [403, '', ANNA, 'AUTH_DENIED', /rights to add and edit/],
    [404, '<html><body>Not Found', ANNA, 'TARGET_UNREACHABLE', /user interface/],
    [404, '{"message":"no such index"}', ANNA, 'TARGET_FAILED', /name of the repository/],
    [413, '<html>nginx', ANNA, 'TARGET_FAILED', /client_max_body_size 0/],
    [
      503,
      'Nexus Repository Manager is in read-only mode',
      ANNA,
      'TARGET_READ_ONLY',
      /end the read-only mode/,
    ],
    [507, '', ANNA, 'TARGET_FULL', /make room/],
    [500, '', ANNA, 'TARGET_FAILED', /disk or quota/],
    [400, 'cannot be updated', ANNA, 'TARGET_FAILED', /refuses this/],
  ];
  it.each(rows)('says what HTTP %i with "%s" means', async (status, body, login, code, hint) => {
    const error = await failureOf(says(status, body), login);
    expect(error).toBeInstanceOf(SealiftError);
    expect(error).toMatchObject({ code, details: { status } });
    expect(error.hint).toMatch(hint);
  });

  it('never shows a secret that the server gives back', async () => {
    const coded = Buffer.from(`anna:${PASSWORD}`).toString('base64');
    const error = await failureOf(
      says(400, `[{"id":"x","message":"got ${coded} and ${PASSWORD.slice(0, -1)}"}]`),
      ANNA,
    );
    expect(error.message).not.toContain(coded);
    const plain = await failureOf(says(400, `you sent ${PASSWORD}`), ANNA);
    expect(plain.message).toContain('you sent ***');
  });
});
