import { isRepository } from '../core/reference.ts';
import { type Answer, type Exchange, jsonAnswer, pageOf, refusal } from './answer.ts';
import type { Access } from './auth.ts';
import { deleteBlob, handleUpload, startUpload } from './blobs.ts';
import { changeManifest } from './manifests.ts';
import { answerBlob, answerManifest, answerReferrers, answerTags } from './reading.ts';
import type { ShownRegistry } from './shown.ts';
import type { Storage } from './storage.ts';
import type { Uploads } from './uploads.ts';

/** What is needed to be written to. */
export interface Writing {
  readonly storage: Storage;
  readonly uploads: Uploads;
  /** Whether an index may name manifests that the repository does not hold. */
  readonly acceptSparse: boolean;
}

export interface RouteOptions {
  readonly shown: ShownRegistry;
  /** Whether the referrers API is there. */
  readonly referrers: boolean;
  /** undefined: what is there is read only. */
  readonly writing: Writing | undefined;
}

/** What a request leads to, and what its sender must be allowed to do. */
export interface Route {
  readonly needs: readonly Access[];
  readonly handle: () => Promise<Answer>;
}

type Endpoint = 'upload-start' | 'upload' | 'blob' | 'manifest' | 'tags' | 'referrers';

/**
 * The endpoints of the distribution-spec ("Endpoints"). A repository name may itself hold words like `blobs`, so the
 * name takes as much as it can and the endpoint is read from the end.
 */
const ENDPOINTS: readonly (readonly [Endpoint, RegExp, methods: readonly string[]])[] = [
  ['upload-start', /^\/v2\/(.+)\/blobs\/uploads\/?$/, ['POST']],
  ['upload', /^\/v2\/(.+)\/blobs\/uploads\/([^/]+)$/, ['GET', 'PATCH', 'PUT', 'DELETE']],
  ['blob', /^\/v2\/(.+)\/blobs\/([^/]+)$/, ['GET', 'HEAD', 'DELETE']],
  ['manifest', /^\/v2\/(.+)\/manifests\/([^/]+)$/, ['GET', 'HEAD', 'PUT', 'DELETE']],
  ['tags', /^\/v2\/(.+)\/tags\/list$/, ['GET', 'HEAD']],
  ['referrers', /^\/v2\/(.+)\/referrers\/([^/]+)$/, ['GET', 'HEAD']],
];

const READS: ReadonlySet<string> = new Set(['GET', 'HEAD']);

function notAllowed(methods: readonly string[]): Answer {
  return refusal('UNSUPPORTED', 'this method is not for this path', {
    headers: { allow: methods.join(', ') },
  });
}

async function catalog(exchange: Exchange, shown: ShownRegistry): Promise<Answer> {
  const page = pageOf(exchange, await shown.names());
  if ('refused' in page) return page.refused;
  return jsonAnswer({ repositories: page.names }, { headers: page.headers });
}

/** Paths without a repository: the version check and the catalog. */
function rootRoute(exchange: Exchange, shown: ShownRegistry): Route | Answer | undefined {
  const { path, method } = exchange;
  if (path === '/v2' || path === '/v2/') {
    if (method !== 'GET' && method !== 'HEAD') return notAllowed(['GET', 'HEAD']);
    const headers = { 'docker-distribution-api-version': 'registry/2.0' };
    return { needs: [], handle: async () => jsonAnswer({}, { headers }) };
  }
  if (path !== '/v2/_catalog') return undefined;
  if (method !== 'GET' && method !== 'HEAD') return notAllowed(['GET', 'HEAD']);
  return {
    needs: [{ type: 'registry', name: 'catalog', actions: ['*'] }],
    handle: () => catalog(exchange, shown),
  };
}

/** The scopes that distribution asks for: pull to read, pull and push to write, delete, and pull where a mount comes from. */
function needsOf(exchange: Exchange, name: string): Access[] {
  const { method, query } = exchange;
  if (method === 'GET' || method === 'HEAD') return [{ type: 'repository', name, actions: ['pull'] }];
  if (method === 'DELETE') return [{ type: 'repository', name, actions: ['delete'] }];
  const needs: Access[] = [{ type: 'repository', name, actions: ['pull', 'push'] }];
  const from = method === 'POST' && query.has('mount') ? query.get('from') : null;
  if (from !== null && from !== name && isRepository(from)) {
    needs.push({ type: 'repository', name: from, actions: ['pull'] });
  }
  return needs;
}

/** What a path names: a repository, and the last part: a tag, a digest, an upload. */
interface Named {
  readonly name: string;
  readonly last: string;
}

function readerOf(
  endpoint: Endpoint,
  exchange: Exchange,
  options: RouteOptions & Named,
): (() => Promise<Answer>) | undefined {
  const { name, last } = options;
  const repository = options.shown.repository(name, exchange.query.get('ns'));
  switch (endpoint) {
    case 'upload-start':
    case 'upload':
      return undefined;
    case 'blob':
      return () => answerBlob(exchange, repository, { digest: last });
    case 'manifest':
      return () => answerManifest(exchange, repository, { reference: last });
    case 'tags':
      return () => answerTags(exchange, repository);
    case 'referrers':
      return () => answerReferrers(exchange, repository, { digest: last });
  }
}

function writerOf(
  endpoint: Endpoint,
  exchange: Exchange,
  options: Writing & Named & { readonly referrers: boolean },
): (() => Promise<Answer>) | undefined {
  const { storage, uploads, name, last } = options;
  const repository = { storage, name };
  switch (endpoint) {
    case 'upload-start':
      return () => startUpload(exchange, repository, uploads);
    case 'upload':
      return () => handleUpload(exchange, repository, { uploads, id: last });
    case 'blob':
      return () => deleteBlob(repository, { digest: last });
    case 'manifest':
      return () => changeManifest(exchange, repository, { ...options, reference: last });
    case 'tags':
    case 'referrers':
      return undefined;
  }
}

/** The route of a request; an answer where the path or the method is wrong; undefined where nothing is. */
export function findRoute(exchange: Exchange, options: RouteOptions): Route | Answer | undefined {
  const root = rootRoute(exchange, options.shown);
  if (root !== undefined) return root;
  for (const [endpoint, pattern, methods] of ENDPOINTS) {
    const match = pattern.exec(exchange.path);
    if (match === null) continue;
    const [, name = '', last = ''] = match;
    if (endpoint === 'referrers' && !options.referrers) return undefined;
    if (!isRepository(name)) {
      return refusal('NAME_INVALID', 'the repository name is not valid', {
        details: [{ name: name.slice(0, 260) }],
      });
    }
    if (!methods.includes(exchange.method)) return notAllowed(methods);
    const { method } = exchange;
    const named = { name, last };
    const isReading = endpoint !== 'upload' && (method === 'GET' || method === 'HEAD');
    const handle = isReading
      ? readerOf(endpoint, exchange, { ...options, ...named })
      : options.writing === undefined
        ? undefined
        : writerOf(endpoint, exchange, { ...options.writing, ...named, referrers: options.referrers });
    if (handle === undefined) return notAllowed(methods.filter((m) => endpoint !== 'upload' && READS.has(m)));
    return { needs: needsOf(exchange, name), handle };
  }
  return undefined;
}
