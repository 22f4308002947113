import { type Answer, type Exchange, NOT_FOUND, refusal } from './answer.ts';
import type { Shelf } from './charts.ts';
import type { Doorkeeper } from './password-file.ts';
import { findRoute } from './routes.ts';
import type { ShownRegistry } from './shown.ts';

/** Everything that a read-only server has. */
export interface Library {
  readonly registry: ShownRegistry;
  /** Charts, files and packages. */
  readonly shelf: Shelf;
  /** The Python index; undefined where there are no packages. */
  readonly simple: ((exchange: Exchange) => Answer) | undefined;
  /** What stands at `/`: how clients are told to ask here. */
  readonly welcome: () => string;
  /** Who may come in; undefined: everybody. */
  readonly doorkeeper: Doorkeeper | undefined;
}

/** Answers one request to a library: who may, then whether it only reads, then what. */
export async function answerFrom(library: Library, exchange: Exchange): Promise<Answer> {
  const refused = await library.doorkeeper?.(exchange);
  if (refused !== undefined) return refused;
  const { method, path } = exchange;
  if (method !== 'GET' && method !== 'HEAD') {
    return refusal('UNSUPPORTED', 'read only: what is served lies in a bundle', {
      headers: { allow: 'GET, HEAD' },
    });
  }
  if (/^\/(?:charts|files|packages)\//.test(path)) {
    return await library.shelf.answer(exchange, { base: '' });
  }
  if (path.startsWith('/simple/')) return library.simple?.(exchange) ?? NOT_FOUND;
  if (path === '/simple' || path === '/files') return { status: 301, headers: { location: `${path}/` } };
  if (path === '/') {
    const headers = { 'content-type': 'text/plain; charset=utf-8' };
    return { status: 200, headers, body: Buffer.from(library.welcome()) };
  }
  const route = findRoute(exchange, { shown: library.registry, referrers: true, writing: undefined });
  if (route === undefined) return NOT_FOUND;
  return 'status' in route ? route : await route.handle();
}
