/** The docker format of the stand-in: what Nexus makes of registry requests, with its traps (registry.md 2.8). */
import { MANIFEST_ACCEPT } from '../../src/core/media.ts';
import type { AdminState, StandInRepository } from './nexus-stand-in-admin.ts';
import {
  type Ask,
  answer,
  answerJson,
  answerPage,
  askUpstream,
  bytesOf,
  dropBody,
  headUpstream,
  passOn,
  refuse,
  type UpstreamAnswer,
  wholeBody,
} from './nexus-stand-in-wire.ts';

/** What Nexus, or a proxy before it, does differently from a plain registry. Write policies are settings of the repository. */
export const TRAPS = {
  /** The main port routes `/v2/<repository>/<image>` for repositories with `pathEnabled`; otherwise it answers a page. */
  'path-routing': '3.83',
  'realm-null': '#565 #580 #628',
  'realm-port': '#611',
  'realm-http': '#435',
  /** Of two uploads of one digest at a time the second is refused, for whatever image they are. */
  'one-upload': '#967',
  /** Under ALLOW_ONCE a blob that is there is refused too. */
  'blob-once': '#967',
  'sparse-refused': 'regclient #836',
  /** Blobs in `lost` are there for HEAD, and unknown when a manifest names them, until they are sent again. */
  'head-lies': '#264 #869',
  'head-digest-500': '#1059',
  'bad-link': '#1011',
  'no-paging': '#209',
  /** The last PUT is answered late. */
  'late-commit': '#423',
  /** The last PUT is answered 202; HEAD and manifests do not find the blob for a few more questions. */
  'slow-commit': '#423',
  'no-uuid': '#383',
  'http-location': 'nginx',
  /** A proxy refuses larger bodies than `bodyLimit`. */
  'body-limit': '413',
  'no-referrers': 'inference',
  'no-mount': '202',
} as const;

export type Trap = keyof typeof TRAPS;

export interface DockerState {
  /** `host:port` of the registry behind. */
  readonly upstream: string;
  /** The repository whose images have their own names behind; those of others lie below the repository's name. */
  readonly primary: string;
  readonly traps: Set<Trap>;
  readonly admin: AdminState;
  /** For `head-lies`. */
  readonly lost: Set<string>;
  /** For `body-limit`, in bytes. */
  bodyLimit: number;
  /** For `late-commit`, in milliseconds. */
  commitMs: number;
  /** For `slow-commit`: questions that do not find a blob after its PUT. */
  commitAsks: number;
  /** Of each Nexus repository: the image in which the registry behind has a blob; blobs are one for all its images. */
  readonly blobs: Map<string, string>;
  /** Digests whose last PUT runs, by repository, and manifests that are being put. */
  readonly running: Set<string>;
  /** The most that ran at once. */
  mostRunning: number;
  /** Blobs that were taken and are not found yet, with the questions left. */
  readonly pending: Map<string, number>;
}

/** Where a request goes. */
interface Place {
  readonly repository: StandInRepository;
  /** Before the image in every address that is told: '' on a connector. */
  readonly prefix: string;
  readonly image: string;
  readonly rest: string;
}

const ROUTE = /^\/v2\/(.+?)\/((?:manifests|blobs|tags|referrers)\/.*)$/;

const READ = new Set(['GET', 'HEAD']);

function keyOf(place: Place, digest: string): string {
  return `${place.repository.name} ${digest}`;
}

/** Before the names of a repository's images in the registry behind. */
function behindPrefix(docker: DockerState, { repository }: Place): string {
  return repository.name === docker.primary ? '' : `${repository.name}/`;
}

function uploadInvalid(ask: Ask, detail: string): void {
  refuse(ask, 400, [{ code: 'BLOB_UPLOAD_INVALID', message: 'blob upload invalid', detail }]);
}

/** The base of addresses that are told to the client. */
function toldBase(ask: Ask, docker: DockerState, secure: boolean): string {
  const scheme = secure && !docker.traps.has('http-location') ? 'https' : 'http';
  return `${scheme}://${ask.request.headers.host}`;
}

