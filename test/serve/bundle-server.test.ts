import { writeFile } from 'node:fs/promises';
import { Agent, get as httpsGet } from 'node:https';
import { connect, createServer, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { hashSync } from 'bcryptjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import type { Exchange } from '../../src/serve/answer.ts';
import { doorkeeperOf, parsePasswordFile } from '../../src/serve/password-file.ts';
import { selfSigned } from '../io/certificate.ts';
import { makeSite, type Site } from '../support/bundles.ts';
import { serveBundles } from './bundle-site.ts';
import { errorCodes } from './client.ts';

let site: Site;
let tar: string;
const BIG = Buffer.alloc(30_000_000, 'big');

beforeAll(async () => {
  site = await makeSite();
  await site.put('one/big', BIG);
  await site.put('one/small', 'small');
  tar = await site.bundle('one', 'files: [{path: big, name: big}, {path: small, name: small}]\n');
});

afterAll(() => site.close());

/** Sends bytes as they are, and gives all that came until the other side closed. */
function raw(url: string, bytes: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    let said = '';
    const socket = connect({ host: hostname, port: Number(port) }, () => socket.write(bytes));
    socket.setEncoding('latin1').on('data', (text: string) => {
      said += text;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(said));
  });
}

const CLOSE = 'Host: x\r\nConnection: close\r\n\r\n';

describe('hostile requests', () => {
  it('are answered or cut, and the server goes on', async () => {
    const serving = await serveBundles([tar]);
    try {
      const first = async (bytes: string): Promise<string> =>
        (await raw(serving.url, bytes)).split('\r\n')[0] ?? '';
      expect(await first(`GET /${'a'.repeat(9_000)} HTTP/1.1\r\n${CLOSE}`)).toContain(' 414 ');
      expect(await first(`GET / HTTP/1.1\r\nX: ${'a'.repeat(20_000)}\r\n${CLOSE}`)).toContain(' 431 ');
      expect(await first('nonsense\r\n\r\n')).toContain(' 400 ');
      expect(await first(`GET / HTTP/1.1\r\nHost: x\r\nX y: z\r\n\r\n`)).toContain(' 400 ');
      expect(await first(`GET /files/%00 HTTP/1.1\r\n${CLOSE}`)).toContain(' 404 ');
      expect(await first(`GET /files/%ff%fe HTTP/1.1\r\n${CLOSE}`)).toContain(' 404 ');
      expect(await first(`GET http://other/files/small HTTP/1.1\r\n${CLOSE}`)).toContain(' 404 ');
      expect(await first(`GET /files/../../../etc/passwd HTTP/1.1\r\n${CLOSE}`)).toContain(' 404 ');
      expect(await first(`CONNECT x:80 HTTP/1.1\r\n${CLOSE}`)).toBe('');
      const expected =
        'PUT /files/small HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n';
      expect(await first(expected)).toContain(' 405 ');
      // A thousand requests at once on one connection, as long as somebody reads.
      const many = await raw(
        serving.url,
        `${'GET /files/small HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(999)}GET /files/small HTTP/1.1\r\n${CLOSE}`,
      );
      expect(many.split('200 OK').length - 1).toBe(1_000);
      expect(await (await fetch(`${serving.url}/files/small`)).text()).toBe('small');
    } finally {
      await serving.close();
    }
  });
});

