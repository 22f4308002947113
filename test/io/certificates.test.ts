import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import { LIMITS } from '../../src/core/limits.ts';
import { tlsTowards } from '../../src/io/certificates.ts';
import type { HttpResponse } from '../../src/io/http.ts';
import { selfSigned } from './certificate.ts';
import { failureOf, startServer, type TestServer, testClient, testContext, testReceiver } from './server.ts';

const server = selfSigned();
const client = selfSigned();
const stranger = selfSigned();

async function folder(files: Readonly<Record<string, string>> = {}): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sealift-certs-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    await writeFile(join(dir, name), text);
  }
  return dir;
}

/** A server that wants `client`'s certificate. */
function strictServer(): Promise<TestServer> {
  // Version 1.2 refuses inside the handshake; 1.3 cuts the connection a moment later, sometimes without a word.
  const tls = { ...server, ca: client.cert, requestCert: true, maxVersion: 'TLSv1.2' } as const;
  return startServer((_, response) => response.end('in'), tls);
}

function ask(
  at: TestServer,
  options: { readonly tls?: object; readonly env?: Record<string, string> } = {},
): Promise<HttpResponse> {
  const { tls = {}, env = { SEALIFT_CERTS_D: '' } } = options;
  return testClient(testContext(env)).request({ method: 'GET', url: new URL(at.url), tls, tries: 1 });
}

async function statusOf(answer: Promise<HttpResponse>): Promise<number> {
  const { status, body } = await answer;
  await body.dump();
  return status;
}

describe('a client certificate', () => {
  it('opens a server that asks for one; without it the error says what to give', async () => {
    const at = await strictServer();
    const dir = await folder({ 'ca.crt': server.cert, 'me.crt': client.cert, 'me.key': client.key });
    const caFile = join(dir, 'ca.crt');
    const tls = { caFile, clientCert: join(dir, 'me.crt'), clientKey: join(dir, 'me.key') };
    expect(await statusOf(ask(at, { tls }))).toBe(200);
    const http = testClient(testContext());
    const { into } = await testReceiver(Buffer.from('large'));
    expect(await statusOf(http.request({ method: 'GET', url: new URL(at.url), tls, into }))).toBe(200);
    const failure = await failureOf(ask(at, { tls: { caFile } }));
    expect(failure).toMatchObject({ code: 'NETWORK_FAILED' });
    expect((failure as SealiftError).hint).toContain('client certificate');
  });

  it('works beside insecure and without a CA', async () => {
    const at = await strictServer();
    const dir = await folder({ 'me.crt': client.cert, 'me.key': client.key });
    const tls = { insecure: true, clientCert: join(dir, 'me.crt'), clientKey: join(dir, 'me.key') };
    expect(await statusOf(ask(at, { tls }))).toBe(200);
  });

  it('stays with the host that it was given for, as insecure does; a CA goes along', () => {
    const tls = { insecure: true, caFile: 'ca', clientCert: 'c', clientKey: 'k' };
    const from = new URL('https://a.example:5000/x');
    expect(tlsTowards(tls, { from, to: new URL('https://a.example/token') })).toEqual(tls);
    expect(tlsTowards(tls, { from, to: new URL('https://cdn.example/x') })).toEqual({ caFile: 'ca' });
    expect(tlsTowards({ insecure: true }, { from, to: new URL('https://b.example/') })).toEqual({});
  });

  it.each([
    ['without its key', { clientCert: 'me.crt' }, 'USAGE', 'both'],
    ['without its certificate', { clientKey: 'me.key' }, 'USAGE', 'both'],
    [
      'with the key of another',
      { clientCert: 'me.crt', clientKey: 'other.key' },
      'TLS_FILE_INVALID',
      'belong',
    ],
    [
      'with a key that is none',
      { clientCert: 'me.crt', clientKey: 'me.crt' },
      'TLS_FILE_INVALID',
      'pass phrase',
    ],
    ['that is none', { clientCert: 'me.key', clientKey: 'me.key' }, 'TLS_FILE_INVALID', 'openssl x509'],
    ['that is damaged', { clientCert: 'bad.crt', clientKey: 'me.key' }, 'TLS_FILE_INVALID', 'damaged'],
    ['whose file is not there', { clientCert: 'no.crt', clientKey: 'me.key' }, 'FILE_NOT_FOUND', ''],
  ] as const)('%s is refused before the first connection', async (_, names, code, hint) => {
    const at = await strictServer();
    const dir = await folder({
      'me.crt': client.cert,
      'me.key': client.key,
      'other.key': stranger.key,
      'bad.crt': '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n',
    });
    const tls = Object.fromEntries(Object.entries(names).map(([k, v]) => [k, join(dir, v)]));
    const failure = (await failureOf(ask(at, { tls }))) as SealiftError;
    expect(failure).toMatchObject({ code });
    expect(failure.hint ?? '').toContain(hint);
    expect(JSON.stringify([failure.message, failure.hint])).not.toContain('PRIVATE KEY');
    expect(at.asked).toEqual([]);
  });

  it('whose file is endless is not read to its end', async () => {
    const dir = await folder({ 'me.crt': 'x'.repeat(LIMITS.certificates + 1) });
    const tls = { caFile: join(dir, 'me.crt') };
    expect(await failureOf(ask(await strictServer(), { tls }))).toMatchObject({ code: 'CONTENT_TOO_LARGE' });
  });
});