/** Headers of an answer of the registry behind, with the addresses of Nexus. */
function ownHeaders(
  ask: Ask,
  about: { readonly docker: DockerState; readonly place: Place; readonly secure: boolean },
  headers: UpstreamAnswer['headers'],
): Record<string, string | undefined> {
  const { docker, place, secure } = about;
  const own: Record<string, string | undefined> = {};
  if (docker.traps.has('no-uuid')) own['docker-upload-uuid'] = undefined;
  if (docker.traps.has('no-referrers')) own['oci-subject'] = undefined;
  if (headers.location !== undefined) {
    const { pathname, search } = new URL(headers.location, 'http://upstream');
    const path = `/v2/${place.prefix}${pathname.slice(`/v2/${behindPrefix(docker, place)}`.length)}`;
    own.location = `${toldBase(ask, docker, secure)}${path}${search}`;
  }
  return own;
}

/** The stand-in's docker side. */
export class StandInDocker {
  readonly #docker: DockerState;

  constructor(docker: DockerState) {
    this.#docker = docker;
  }

  /** @param port the repository of a connector; undefined is the main port */
  async answer(
    ask: Ask,
    port: { readonly repository: string | undefined; readonly secure: boolean },
  ): Promise<void> {
    const { admin, traps } = this.#docker;
    const repositories = [...admin.repositories.values()].filter((r) => r.format === 'docker');
    const routed = repositories.filter((r) => r.docker?.pathEnabled === true && traps.has('path-routing'));
    if (port.repository === undefined && routed.length === 0) {
      answerPage(ask, 404, 'Not Found');
      return;
    }
    ask.response.setHeader('docker-distribution-api-version', 'registry/2.0');
    if (/^\/v2\/?$/.test(ask.path)) {
      answerJson(ask, 200, {});
      return;
    }
    const place = this.#placeOf(ask.path, port.repository, routed);
    if (place === undefined) {
      refuse(ask, 404, [{ code: 'NAME_UNKNOWN', message: 'repository name not known to registry' }]);
      return;
    }
    await this.#route(ask, place, port.secure);
  }

