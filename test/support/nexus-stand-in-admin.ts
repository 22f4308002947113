/** The stand-in's administration: what a load and `site` ask of Nexus under /service/rest (registry.md 2.2). */
import { type Ask, answer, answerJson, answerPage, wholeBody } from './nexus-stand-in-wire.ts';

/** A repository as its own settings say; the extra keys are those of its format (`docker`, `raw`, `group` …). */
export interface StandInRepository {
  readonly name: string;
  readonly format: 'docker' | 'oci' | 'helm' | 'raw' | 'pypi' | 'maven2';
  readonly type: 'hosted' | 'proxy' | 'group';
  readonly online: boolean;
  readonly storage: {
    readonly blobStoreName: string;
    readonly strictContentTypeValidation: boolean;
    readonly writePolicy?: 'ALLOW' | 'ALLOW_ONCE' | 'DENY';
    readonly latestPolicy?: boolean;
  };
  readonly docker?: {
    readonly v1Enabled: boolean;
    readonly forceBasicAuth: boolean;
    readonly httpPort?: number | null;
    readonly httpsPort?: number | null;
    readonly subdomain?: string | null;
    readonly pathEnabled?: boolean | null;
  };
  readonly group?: { readonly memberNames: readonly string[] };
  readonly [key: string]: unknown;
}

export interface StandInBlobStore {
  readonly name: string;
  readonly path: string;
  readonly softQuota?: { readonly type: string; readonly limit: number };
  /** Says that its soft quota is violated, which warns and blocks nothing. */
  readonly violation?: string;
  readonly availableSpaceInBytes?: number;
}

/** What the server is set to; a test changes it as an administrator would. */
export interface AdminState {
  /** Default '3.94.0-12'. */
  version: string;
  repositories: Map<string, StandInRepository>;
  blobStores: Map<string, StandInBlobStore>;
  realms: string[];
  anonymous: { enabled: boolean; userId: string; realmName: string };
  eula: { accepted: boolean; disclaimer: string };
  /** Every write is refused with 503, and /status/writable says so. */
  readOnly: boolean;
  /** Questions to /status/writable after which read-only mode ends by itself; undefined: never. */
  writableAfter: number | undefined;
  /** Not ready: /status and all else answer 503. */
  down: boolean;
}

export function adminState(repositories: readonly StandInRepository[]): AdminState {
  return {
    version: '3.94.0-12',
    repositories: new Map(repositories.map((r) => [r.name, r])),
    blobStores: new Map([
      ['default', { name: 'default', path: 'default', availableSpaceInBytes: 200_000_000_000 }],
    ]),
    realms: ['NexusAuthenticatingRealm', 'DockerToken'],
    anonymous: { enabled: false, userId: 'anonymous', realmName: 'NexusAuthorizingRealm' },
    eula: { accepted: true, disclaimer: 'Use of the stand-in is governed by nothing.' },
    readOnly: false,
    writableAfter: undefined,
    down: false,
  };
}

/** A docker repository with its usual settings. */
export function dockerRepository(
  name: string,
  more: {
    readonly type?: StandInRepository['type'];
    readonly writePolicy?: 'ALLOW' | 'ALLOW_ONCE' | 'DENY';
    readonly latestPolicy?: boolean;
    readonly pathEnabled?: boolean;
    readonly forceBasicAuth?: boolean;
    readonly memberNames?: readonly string[];
  } = {},
): StandInRepository {
  const { type = 'hosted', writePolicy = 'ALLOW', latestPolicy = false } = more;
  const hosted = type === 'hosted' ? { writePolicy, latestPolicy } : {};
  return {
    name,
    format: 'docker',
    type,
    online: true,
    storage: { blobStoreName: 'default', strictContentTypeValidation: true, ...hosted },
    docker: {
      v1Enabled: false,
      forceBasicAuth: more.forceBasicAuth ?? true,
      httpPort: null,
      httpsPort: null,
      subdomain: null,
      pathEnabled: more.pathEnabled ?? false,
    },
    ...(type === 'group' ? { group: { memberNames: more.memberNames ?? [] } } : {}),
    ...(type === 'proxy' ? { proxy: { remoteUrl: 'https://registry-1.docker.io' } } : {}),
    cleanup: { policyNames: [] },
    component: { proprietaryComponents: false },
  };
}