describe('logins', () => {
  const hash = hashSync('secret', 4);
  const basic = (text: string): Record<string, string> => ({
    authorization: `Basic ${Buffer.from(text).toString('base64')}`,
  });

  it('are asked for everywhere, and checked against the file', async () => {
    const authFile = await site.put('users', `\uFEFFann:${hash}\r\n# users\n\nben:${hashSync('other', 4)}\n`);
    const serving = await serveBundles([tar], { authFile });
    try {
      expect(serving.text).toContain('A login is needed');
      for (const path of [
        '/',
        '/v2/',
        '/v2/_catalog',
        '/files/small',
        '/charts/index.yaml',
        '/simple/',
        '/nothing',
      ]) {
        const answer = await fetch(`${serving.url}${path}`);
        expect([path, answer.status]).toEqual([path, 401]);
        expect(answer.headers.get('www-authenticate')).toBe('Basic realm="sealift"');
        expect(await errorCodes(answer)).toEqual(['UNAUTHORIZED']);
      }
      const as = async (headers: Record<string, string>): Promise<number> =>
        (await fetch(`${serving.url}/files/small`, { headers })).status;
      expect(await as(basic('ann:secret'))).toBe(200);
      expect(await as(basic('ann:secret'))).toBe(200);
      expect(await as(basic('ben:other'))).toBe(200);
      for (const wrong of [
        'ann:other',
        'ann:',
        ':secret',
        'nobody:secret',
        'ann',
        `ann:${hash}`,
        'ann:secret ',
      ]) {
        expect([wrong, await as(basic(wrong))]).toEqual([wrong, 401]);
      }
      expect(await as({ authorization: 'Bearer ann:secret' })).toBe(401);
      expect((await fetch(`${serving.url}/files/small`, { method: 'PUT' })).status).toBe(401);
      expect(await as(basic('ann:secret'))).toBe(200);
    } finally {
      await serving.close();
    }
  });

  it('that are wrong wait for each other, and not many may', async () => {
    const keeper = doorkeeperOf(parsePasswordFile(`ann:${hash}`, 'users'), { pauseMs: 1 });
    const asked = (text: string) => keeper({ request: { headers: basic(text) } } as unknown as Exchange);
    const wrong = Array.from({ length: LIMITS.passwordsWaiting }, (_, i) => asked(`ann:${i}`));
    expect((await asked('ann:secret'))?.status).toBe(429);
    for (const answer of await Promise.all(wrong)) expect(answer?.status).toBe(401);
    expect(await asked('ann:secret')).toBeUndefined();
    const known = Array.from({ length: 100 }, () => asked('ann:secret'));
    expect(new Set(await Promise.all(known))).toEqual(new Set([undefined]));
  });

  it('need bcrypt, and every wrong line is told without its hash', async () => {
    const text = [
      `ann:${hash}`,
      'md5:$apr1$abc$secretsecretsecret',
      'sha:{SHA}secretsecret',
      'no colon',
      `ann:${hash}`,
    ];
    const costly = hash.replace('$04$', '$31$');
    const read = (): unknown => parsePasswordFile([...text, `slow:${costly}`].join('\n'), 'users');
    expect(read).toThrow(/users: 5 lines/);
    try {
      read();
    } catch (error) {
      const said = JSON.stringify((error as { faults: unknown }).faults);
      for (const part of [
        'users:2: ',
        'MD5 (apr1)',
        'users:3: ',
        'SHA-1',
        'users:4: ',
        'users:5: ',
        'users:6: ',
        '31',
      ])
        expect(said).toContain(part);
      expect(said).not.toContain('secret');
      expect(said).not.toContain(hash.slice(10));
    }
    expect(() => parsePasswordFile('# nobody\n', 'users')).toThrow(/no user/);
    await expect(serveBundles([tar], { authFile: join(site.dir, 'none') })).rejects.toMatchObject({
      code: 'FILE_NOT_FOUND',
    });
  });
});

describe('TLS', () => {
  it('is used when a certificate and its key are given', async () => {
    const { cert, key } = selfSigned('localhost');
    const tls = { cert: await site.put('s.crt', cert), key: await site.put('s.key', key) };
    const serving = await serveBundles([tar], { tls });
    try {
      expect(serving.url).toMatch(/^https:\/\/127\.0\.0\.1:/);
      expect(serving.text).not.toContain('--plain-http');
      const said = await new Promise<string>((resolve, reject) => {
        httpsGet(`${serving.url}/files/small`, { agent: new Agent({ ca: cert }) }, (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (part: string) => {
            text += part;
          });
          answer.on('end', () => resolve(text));
        }).on('error', reject);
      });
      expect(said).toBe('small');
    } finally {
      await serving.close();
    }
    const other = await site.put('o.key', selfSigned().key);
    await expect(serveBundles([tar], { tls: { ...tls, key: other } })).rejects.toMatchObject({
      code: 'TLS_FILE_INVALID',
    });
  });
});

