import type { Digest } from '../../core/digest.ts';
import { SealiftError } from '../../core/errors.ts';
import { resumableBytes } from '../../io/resume.ts';
import { digestStream } from '../../io/verify.ts';
import type { WebServer } from './server.ts';

/**
 * The bytes of a file on a server, from one offset on; cuts are survived.
 * @throws CONTENT_NOT_FOUND, and as `WebServer.fail`
 */
export function storedBytes(server: WebServer, path: string, start = 0): AsyncGenerator<Buffer> {
  const what = server.url(path).href;
  return resumableBytes({
    what,
    start,
    context: server.context,
    open: async (at) => {
      const headers = at === 0 ? {} : { range: `bytes=${at}-` };
      const response = await server.send({ method: 'GET', path, headers });
      if ([200, 206, 416].includes(response.status)) return response;
      if (response.status !== 404) throw await server.fail(response, `GET ${what}`);
      await response.body.dump();
      throw new SealiftError('CONTENT_NOT_FOUND', `${what}: is not there`);
    },
  });
}

/** The SHA-256 of a file on a server that tells none: by reading it. @throws as `storedBytes` */
export async function hashThere(server: WebServer, path: string): Promise<Digest> {
  return (await digestStream(storedBytes(server, path))).digest;
}