/** Who asks: undefined is nobody. */
export interface Who {
  readonly user: string | undefined;
  /** The server has users at all; without them everybody may do everything. */
  readonly guarded: boolean;
}

const ROOT = '/service/rest';
const REALMS = [
  { id: 'DockerToken', name: 'Docker Bearer Token Realm' },
  { id: 'NexusAuthenticatingRealm', name: 'Local Authenticating Realm' },
  { id: 'OciToken', name: 'OCI Bearer Token Realm' },
];

/** One call: what it asks for by method and path, whether nobody may, and its answer. */
interface Call {
  readonly method: string;
  readonly path: RegExp;
  readonly open?: true;
  readonly run: (about: {
    readonly ask: Ask;
    readonly state: AdminState;
    readonly url: string;
    readonly parts: readonly string[];
  }) => void | Promise<void>;
}

function shown(repository: StandInRepository, url: string): Record<string, unknown> {
  const { name, format, type, online } = repository;
  return { name, format, type, online, url: `${url}/repository/${name}` };
}

async function readJson(ask: Ask): Promise<unknown> {
  return JSON.parse((await wholeBody(ask)).toString('utf8'));
}

/** Nexus's list of what is wrong with a body. */
function invalid(ask: Ask, id: string, message: string): void {
  answerJson(ask, 400, [{ id, message }]);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const NAME = /^[a-zA-Z0-9-][a-zA-Z0-9_.-]*$/;

/** A body for a repository of this format and type; undefined when it was refused. */
async function repositoryBody(
  ask: Ask,
  state: AdminState,
  kind: { readonly format: string; readonly type: string; readonly old: string | undefined },
): Promise<StandInRepository | undefined> {
  const body = await readJson(ask);
  if (!isRecord(body) || typeof body.name !== 'string' || !NAME.test(body.name)) {
    invalid(ask, 'PARAMETER name', 'must be a name');
    return undefined;
  }
  const { name, storage } = body;
  const lower = (text: string): string => text.toLowerCase();
  const taken = [...state.repositories.keys()].some((other) => lower(other) === lower(name));
  if (kind.old === undefined && taken) {
    invalid(ask, 'name', 'Name is already used, must be unique (ignoring case)');
    return undefined;
  }
  if (typeof body.online !== 'boolean') {
    invalid(ask, 'PARAMETER online', 'must not be null');
    return undefined;
  }
  const store = isRecord(storage) ? storage.blobStoreName : undefined;
  if (!isRecord(storage) || typeof store !== 'string' || !state.blobStores.has(store)) {
    invalid(ask, 'PARAMETER storage.blobStoreName', 'Blob store not found');
    return undefined;
  }
  const isDocker = kind.format === 'docker' || kind.format === 'oci';
  if (isDocker && !isRecord(body[kind.format])) {
    invalid(ask, `PARAMETER ${kind.format}`, 'must not be null');
    return undefined;
  }
  // The body was looked at above; format and type are those of the address.
  return { ...body, format: kind.format, type: kind.type } as unknown as StandInRepository;
}

const ofKind = '/v1/repositories/(docker|oci|helm|raw|pypi)/(hosted|proxy|group)';

const CALLS: readonly Call[] = [
  { method: 'GET', path: /^\/v1\/status$/, open: true, run: ({ ask }) => answer(ask, 200) },
  {
    method: 'GET',
    path: /^\/v1\/status\/writable$/,
    open: true,
    run: ({ ask, state }) => {
      if (state.writableAfter !== undefined) state.writableAfter -= 1;
      if (state.writableAfter !== undefined && state.writableAfter < 0) state.readOnly = false;
      answer(ask, state.readOnly ? 503 : 200);
    },
  },
  {
    method: 'GET',
    path: /^\/v1\/status\/check$/,
    run: ({ ask }) => answerJson(ask, 200, { 'Available CPUs': { healthy: true, message: null } }),
  },
  {
    method: 'GET',
    path: /^\/v1\/repositories$/,
    run: ({ ask, state, url }) =>
      answerJson(
        ask,
        200,
        [...state.repositories.values()].map((r) => ({ ...shown(r, url), attributes: {} })),
      ),
  },
  {
    method: 'GET',
    path: /^\/v1\/repositorySettings$/,
    run: ({ ask, state, url }) =>
      answerJson(
        ask,
        200,
        [...state.repositories.values()].map((r) => ({ ...r, ...shown(r, url) })),
      ),
  },
  {
    method: 'POST',
    path: new RegExp(`^${ofKind}$`),
    run: async ({ ask, state, parts: [format = '', type = ''] }) => {
      const made = await repositoryBody(ask, state, { format, type, old: undefined });
      if (made === undefined) return;
      state.repositories.set(made.name, made);
      answer(ask, 201);
    },
  },
  {
    method: 'GET',
    path: new RegExp(`^${ofKind}/([^/]+)$`),
    run: ({ ask, state, url, parts: [format, type, name = ''] }) => {
      const found = state.repositories.get(name);
      if (found === undefined || found.format !== format || found.type !== type) answer(ask, 404);
      else answerJson(ask, 200, { ...found, ...shown(found, url) });
    },
  },
  {
    method: 'PUT',
    path: new RegExp(`^${ofKind}/([^/]+)$`),
    run: async ({ ask, state, parts: [format = '', type = '', name = ''] }) => {
      const found = state.repositories.get(name);
      const made = await repositoryBody(ask, state, { format, type, old: name });
      if (made === undefined) return;
      if (found?.format !== format || found.type !== type || made.name !== name) {
        answer(ask, 404);
        return;
      }
      state.repositories.set(name, made);
      answer(ask, 204);
    },
  },
  {
    method: 'GET',
    path: /^\/v1\/repositories\/([^/]+)$/,
    run: ({ ask, state, url, parts: [name = ''] }) => {
      const found = state.repositories.get(name);
      if (found === undefined) answer(ask, 404);
      else answerJson(ask, 200, { ...shown(found, url), attributes: {} });
    },
  },
  {
    method: 'DELETE',
    path: /^\/v1\/repositories\/([^/]+)$/,
    run: ({ ask, state, parts: [name = ''] }) => answer(ask, state.repositories.delete(name) ? 204 : 404),
  },
  {
    method: 'GET',
    path: /^\/v1\/blobstores$/,
    run: ({ ask, state }) =>
      answerJson(
        ask,
        200,
        [...state.blobStores.values()].map(({ name, softQuota, availableSpaceInBytes }) => ({
          softQuota: softQuota ?? null,
          name,
          type: 'File',
          unavailable: false,
          blobCount: 0,
          totalSizeInBytes: 0,
          availableSpaceInBytes: availableSpaceInBytes ?? 0,
        })),
      ),
  },
  {
    method: 'POST',
    path: /^\/v1\/blobstores\/file$/,
    run: async ({ ask, state }) => {
      const body = await readJson(ask);
      if (!isRecord(body) || typeof body.name !== 'string' || typeof body.path !== 'string') {
        invalid(ask, 'PARAMETER name', 'must not be empty');
        return;
      }
      // Only name and path are used; the quota is shown as it came.
      state.blobStores.set(body.name, body as unknown as StandInBlobStore);
      answer(ask, 204);
    },
  },
  {
    method: 'GET',
    path: /^\/v1\/blobstores\/file\/([^/]+)$/,
    run: ({ ask, state, parts: [name = ''] }) => {
      const store = state.blobStores.get(name);
      if (store === undefined) answer(ask, 404);
      else answerJson(ask, 200, { path: store.path, softQuota: store.softQuota ?? null });
    },
  },
  {
    method: 'GET',
    path: /^\/v1\/blobstores\/([^/]+)\/quota-status$/,
    run: ({ ask, state, parts: [name = ''] }) => {
      const store = state.blobStores.get(name);
      if (store === undefined) {
        answer(ask, 404);
        return;
      }
      const message = store.violation ?? `Blob store ${name} has no quota`;
      answerJson(ask, 200, { isViolation: store.violation !== undefined, message, blobStoreName: name });
    },
  },
  {
    method: 'GET',
    path: /^\/v1\/security\/realms\/active$/,
    run: ({ ask, state }) => answerJson(ask, 200, state.realms),
  },
  {
    method: 'PUT',
    path: /^\/v1\/security\/realms\/active$/,
    run: async ({ ask, state }) => {
      const body = await readJson(ask);
      const names = Array.isArray(body) ? body.filter((id): id is string => typeof id === 'string') : [];
      if (names.some((id) => !REALMS.some((realm) => realm.id === id))) {
        invalid(ask, 'realmIds', 'Unknown realms');
        return;
      }
      state.realms = names;
      answer(ask, 204);
    },
  },
  {
    method: 'GET',
    path: /^\/v1\/security\/realms\/available$/,
    run: ({ ask }) => answerJson(ask, 200, REALMS),
  },
  {
    method: 'GET',
    path: /^\/v1\/security\/anonymous$/,
    run: ({ ask, state }) => answerJson(ask, 200, state.anonymous),
  },
  {
    method: 'GET',
    path: /^\/v1\/system\/eula$/,
    run: ({ ask, state }) => answerJson(ask, 200, state.eula),
  },
  {
    method: 'POST',
    path: /^\/v1\/system\/eula$/,
    run: async ({ ask, state }) => {
      const body = await readJson(ask);
      const isSame = isRecord(body) && body.disclaimer === state.eula.disclaimer;
      if (!isSame || body.accepted !== true) {
        answer(ask, 500);
        return;
      }
      state.eula.accepted = true;
      answer(ask, 204);
    },
  },
  {
    method: 'GET',
    path: /^\/v1\/(?:assets|components)$/,
    run: ({ ask, state }) => {
      const name = ask.query.get('repository');
      if (name === null || !state.repositories.has(name)) answer(ask, name === null ? 422 : 404);
      else answerJson(ask, 200, { items: [], continuationToken: null });
    },
  },
];

/** Whether a path belongs to the administration. */
export function isAdminPath(path: string): boolean {
  return path === ROOT || path.startsWith(`${ROOT}/`);
}

/** Answers one call. @param url where the server is reached, without a slash at its end */
export async function answerAdmin(
  ask: Ask,
  about: { readonly state: AdminState; readonly url: string; readonly who: Who },
): Promise<void> {
  const { state, url, who } = about;
  ask.response.setHeader('server', `Nexus/${state.version} (COMMUNITY)`);
  if (state.down) {
    answerPage(ask, 503, 'Nexus Repository is starting');
    return;
  }
  const path = ask.path.slice(ROOT.length);
  const matching = CALLS.filter((call) => call.path.test(path));
  const call = matching.find(
    ({ method }) => method === ask.method || (method === 'GET' && ask.method === 'HEAD'),
  );
  if (call?.open !== true && who.guarded && who.user === undefined) {
    answer(ask, 401, { headers: { 'www-authenticate': 'BASIC realm="Sonatype Nexus Repository Manager"' } });
    return;
  }
  const mayAll = !who.guarded || who.user === 'admin' || path === '/v1/repositories';
  if (call?.open !== true && !mayAll) {
    answer(ask, 403);
    return;
  }
  if (call === undefined) {
    if (matching.length > 0) answer(ask, 405);
    else answerPage(ask, 404, 'Not found');
    return;
  }
  const isWrite = call.method !== 'GET';
  if (isWrite && state.readOnly) {
    answer(ask, 503, { body: 'Nexus Repository Manager is in read-only mode' });
    return;
  }
  await call.run({ ask, state, url, parts: call.path.exec(path)?.slice(1) ?? [] });
}
