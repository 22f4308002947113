/** A registry that knows only `/v2/` and its logins, for tests of what servers may ask. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { startServer, type TestServer } from '../io/server.ts';
import { basicAuth } from './bench.ts';

export const users = { ann: 'secret:with:colons' };

export const ann = { auth: basicAuth('ann', 'secret:with:colons') };

/** Answers a registry with only `/v2/`: 200 with the right header, a challenge otherwise. `{host}` is its own address. */
export interface Rules {
  readonly challenge: string | readonly string[];
  readonly accepts: (authorization: string) => boolean;
  readonly token?: (request: IncomingMessage, response: ServerResponse) => unknown;
}

export function smallRegistry(rules: Rules): Promise<TestServer> {
  return startServer((request, response) => {
    if (/^\/(?:v2\/)?token/.test(request.url ?? '')) {
      if (rules.token === undefined) response.writeHead(404).end();
      else rules.token(request, response);
      return;
    }
    if (rules.accepts(request.headers.authorization ?? '')) {
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"tags":["v1"]}');
      return;
    }
    const host = request.headers.host ?? '';
    const challenge = [rules.challenge].flat().map((c) => c.replaceAll('{host}', host));
    response.writeHead(401, { 'www-authenticate': challenge }).end('{}');
  });
}

export const sendToken =
  (fields: Record<string, unknown>) =>
  (_: IncomingMessage, response: ServerResponse): void => {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(fields));
  };

export const BEARER = 'Bearer realm="http://{host}/token",service="svc"';

/** The queries of the token requests. */
export function tokenQueries(server: TestServer): string[] {
  return server.asked
    .filter((r) => /^\/(?:v2\/)?token/.test(r.url))
    .map((r) => decodeURIComponent(r.url.slice(r.url.indexOf('?') + 1)));
}