  #placeOf(
    path: string,
    connector: string | undefined,
    routed: readonly StandInRepository[],
  ): Place | undefined {
    if (path === '/v2/_catalog') {
      const repository = this.#docker.admin.repositories.get(connector ?? '');
      return repository === undefined ? undefined : { repository, prefix: '', image: '', rest: '_catalog' };
    }
    const [, name = '', rest = ''] = ROUTE.exec(path) ?? [];
    if (connector !== undefined) {
      const repository = this.#docker.admin.repositories.get(connector);
      return repository === undefined || name === ''
        ? undefined
        : { repository, prefix: '', image: name, rest };
    }
    const [first = '', ...others] = name.split('/');
    const repository = routed.find((r) => r.name === first);
    if (repository === undefined || others.length === 0) return undefined;
    return { repository, prefix: `${first}/`, image: others.join('/'), rest };
  }

  async #route(ask: Ask, place: Place, secure: boolean): Promise<void> {
    const { admin, traps, bodyLimit } = this.#docker;
    const { rest, repository } = place;
    const isWrite = !READ.has(ask.method);
    if (traps.has('body-limit') && Number(ask.request.headers['content-length'] ?? 0) > bodyLimit) {
      answerPage(ask, 413, 'Request Entity Too Large');
      ask.request.resume();
      return;
    }
    if (isWrite && admin.readOnly) {
      await dropBody(ask);
      answer(ask, 503, { body: 'Nexus Repository Manager is in read-only mode' });
      return;
    }
    if (isWrite && repository.type !== 'hosted') {
      await dropBody(ask);
      // Pushes to a group are for Pro; a proxy has no such address at all (skopeo #2595).
      if (repository.type === 'proxy') answerPage(ask, 404, 'Not Found');
      else refuse(ask, 400, [{ code: 'UNSUPPORTED', message: 'The operation is unsupported.' }]);
      return;
    }
    if (rest.startsWith('referrers/') && traps.has('no-referrers')) {
      refuse(ask, 404, [{ code: 'NOT_FOUND', message: 'not found' }]);
      return;
    }
    if (rest.startsWith('manifests/') && isWrite) await this.#manifestWrite(ask, place, secure);
    else if (rest.startsWith('manifests/')) await this.#manifestRead(ask, place, secure);
    else if (rest.startsWith('blobs/uploads/')) await this.#upload(ask, place, secure);
    else if (rest.startsWith('blobs/') && !isWrite) await this.#blobRead(ask, place, secure);
    else if (rest === 'tags/list') await this.#tags(ask, place, secure);
    else await this.#pass(ask, place, { secure });
  }

  /** The path behind for an image of this repository. */
  #behind(place: Place, image = place.image, rest = place.rest): string {
    const path = image === '' ? rest : `${behindPrefix(this.#docker, place)}${image}/${rest}`;
    return `/v2/${path.split('/').map(encodeURIComponent).join('/').replaceAll('%3A', ':')}`;
  }

  async #pass(
    ask: Ask,
    place: Place,
    how: {
      readonly secure: boolean;
      readonly image?: string;
      readonly query?: string;
      readonly body?: Buffer;
    },
  ): Promise<void> {
    const { upstream } = this.#docker;
    const query = how.query ?? ask.query.toString();
    const { authorization: _, ...headers } = ask.request.headers;
    const from = await askUpstream(upstream, {
      method: ask.method,
      path: `${this.#behind(place, how.image)}${query === '' ? '' : `?${query}`}`,
      headers,
      body: how.body ?? ask.request,
    });
    passOn(ask, from, {
      headers: ownHeaders(ask, { docker: this.#docker, place, secure: how.secure }, from.headers),
    });
  }

  async #manifestRead(ask: Ask, place: Place, secure: boolean): Promise<void> {
    const isDigest = place.rest.startsWith('manifests/sha256:');
    if (ask.method === 'HEAD' && isDigest && this.#docker.traps.has('head-digest-500')) {
      answer(ask, 500);
      return;
    }
    await this.#pass(ask, place, { secure });
  }

  /** Whether a blob may be found: one that was just taken is not for a while. */
  #isPending(key: string): boolean {
    const { pending, traps } = this.#docker;
    const left = pending.get(key);
    if (left === undefined || !traps.has('slow-commit')) return false;
    if (left <= 1) pending.delete(key);
    else pending.set(key, left - 1);
    return true;
  }

  async #blobRead(ask: Ask, place: Place, secure: boolean): Promise<void> {
    const { lost, traps, blobs } = this.#docker;
    const digest = place.rest.slice('blobs/'.length);
    const key = keyOf(place, digest);
    if (ask.method === 'HEAD' && traps.has('head-lies') && lost.has(digest)) {
      answer(ask, 200, { headers: { 'docker-content-digest': digest } });
      return;
    }
    if (this.#isPending(key)) {
      refuse(ask, 404, [{ code: 'BLOB_UNKNOWN', message: 'blob unknown to registry' }]);
      return;
    }
    const image = blobs.get(key);
    await this.#pass(ask, place, { secure, ...(image === undefined ? {} : { image }) });
  }

  async #tags(ask: Ask, place: Place, secure: boolean): Promise<void> {
    const { traps, upstream } = this.#docker;
    if (traps.has('no-paging')) {
      await this.#allTags(ask, place);
      return;
    }
    if (!traps.has('bad-link')) {
      await this.#pass(ask, place, { secure });
      return;
    }
    const query = ask.query.toString();
    const from = await askUpstream(upstream, {
      method: ask.method,
      path: `${this.#behind(place)}${query === '' ? '' : `?${query}`}`,
    });
    const { link } = from.headers;
    const told = `</repository/${place.repository.name}/v2/`;
    passOn(ask, from, {
      headers: { link: Array.isArray(link) ? undefined : link?.replace(/<[^>]*\/v2\//, told) },
    });
  }

  /** The whole list whatever page is asked for, and always a next one. */
  async #allTags(ask: Ask, place: Place): Promise<void> {
    const tags: unknown[] = [];
    for (let query = '?n=1000'; query !== ''; ) {
      const path = `${this.#behind(place)}${query}`;
      const from = await askUpstream(this.#docker.upstream, { method: 'GET', path });
      const body: unknown = JSON.parse((await bytesOf(from.message)).toString('utf8'));
      const page: unknown = typeof body === 'object' && body !== null ? Reflect.get(body, 'tags') : undefined;
      tags.push(...(Array.isArray(page) ? page : []));
      query = /<[^>]*(\?[^>]*)>/.exec(`${from.headers.link ?? ''}`)?.[1] ?? '';
    }
    const link = `<${ask.path}?n=1000&last=${tags.at(-1)}>; rel="next"`;
    answerJson(ask, 200, { name: place.image, tags }, { link });
  }

  async #upload(ask: Ask, place: Place, secure: boolean): Promise<void> {
    const { traps } = this.#docker;
    const digest = ask.query.get('digest');
    if (ask.method === 'POST' && ask.query.has('mount') && traps.has('no-mount')) {
      await this.#pass(ask, place, { secure, query: '' });
    } else if (digest === null || ask.method === 'DELETE') await this.#pass(ask, place, { secure });
    else await this.#lastPut(ask, place, { secure, digest });
  }

  /** The request that ends an upload: here policies and races decide. */
  async #lastPut(
    ask: Ask,
    place: Place,
    about: { readonly secure: boolean; readonly digest: string },
  ): Promise<void> {
    const { traps, running, blobs, lost, pending } = this.#docker;
    const { digest } = about;
    const { name, storage } = place.repository;
    const key = keyOf(place, digest);
    const asset = `${name}/v2/-/blobs/${digest}`;
    if (storage.writePolicy === 'DENY') {
      await dropBody(ask);
      uploadInvalid(ask, `${asset} is read-only`);
      return;
    }
    const isOnce = storage.writePolicy === 'ALLOW_ONCE' && traps.has('blob-once');
    const isLost = traps.has('head-lies') && lost.has(digest);
    const isThere = isOnce && !isLost && (await this.#hasBlob(place, digest));
    if (isThere || (traps.has('one-upload') && running.has(key))) {
      await dropBody(ask);
      uploadInvalid(ask, `${asset} cannot be updated`);
      return;
    }
    running.add(key);
    this.#docker.mostRunning = Math.max(this.#docker.mostRunning, running.size);
    try {
      const { upstream } = this.#docker;
      const { authorization: _, ...headers } = ask.request.headers;
      const path = `${this.#behind(place)}?${ask.query.toString()}`;
      const from = await askUpstream(upstream, { method: ask.method, path, headers, body: ask.request });
      if (from.status === 201) {
        blobs.set(key, place.image);
        lost.delete(digest);
        if (traps.has('slow-commit')) pending.set(key, this.#docker.commitAsks);
      }
      if (traps.has('late-commit'))
        await new Promise((resolve) => setTimeout(resolve, this.#docker.commitMs));
      const isSlow = from.status === 201 && traps.has('slow-commit');
      passOn(ask, from, {
        ...(isSlow ? { status: 202 } : {}),
        headers: ownHeaders(ask, { docker: this.#docker, place, secure: about.secure }, from.headers),
      });
    } finally {
      running.delete(key);
    }
  }

  async #hasBlob(place: Place, digest: string): Promise<boolean> {
    const { blobs, upstream } = this.#docker;
    const image = blobs.get(keyOf(place, digest)) ?? place.image;
    const path = this.#behind(place, image, `blobs/${digest}`);
    return (await headUpstream(upstream, { method: 'HEAD', path })).status === 200;
  }

  async #hasManifest(place: Place, reference: string): Promise<boolean> {
    const path = this.#behind(place, place.image, `manifests/${reference}`);
    const headers = { accept: MANIFEST_ACCEPT };
    return (await headUpstream(this.#docker.upstream, { method: 'HEAD', path, headers })).status === 200;
  }

  async #manifestWrite(ask: Ask, place: Place, secure: boolean): Promise<void> {
    if (ask.method !== 'PUT') {
      await this.#pass(ask, place, { secure });
      return;
    }
    const bytes = await wholeBody(ask);
    const reference = place.rest.slice('manifests/'.length);
    const { name, storage } = place.repository;
    const asset = `${name}/v2/${place.image}/manifests/${reference}`;
    if (storage.writePolicy === 'DENY') {
      uploadInvalid(ask, `${asset} is read-only`);
      return;
    }
    const mayMove = reference === 'latest' && storage.latestPolicy === true;
    const { running } = this.#docker;
    const isRunning = running.has(asset);
    running.add(asset);
    const isTaken = isRunning || (await this.#hasManifest(place, reference));
    if (storage.writePolicy === 'ALLOW_ONCE' && !mayMove && isTaken) {
      if (!isRunning) running.delete(asset);
      const isTag = !reference.startsWith('sha256:');
      // Orient and the databases after it say it in their own words (#696).
      uploadInvalid(
        ask,
        isTag ? `Repository does not allow updating assets: ${name}` : `${asset} cannot be updated`,
      );
      return;
    }
    try {
      await this.#putManifest(ask, place, { secure, bytes });
    } finally {
      running.delete(asset);
    }
  }

  async #putManifest(
    ask: Ask,
    place: Place,
    about: { readonly secure: boolean; readonly bytes: Buffer },
  ): Promise<void> {
    const { secure, bytes } = about;
    const unknown = await this.#unknown(place, bytes);
    if (unknown.length > 0) {
      refuse(
        ask,
        400,
        unknown.map((digest) => ({
          code: 'BLOB_UNKNOWN',
          message: 'blob unknown to registry',
          detail: { digest },
        })),
      );
      return;
    }
    await this.#pass(ask, place, { secure, body: bytes });
  }

  /** What a manifest names that this Nexus does not find; blobs of other images are made known to this one behind. */
  async #unknown(place: Place, bytes: Buffer): Promise<string[]> {
    const { traps, lost, blobs } = this.#docker;
    const body: unknown = JSON.parse(bytes.toString('utf8'));
    const parts = manifestParts(body);
    const unknown: string[] = [];
    for (const digest of new Set(parts.blobs)) {
      const key = keyOf(place, digest);
      const isLost = traps.has('head-lies') && lost.has(digest);
      if (isLost || this.#isPending(key) || !(await this.#hasBlob(place, digest))) unknown.push(digest);
      const from = blobs.get(key);
      if (from !== undefined && from !== place.image) await this.#link(place, digest, from);
    }
    for (const digest of traps.has('sparse-refused') ? new Set(parts.manifests) : []) {
      if (!(await this.#hasManifest(place, digest))) unknown.push(digest);
    }
    return unknown;
  }

  /** Behind, a blob is of one image; in Nexus it is of the repository. */
  async #link(place: Place, digest: string, from: string): Promise<void> {
    const path = `${this.#behind(place, place.image, 'blobs/uploads/')}?mount=${digest}&from=${encodeURIComponent(`${behindPrefix(this.#docker, place)}${from}`)}`;
    await headUpstream(this.#docker.upstream, { method: 'POST', path, headers: { 'content-length': '0' } });
  }
}

function digestsOf(list: unknown): string[] {
  return (Array.isArray(list) ? list : [list]).flatMap((item: unknown) => {
    const digest: unknown =
      typeof item === 'object' && item !== null ? Reflect.get(item, 'digest') : undefined;
    return typeof digest === 'string' ? [digest] : [];
  });
}

/** The digests that a manifest or index names; its subject may be absent. */
function manifestParts(body: unknown): { readonly blobs: string[]; readonly manifests: string[] } {
  const of = (key: string): unknown =>
    typeof body === 'object' && body !== null ? Reflect.get(body, key) : undefined;
  return {
    blobs: [...digestsOf(of('config')), ...digestsOf(of('layers'))],
    manifests: digestsOf(of('manifests')),
  };
}
