/** A request that is stopped while its connection is still being made. */
import { createServer, type Socket } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { failureOf, testClient, testContext } from './server.ts';

it('is told at once when a request is stopped in the middle of a handshake that nobody answers', async () => {
  const sockets = new Set<Socket>();
  const context = testContext();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    // The first bytes of the handshake have come: now both wait.
    socket.once('data', () => context.stop());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const url = new URL(`https://127.0.0.1:${port}/`);
  const asked = testClient(context).request({ method: 'GET', url });
  expect(await failureOf(asked)).toMatchObject({ code: 'ABORTED' });
});
