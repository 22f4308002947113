import type { Digest } from '../../core/digest.ts';
import { resumableBytes } from '../../io/resume.ts';
import { digestStream } from '../../io/verify.ts';
import type { WebServer } from './server.ts';

/** The SHA-256 of a file on a server that tells none: by reading it; cuts are survived. @throws as `WebServer.fail` */
export async function hashThere(server: WebServer, path: string): Promise<Digest> {
  const what = server.url(path).href;
  const bytes = resumableBytes({
    what,
    start: 0,
    context: server.context,
    open: async (at) => {
      const headers = at === 0 ? {} : { range: `bytes=${at}-` };
      const response = await server.send({ method: 'GET', path, headers });
      if (![200, 206, 416].includes(response.status)) throw await server.fail(response, `GET ${what}`);
      return response;
    },
  });
  return (await digestStream(bytes)).digest;
}
