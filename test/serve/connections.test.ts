import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import type { Access } from '../../src/serve/access-log.ts';
import type { Answer, Exchange } from '../../src/serve/answer.ts';
import { type ServerOptions, startServer } from '../../src/serve/server.ts';
import { makeSite, type Site } from '../support/bundles.ts';
import { serveBundles } from './bundle-site.ts';

/** Clients that hold a connection and do not do their part. */

let site: Site;
let tar: string;

beforeAll(async () => {
  site = await makeSite();
  await site.put('one/big', Buffer.alloc(30_000_000, 'big'));
  await site.put('one/small', 'small');
  tar = await site.bundle('one', 'files: [{path: big, name: big}, {path: small, name: small}]\n');
});

afterAll(() => site.close());

/** A connection on which nothing is said yet. */
function dial(port: number): Socket {
  const socket = connect({ host: '127.0.0.1', port });
  socket.on('error', () => {});
  return socket;
}

/** All that comes until the other side closes. */
async function everything(socket: Socket): Promise<string> {
  let said = '';
  socket.setEncoding('latin1').on('data', (text: string) => {
    said += text;
  });
  await once(socket, 'close');
  return said;
}

const GET = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;

async function* endless(): AsyncGenerator<Uint8Array> {
  const piece = Buffer.alloc(256 * 1024);
  for (;;) yield piece;
}

const ANSWERS: Readonly<Record<string, () => Answer>> = {
  '/endless': () => ({ status: 200, headers: { 'content-length': '1000000000' }, body: endless() }),
  '/text': () => ({ status: 200, body: Buffer.alloc(200_000, 'x') }),
};

/** A server with bounds of its own; `access` settles with the first such request that was answered. */
async function bounded(bounds: ServerOptions['bounds']) {
  let tell = (_: Access): void => {};
  const server = await startServer({
    listen: { host: '127.0.0.1', port: 0 },
    tls: undefined,
    now: () => 0,
    answer: async ({ path }: Exchange) => ANSWERS[path]?.() ?? { status: 404 },
    onAccess: (access) => tell(access),
    ...(bounds === undefined ? {} : { bounds }),
  });
  return {
    port: server.port,
    access: (isWanted: (access: Access) => boolean): Promise<Access> =>
      new Promise((resolve) => {
        tell = (access) => (isWanted(access) ? resolve(access) : undefined);
      }),
    close: () => server.close({ graceMs: 0, onCut: () => {} }),
  };
}

describe('requests one behind the other on a connection', () => {
  it('are forgotten with it, so that their places are free and the server can end', async () => {
    const serving = await serveBundles([tar]);
    const { port } = new URL(serving.url);
    // More than all places for answers together.
    const behind = 100;
    for (let left = LIMITS.servedAnswers; left >= 0; left -= behind) {
      const socket = dial(Number(port));
      socket.write(GET('/files/big') + GET('/files/small').repeat(behind));
      await once(socket, 'readable');
      socket.destroy();
    }
    expect(await (await fetch(`${serving.url}/files/small`)).text()).toBe('small');
    expect(await serving.close()).toMatchObject({ cut: 0, refused: 0, failed: 0 });
  });

  it('are answered in their order, each read only when its turn has come', async () => {
    const serving = await serveBundles([tar]);
    const socket = dial(Number(new URL(serving.url).port));
    socket.write(GET('/files/big') + GET('/files/small') + GET('/files/big'));
    socket.write('GET /files/small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    const said = await everything(socket);
    expect(said.length).toBeGreaterThan(60_000_000);
    expect(said.split('HTTP/1.1 200 OK').length - 1).toBe(4);
    expect(said.endsWith('small')).toBe(true);
    await serving.close();
  });
});

describe('a client that takes nothing', () => {
  it.each(['/endless', '/text'])('of %s is left after a while, and the log says why', async (path) => {
    const server = await bounded({ stallMs: 50 });
    try {
      const left = server.access((access) => access.error !== undefined);
      const socket = dial(server.port);
      // Small answers, too, fill what the system keeps for a client, when he asks for many.
      socket.pause().write(GET(path).repeat(path === '/text' ? 200 : 1));
      expect(await left).toMatchObject({ status: 200, error: 'the client took nothing for 0.05 s' });
      socket.destroy();
    } finally {
      await server.close();
    }
  });
});

describe('a client that does not finish its request', () => {
  it.each([
    ['sends nothing', ''],
    ['sends half a head', 'GET /text HTTP/1.1\r\nHost: x\r\nX-'],
  ])('is left when it %s', async (_, bytes) => {
    const server = await bounded({ headMs: 50, lookMs: 10 });
    try {
      const socket = dial(server.port);
      socket.write(bytes);
      expect(await everything(socket)).toMatch(/^HTTP\/1\.1 408 /);
    } finally {
      await server.close();
    }
  });

  it('has its answer, and no more, when it announces a body and sends none', async () => {
    const server = await bounded({});
    try {
      const socket = dial(server.port);
      socket.write('POST /text HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n');
      expect(await everything(socket)).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    } finally {
      await server.close();
    }
  });

  it('is left when it asks once and keeps the connection', async () => {
    const server = await bounded({ unusedMs: 50 });
    try {
      const socket = dial(server.port);
      socket.write(GET('/nothing'));
      expect(await everything(socket)).toMatch(/^HTTP\/1\.1 404 /);
    } finally {
      await server.close();
    }
  });
});

describe('connections', () => {
  it('have so many places, and one more is closed at once', async () => {
    const server = await bounded({ connections: 3 });
    try {
      const held = [dial(server.port), dial(server.port), dial(server.port)];
      await Promise.all(held.map((socket) => once(socket, 'connect')));
      expect(await everything(dial(server.port))).toBe('');
      for (const socket of held) socket.destroy();
    } finally {
      await server.close();
    }
  });

  it('that are only kept for later make room for others', async () => {
    const server = await bounded({ connections: 3 });
    try {
      const kept = [dial(server.port), dial(server.port)];
      for (const socket of kept) {
        socket.write(GET('/nothing'));
        await once(socket, 'data');
      }
      const gone = kept.map((socket) => once(socket, 'close'));
      const busy = dial(server.port);
      await Promise.all(gone);
      busy.write(GET('/nothing'));
      expect(String((await once(busy, 'data'))[0])).toMatch(/^HTTP\/1\.1 404 /);
      busy.destroy();
    } finally {
      await server.close();
    }
  });

  it('by the thousand that say nothing leave the server as it is', async () => {
    const serving = await serveBundles([tar]);
    const port = Number(new URL(serving.url).port);
    const idle = Array.from({ length: 2 * LIMITS.servedConnections }, () => dial(port));
    await Promise.all(idle.map((socket) => Promise.race([once(socket, 'connect'), once(socket, 'close')])));
    // All places are taken.
    expect(await everything(dial(port))).toBe('');
    for (const socket of idle) socket.destroy();
    await Promise.all(idle.map((socket) => (socket.closed ? undefined : once(socket, 'close'))));
    await serving.close();
    expect(serving.lines).toEqual([]);
  });
});
