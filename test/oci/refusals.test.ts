import { describe, expect, it } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import { LIMITS } from '../../src/core/limits.ts';
import { digestOf } from '../../src/io/verify.ts';
import { failureOf, startServer } from '../io/server.ts';
import { client } from './bench.ts';

/** What a manifest GET fails with when the server answers so. */
async function refusal(status: number, body: string, type = 'application/json'): Promise<SealiftError> {
  const server = await startServer((_, response) =>
    response.writeHead(status, { 'content-type': type }).end(body),
  );
  return (await failureOf(client(server.host).registry.getManifest('app', 'v1'))) as SealiftError;
}

function errors(...list: readonly unknown[]): string {
  return JSON.stringify({ errors: list });
}

describe('[1.3-error-json] the errors of a registry', () => {
  it('are told as code and message, and kept for programs', async () => {
    const failure = await refusal(
      400,
      errors({ code: 'NAME_INVALID', message: 'no\nsuch name', detail: { x: 1 } }),
    );
    expect(failure.message).toMatch(/: app:v1: HTTP 400: NAME_INVALID: no such name$/);
    expect(failure.details).toEqual({ status: 400, serverCode: 'NAME_INVALID' });
  });

  it('are all told, each once', async () => {
    const lost = { code: 'BLOB_UNKNOWN', message: 'blob unknown' };
    const failure = await refusal(
      400,
      errors(lost, lost, { code: 'DENIED' }, { message: 'only words' }, null, 7),
    );
    expect(failure.message).toMatch(/HTTP 400: BLOB_UNKNOWN: blob unknown; DENIED; only words$/);
  });

  it('keep their first code when there are so many that the answer is not read to its end', async () => {
    const list = Array.from({ length: 500 }, (_, i) => ({
      code: 'MANIFEST_BLOB_UNKNOWN',
      message: 'blob unknown to registry',
      detail: { digest: digestOf(String(i)) },
    }));
    const body = errors(...list);
    expect(body.length).toBeGreaterThan(2 * LIMITS.errorBody);
    const failure = await refusal(400, body);
    expect(failure.details).toEqual({ status: 400, serverCode: 'MANIFEST_BLOB_UNKNOWN' });
    expect(failure.message).toMatch(/HTTP 400: MANIFEST_BLOB_UNKNOWN$/);
  });
});

describe('[1.3-error-html] a web page instead of a registry', () => {
  const page = `<!DOCTYPE html><html><head><style>p { color: red }</style><title>502 Bad Gateway</title></head>
<body><h1>The  server</h1><p>${'is resting '.repeat(100)}</p></body></html>`;

  for (const status of [400, 404, 501]) {
    it(`is told by its first 200 characters, with what may be wrong (HTTP ${status})`, async () => {
      const failure = await refusal(status, page, 'text/html');
      const said = failure.message.slice(failure.message.indexOf(`HTTP ${status}: `) + 10);
      expect(said).toMatch(/^502 Bad Gateway The server is resting is resting/);
      expect(said.length).toBeGreaterThan(190);
      expect(said.length).toBeLessThanOrEqual(200);
      expect(failure.hint).toContain('not a registry');
      expect(failure.hint).toContain('8081');
    });
  }

  it('does not hide what the status alone says', async () => {
    expect((await refusal(413, '<html>nginx</html>')).hint).toContain('client_max_body_size');
    expect((await refusal(403, '<html>sign in</html>')).hint).toContain('login');
    expect((await refusal(404, errors({ code: 'MANIFEST_UNKNOWN' }))).hint).toContain('tag');
  });

  it('that never closes its style is one short line all the same', async () => {
    const failure = await refusal(400, `<html><style>${'x'.repeat(5000)}`);
    expect(failure.message).toMatch(/HTTP 400$/);
  });
});
