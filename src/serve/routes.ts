import { isRepository } from '../core/reference.ts';
import { type Answer, type Exchange, jsonAnswer, pageOf, refusal } from './answer.ts';
import type { Access } from './auth.ts';
import { handleBlob, handleUpload, startUpload } from './blobs.ts';
import { handleManifest, handleReferrers, handleTags } from './manifests.ts';
import { listRepositories, type Repository } from './repository.ts';
import type { Storage } from './storage.ts';
import type { Uploads } from './uploads.ts';

export interface RouteOptions {
  readonly storage: Storage;
  readonly uploads: Uploads;
  readonly acceptSparse: boolean;
  readonly referrers: boolean;
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
  ['tags', /^\/v2\/(.+)\/tags\/list$/, ['GET']],
  ['referrers', /^\/v2\/(.+)\/referrers\/([^/]+)$/, ['GET']],
];

function notAllowed(methods: readonly string[]): Answer {
  return refusal('UNSUPPORTED', 'this method is not for this path', {
    headers: { allow: methods.join(', ') },
  });
}

async function catalog(exchange: Exchange, storage: Storage): Promise<Answer> {
  const page = pageOf(exchange, await listRepositories(storage));
  if ('refused' in page) return page.refused;
  return jsonAnswer({ repositories: page.names }, { headers: page.headers });
}

/** Paths without a repository: the version check and the catalog. */
function rootRoute(exchange: Exchange, storage: Storage): Route | Answer | undefined {
  const { path, method } = exchange;
  if (path === '/v2' || path === '/v2/') {
    if (method !== 'GET' && method !== 'HEAD') return notAllowed(['GET', 'HEAD']);
    const headers = { 'docker-distribution-api-version': 'registry/2.0' };
    return { needs: [], handle: async () => jsonAnswer({}, { headers }) };
  }
  if (path !== '/v2/_catalog') return undefined;
  if (method !== 'GET') return notAllowed(['GET']);
  return {
    needs: [{ type: 'registry', name: 'catalog', actions: ['*'] }],
    handle: () => catalog(exchange, storage),
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

function handlerOf(
  endpoint: Endpoint,
  exchange: Exchange,
  options: RouteOptions & { readonly repository: Repository; readonly last: string },
): () => Promise<Answer> {
  const { repository, last, uploads } = options;
  switch (endpoint) {
    case 'upload-start':
      return () => startUpload(exchange, repository, uploads);
    case 'upload':
      return () => handleUpload(exchange, repository, { uploads, id: last });
    case 'blob':
      return () => handleBlob(exchange, repository, { digest: last });
    case 'manifest':
      return () => handleManifest(exchange, repository, { ...options, reference: last });
    case 'tags':
      return () => handleTags(exchange, repository);
    case 'referrers':
      return () => handleReferrers(exchange, repository, { digest: last });
  }
}

/** The route of a request; an answer where the path or the method is wrong; undefined where nothing is. */
export function findRoute(exchange: Exchange, options: RouteOptions): Route | Answer | undefined {
  const root = rootRoute(exchange, options.storage);
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
    const repository: Repository = { storage: options.storage, name };
    return {
      needs: needsOf(exchange, name),
      handle: handlerOf(endpoint, exchange, { ...options, repository, last }),
    };
  }
  return undefined;
}
