/** A proxy on 127.0.0.1 that counts requests and bytes. It stands in the way only in a round that is not timed. */
import { createServer, request } from 'node:http';

const NO_COUNTS = { requests: 0, sent: 0, received: 0, methods: {} };

/** The bytes of bodies, as they pass; a failure of one side ends the other. */
function carry(from, to, add) {
  from.on('data', (chunk) => add(chunk.length));
  from.on('error', () => to.destroy());
  from.pipe(to);
}

/**
 * Forwards everything that comes to `port` to `upstream`. The Host header stays, so that the registry's Location headers
 * lead through the proxy again.
 */
export async function countingProxy({ port, upstream }) {
  let counts = structuredClone(NO_COUNTS);
  const server = createServer((incoming, outgoing) => {
    const { method, url, headers } = incoming;
    counts.requests += 1;
    counts.methods[method] = (counts.methods[method] ?? 0) + 1;
    const forward = request(
      { host: '127.0.0.1', port: upstream, method, path: url, headers, agent: false },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
        carry(answer, outgoing, (bytes) => {
          counts.received += bytes;
        });
      },
    );
    forward.on('error', () => outgoing.destroy());
    outgoing.on('close', () => forward.destroy());
    carry(incoming, forward, (bytes) => {
      counts.sent += bytes;
    });
  });
  await new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return {
    /** What passed since the last call. */
    take() {
      const taken = counts;
      counts = structuredClone(NO_COUNTS);
      return taken;
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  };
}