describe('the address', () => {
  it('is explained when it is taken or is none', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const address = taken.address();
    const port = typeof address === 'object' ? address?.port : 0;
    try {
      await expect(serveBundles([tar], { listen: `127.0.0.1:${port}` })).rejects.toMatchObject({
        code: 'USAGE',
        message: expect.stringContaining(`127.0.0.1:${port}`),
        hint: expect.stringContaining(`ss -ltnp 'sport = :${port}'`),
      });
    } finally {
      taken.close();
    }
    for (const listen of ['5000', '127.0.0.1', '127.0.0.1:70000', 'a b:1', 'http://x:1', '']) {
      await expect(serveBundles([tar], { listen })).rejects.toMatchObject({ code: 'USAGE' });
    }
    const all = await serveBundles([tar], { listen: ':0' });
    try {
      const notes = all.context.events.flatMap((e) => (e.type === 'note' ? [e.message] : []));
      expect(notes).toEqual([expect.stringContaining('--auth')]);
      const { port: open } = new URL(all.url);
      expect(await (await fetch(`http://127.0.0.1:${open}/files/small`)).text()).toBe('small');
      // By IPv6, too, where this machine has it.
      const six = Object.values(networkInterfaces()).some((each) => each?.some((a) => a.address === '::1'));
      if (six) expect(await (await fetch(`http://[::1]:${open}/files/small`)).text()).toBe('small');
      await all.close();
      const clients = all.lines.map((line) => JSON.parse(line).client);
      expect(clients).toEqual(six ? ['127.0.0.1', '::1'] : ['127.0.0.1']);
    } finally {
      await all.close();
    }
  });
});

/** A client that asks and reads nothing; `begun` settles when its answer began to come. */
function hold(
  url: string,
  path: string,
): { socket: Socket; begun: Promise<void>; rest: () => Promise<number> } {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port) });
  socket.on('error', () => {});
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
  const begun = new Promise<void>((resolve) => socket.once('readable', () => resolve()));
  const rest = (): Promise<number> =>
    new Promise((resolve) => {
      let bytes = 0;
      socket.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      socket.on('close', () => resolve(bytes));
    });
  return { socket, begun, rest };
}

describe('stopping', () => {
  it('lets running answers end, refuses new ones and says what was served', async () => {
    const serving = await serveBundles([tar]);
    const slow = hold(serving.url, '/files/big');
    const idle = hold(serving.url, '/files/small');
    await Promise.all([slow.begun, idle.begun]);
    serving.context.controller.abort();
    await expect(fetch(`${serving.url}/files/small`)).rejects.toThrow();
    const rest = slow.rest();
    const result = await serving.ended;
    expect(await rest).toBeGreaterThan(BIG.length);
    idle.socket.destroy();
    expect(result).toMatchObject({ requests: 2, failed: 0, cut: 0, bytes: BIG.length + 5 });
  });

  it('does not count a client that went away as a failure', async () => {
    const serving = await serveBundles([tar]);
    const gone = hold(serving.url, '/files/big');
    await gone.begun;
    gone.socket.destroy();
    const result = await serving.close();
    expect(result).toMatchObject({ requests: 1, failed: 0, cut: 0 });
    expect(JSON.parse(serving.lines[0] ?? '').error).toBeUndefined();
  });

  it('at once when it was stopped before it began', async () => {
    const serving = await serveBundles([tar]);
    expect(await serving.close()).toMatchObject({ requests: 0, bytes: 0 });
    expect(await serving.close()).toMatchObject({ requests: 0 });
    await writeFile(join(site.dir, 'still-there'), 'x');
  });
});
