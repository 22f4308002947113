import type { Digest } from '../../core/digest.ts';
import { digestStream } from '../../io/verify.ts';
import type { WebServer } from './server.ts';

/** The SHA-256 of a file on a server that tells none: by reading it. @throws as `WebServer.fail` */
export async function hashThere(server: WebServer, path: string): Promise<Digest> {
  const response = await server.send({ method: 'GET', path });
  if (response.status !== 200) throw await server.fail(response, server.url(path).pathname);
  return (await digestStream(response.body)).digest;
}