describe('certs.d', () => {
  it('[1.1-certs.d] gives CA and client certificate of its host, and of no other', async () => {
    const at = await strictServer();
    const other = await strictServer();
    const dir = await folder({
      [`${at.host}/ca.crt`]: server.cert,
      [`${at.host}/me.cert`]: client.cert,
      [`${at.host}/me.key`]: client.key,
      [`${at.host}/README`]: 'anything',
    });
    const env = { SEALIFT_CERTS_D: dir };
    expect(await statusOf(ask(at, { env }))).toBe(200);
    expect(await failureOf(ask(other, { env }))).toMatchObject({ code: 'NETWORK_FAILED' });
  });

  it('is looked for below HOME, as podman does', async () => {
    const at = await startServer((_, response) => response.end(), server);
    const HOME = await folder({ [`.config/containers/certs.d/${at.host}/any.crt`]: server.cert });
    expect(await statusOf(ask(at, { env: { HOME } }))).toBe(200);
  });

  it('is the first folder that has the host: others are not mixed in', async () => {
    const at = await startServer((_, response) => response.end(), server);
    const right = await folder({ [`${at.host}/ca.crt`]: server.cert });
    const wrong = await folder({ [`${at.host}/ca.crt`]: stranger.cert });
    expect(await statusOf(ask(at, { env: { SEALIFT_CERTS_D: `/nowhere:${right}:${wrong}` } }))).toBe(200);
    const failure = failureOf(ask(at, { env: { SEALIFT_CERTS_D: `${wrong}:${right}` } }));
    expect(await failure).toMatchObject({ code: 'NETWORK_FAILED' });
  });

  it('gives way to what the manifest says, field by field', async () => {
    const at = await strictServer();
    const dir = await folder({
      [`${at.host}/ca.crt`]: stranger.cert,
      [`${at.host}/me.cert`]: client.cert,
      [`${at.host}/me.key`]: client.key,
      'ca.crt': server.cert,
      'stranger.crt': stranger.cert,
      'stranger.key': stranger.key,
    });
    const env = { SEALIFT_CERTS_D: dir };
    const caFile = join(dir, 'ca.crt');
    expect(await statusOf(ask(at, { env, tls: { caFile } }))).toBe(200);
    const wrong = { clientCert: join(dir, 'stranger.crt'), clientKey: join(dir, 'stranger.key') };
    expect(await failureOf(ask(at, { env, tls: { caFile, ...wrong } }))).toMatchObject({
      code: 'NETWORK_FAILED',
    });
  });

  it.each([
    ['a .cert without its .key', { 'me.cert': client.cert }, 'me.cert', 'NAME.crt'],
    ['a .key without its .cert', { 'me.key': client.key }, 'me.key', 'NAME.cert'],
    ['a .crt that is no certificate', { 'ca.crt': 'hello' }, 'ca.crt', 'openssl x509'],
  ] as const)('with %s is an error that names the file', async (_, files, name, hint) => {
    const at = await startServer((_, response) => response.end(), server);
    const dir = await folder(
      Object.fromEntries(Object.entries(files).map(([k, v]) => [`${at.host}/${k}`, v])),
    );
    const failure = (await failureOf(ask(at, { env: { SEALIFT_CERTS_D: dir } }))) as SealiftError;
    expect(failure).toMatchObject({ code: 'TLS_FILE_INVALID' });
    expect(failure.message).toContain(join(dir, at.host, name));
    expect(failure.hint).toContain(hint);
  });

  it('is not asked for plain HTTP', async () => {
    const at = await startServer((_, response) => response.end());
    const dir = await folder({ [`${at.host}/ca.crt`]: 'hello' });
    expect(await statusOf(ask(at, { env: { SEALIFT_CERTS_D: dir } }))).toBe(200);
  });
});

it('a CA beside the well-known ones does not take away those that Node was given (NODE_EXTRA_CA_CERTS)', async () => {
  const at = await startServer((_, response) => response.end(), server);
  const dir = await folder({ 'extra.crt': server.cert, 'ca.crt': stranger.cert });
  const env = { NODE_EXTRA_CA_CERTS: join(dir, 'extra.crt'), SEALIFT_CERTS_D: '' };
  expect(await statusOf(ask(at, { env, tls: { caFile: join(dir, 'ca.crt') } }))).toBe(200);
});
