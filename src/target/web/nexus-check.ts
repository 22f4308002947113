import { randomUUID } from 'node:crypto';
import { isAbort, SealiftError } from '../../core/errors.ts';
import { type Finding, finding, findingOf, type Room, type TargetReport } from '../finding.ts';
import type { OnConflict } from '../target.ts';
import {
  NexusAdmin,
  type NexusBlobStore,
  type NexusFormat,
  type NexusRepository,
  type NexusSettings,
  type NexusStatus,
} from './nexus-admin.ts';
import { settingsFindings } from './nexus-settings-check.ts';
import { versionFindings } from './nexus-versions.ts';
import type { WebServer } from './server.ts';

/** A repository that a load will write to. */
export interface WantedRepository {
  readonly format: NexusFormat;
  readonly name: string;
  /** Of docker: where images are pushed, as the file of the site says. */
  readonly url?: URL;
}

export interface NexusPlace {
  readonly wanted: readonly WantedRepository[];
  /** Missing repositories are made by the load. */
  readonly create: boolean;
  readonly onConflict: OnConflict;
  /** Where missing repositories are made; default `default`. */
  readonly blobStore?: string | undefined;
}

/** What questions of administrators gave; what was refused is told once, at the end. */
class Asker {
  readonly hidden: string[] = [];

  /** undefined also where this login may not ask. @throws everything else */
  async ask<T>(what: string, question: () => Promise<T>): Promise<T | undefined> {
    try {
      return await question();
    } catch (error) {
      if (isAbort(error) || !(error instanceof SealiftError)) throw error;
      if (error.code === 'TARGET_UNREACHABLE' && error.details?.status === undefined) throw error;
      // 401 is a wrong login: whoever asked first has told it.
      this.hidden.push(what);
      return undefined;
    }
  }
}

const sameFormat = (a: string, b: string): boolean => {
  const images = ['docker', 'oci'];
  return a === b || (images.includes(a) && images.includes(b));
};

/** The key of the site's file that names a repository of the format. */
const keyOf = (format: NexusFormat): string =>
  format === 'docker' || format === 'oci' ? 'repository' : format;

function reachFindings(server: WebServer, status: NexusStatus): Finding[] {
  const { version = 'of unknown version', edition } = status;
  const what = `${server.base.href}: Nexus ${version}${edition === undefined ? '' : ` (${edition})`}`;
  if (status.isUp) return [finding('ok', 'REACHABLE', { message: what })];
  return [
    finding('fault', 'TARGET_UNREACHABLE', {
      message: `${what} is not ready (HTTP 503 for its status)`,
      fix: 'it starts, or its database is away: wait, then look at log/nexus.log of the server',
    }),
  ];
}

const shellQuote = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** A curl line for the server's own API, which asks for the password itself. */
export function curlLine(server: WebServer, method: string, path: string, body?: string): string {
  const url = shellQuote(server.url(`service/rest/v1/${path}`).href);
  const data = body === undefined ? '' : ` -H 'Content-Type: application/json' -d '${body}'`;
  return `curl -u admin -X ${method}${data} ${url}`;
}

async function writableFindings(admin: NexusAdmin): Promise<Finding[]> {
  if (await admin.writable()) return [];
  return [
    finding('fault', 'TARGET_READ_ONLY', {
      message: `${admin.server.base.href} takes no writes: it is in read-only mode, or its disk is full`,
      fix: `Administration, System, Nodes: "Disable read-only mode"; or ${curlLine(admin.server, 'POST', 'read-only/release')}`,
    }),
  ];
}

async function licenceFindings(admin: NexusAdmin, asker: Asker): Promise<Finding[]> {
  const accepted = await asker.ask('the licence', () => admin.eula());
  if (accepted !== false) return [];
  const url = admin.server.url('service/rest/v1/system/eula').href;
  return [
    finding('fault', 'EULA', {
      message: 'the licence of the Community Edition is not accepted: the server refuses to work until it is',
      fix: `sign in as administrator and accept it; or curl -u admin ${url} > eula.json, set "accepted": true in it, and curl -u admin -X POST -H 'Content-Type: application/json' -d @eula.json ${url}`,
    }),
  ];
}

/** The hosted repository that was probably meant by the name of a proxy or a group. */
function rightOnes(
  wrong: NexusRepository,
  known: { readonly all: readonly NexusRepository[]; readonly members: readonly string[] },
): string[] {
  const hosted = known.all.filter((r) => r.type === 'hosted' && sameFormat(r.format, wrong.format));
  const members = hosted.filter((r) => known.members.includes(r.name));
  return (members.length > 0 ? members : hosted).map((r) => r.name);
}

function kindFindings(
  wanted: WantedRepository,
  about: {
    readonly found: NexusRepository | undefined;
    readonly all: readonly NexusRepository[];
    readonly members: readonly string[];
    readonly create: boolean;
  },
): Finding[] {
  const { format, name } = wanted;
  const { found, all, members, create } = about;
  if (found === undefined) {
    if (create) {
      const message = `the ${format} repository ${name} is not there: the load makes it`;
      return [finding('info', 'REPOSITORY_ABSENT', { message })];
    }
    const others = all.filter((r) => r.type === 'hosted' && sameFormat(r.format, format)).map((r) => r.name);
    const choice = others.length === 0 ? '' : `name one that is there (${others.join(', ')}), or `;
    return [
      finding('fault', 'REPOSITORY_ABSENT', {
        message: `the ${format} repository ${name} is not there, or this login does not see it`,
        fix: `${choice}write create: true for this target, and the load makes it`,
      }),
    ];
  }
  if (!sameFormat(found.format, format)) {
    const others = all.filter((r) => r.type === 'hosted' && sameFormat(r.format, format)).map((r) => r.name);
    return [
      finding('fault', 'REPOSITORY_FORMAT', {
        message: `${name} is of the format ${found.format}, not ${format}`,
        fix:
          others.length === 0
            ? `name a repository of the format ${format}, or another name with create: true`
            : `write ${keyOf(format)}: ${others.length === 1 ? others[0] : `one of ${others.join(', ')}`}`,
        details: { found: found.format, others },
      }),
    ];
  }
  if (found.type === 'hosted') return [];
  const right = rightOnes(found, { all, members });
  const why = found.type === 'proxy' ? 'fetches from elsewhere' : 'only shows what its members have';
  return [
    finding('fault', 'REPOSITORY_TYPE', {
      message: `${name} is a ${found.type}, which ${why}: nothing can be put there`,
      fix:
        right.length === 0
          ? `make a hosted ${format} repository (create: true with a new name), and name it`
          : `write ${keyOf(format)}: ${right.length === 1 ? right[0] : `one of ${right.join(', ')}`}`,
      details: { type: found.type, hosted: right },
    }),
  ];
}

/** A path that nobody has, in a form that the format's own routes know; undefined where none can be deleted. */
function absentPath({ format, name }: WantedRepository): string | undefined {
  const id = randomUUID();
  if (format === 'raw') return `repository/${encodeURIComponent(name)}/sealift-check/${id}`;
  if (format === 'helm') return `repository/${encodeURIComponent(name)}/sealift-check-${id}.tgz`;
  return undefined;
}

/**
 * What this login may do there, asked by deleting something that is not there: that leaves nothing whatever the answer is.
 * Whether it may add cannot be asked without adding.
 */
async function rightsFindings(server: WebServer, wanted: WantedRepository): Promise<Finding[]> {
  const path = absentPath(wanted);
  if (path === undefined) return [];
  const head = await server.send({ method: 'HEAD', path, tries: 1 });
  await head.body.dump();
  if (head.status !== 404) return [];
  const response = await server.send({ method: 'DELETE', path, tries: 1 });
  const { status } = response;
  if (status === 404 || status === 204) {
    await response.body.dump();
    const message = `${wanted.name}: this login may change what is there, which unload needs too`;
    return [finding('ok', 'RIGHTS', { message })];
  }
  const refusal = await server.fail(response, `${wanted.name}: asked whether this login may write`);
  if (status === 401) return [findingOf(refusal)];
  if (status !== 403) return [];
  const base = `nx-repository-view-${wanted.format}-${wanted.name}`;
  return [
    refusal.code === 'AUTH_REQUIRED'
      ? findingOf(refusal)
      : finding('warning', 'RIGHTS', {
          message: `${wanted.name}: this login may not delete there, so unload will not work; whether it may add cannot be asked without adding`,
          fix: `Administration, Security, Roles: give its role ${base}-add, ${base}-edit, ${base}-read and ${base}-delete`,
        }),
  ];
}

function roomOf(store: NexusBlobStore): Room | undefined {
  const free = store.availableSpaceInBytes ?? -1;
  // Stores in the cloud say 0 or the largest number there is.
  if (free <= 0 || free >= Number.MAX_SAFE_INTEGER || store.type?.toLowerCase() !== 'file') return undefined;
  return { free, where: `the blob store ${store.name}` };
}

async function storeFindings(
  admin: NexusAdmin,
  about: { readonly asker: Asker; readonly used: ReadonlySet<string> },
): Promise<TargetReport> {
  const { asker, used } = about;
  const stores = await asker.ask('the blob stores', () => admin.blobStores());
  const findings: Finding[] = [];
  let room: Room | undefined;
  for (const name of stores === undefined ? [] : used) {
    if (stores?.some((store) => store.name === name) === true) continue;
    const message = `there is no blob store ${name}, where the repository would be made`;
    const there = (stores ?? []).map((store) => store.name).join(', ');
    findings.push(finding('fault', 'BLOB_STORE', { message, fix: `write blobStore: with one of ${there}` }));
  }
  for (const store of stores ?? []) {
    const { name } = store;
    if (!used.has(name)) continue;
    if (store.unavailable === true) {
      const fix = 'Administration, Repository, Blob Stores: see its state, and the log of the server';
      findings.push(
        finding('fault', 'BLOB_STORE', { message: `the blob store ${name} is not available`, fix }),
      );
    }
    const own = roomOf(store);
    if (own !== undefined && (room === undefined || own.free < room.free)) room = own;
    const quota = await asker.ask(`the quota of ${name}`, () => admin.quotaStatus(name));
    if (quota?.isViolation !== true) continue;
    findings.push(
      finding('warning', 'QUOTA', {
        message: `the quota of the blob store ${name} is passed: ${quota.message ?? 'no more is told'}`,
        fix: 'Nexus only warns; make room (cleanup policies, then the task "Admin - Compact blob store") or raise it in Administration, Repository, Blob Stores',
      }),
    );
  }
  return { findings, ...(room === undefined ? {} : { room }) };
}

async function repositoryFindings(
  admin: NexusAdmin,
  about: { readonly place: NexusPlace; readonly asker: Asker; readonly all: readonly NexusRepository[] },
): Promise<{ readonly findings: Finding[]; readonly used: Set<string> }> {
  const { place, asker, all } = about;
  const findings: Finding[] = [];
  const used = new Set<string>();
  const realms = await asker.ask('the realms', () => admin.activeRealms());
  const anonymous = await asker.ask('anonymous access', () => admin.anonymous());
  for (const wanted of place.wanted) {
    const found = all.find((r) => r.name === wanted.name);
    const settings = await settingsOf(admin, found, asker);
    const members = settings?.group?.memberNames ?? [];
    const wrong = kindFindings(wanted, { found, all, members, create: place.create });
    findings.push(...wrong);
    if (found === undefined && place.create) used.add(place.blobStore ?? 'default');
    if (found === undefined || wrong.length > 0) continue;
    findings.push(
      finding('ok', 'REPOSITORY', { message: `${found.name}: hosted, of the format ${found.format}` }),
    );
    findings.push(...(await rightsFindings(admin.server, wanted)));
    if (settings === undefined) continue;
    used.add(settings.storage?.blobStoreName ?? 'default');
    const { server } = admin;
    findings.push(...settingsFindings(settings, { wanted, place, realms, anonymous, server }));
  }
  return { findings, used };
}

async function settingsOf(
  admin: NexusAdmin,
  found: NexusRepository | undefined,
  asker: Asker,
): Promise<NexusSettings | undefined> {
  if (found === undefined) return undefined;
  const what = `the settings of ${found.name}`;
  const settings = await asker.ask(what, () => admin.settings(found));
  // Without the right to see them the list of settings is there and empty.
  if (settings === undefined && !asker.hidden.includes(what)) asker.hidden.push(what);
  return settings;
}

/**
 * Checks a Nexus without changing anything (registry.md 2.2 to 2.8): whether it takes writes, and whether the repositories
 * are there and set so that a load works. Needs the rights of an administrator for most; what could not be seen is told.
 * @throws TARGET_UNREACHABLE where no Nexus answers, AUTH_REQUIRED, AUTH_DENIED for a login that is refused; ABORTED
 */
export async function checkNexus(server: WebServer, place: NexusPlace): Promise<TargetReport> {
  const admin = new NexusAdmin(server);
  const status = await admin.status();
  const findings = reachFindings(server, status);
  if (!status.isUp) return { findings };
  findings.push(...versionFindings(status, place.wanted), ...(await writableFindings(admin)));
  const asker = new Asker();
  const all = await admin.repositories();
  findings.push(...(await licenceFindings(admin, asker)));
  const { findings: ofRepositories, used } = await repositoryFindings(admin, { place, asker, all });
  const stores = await storeFindings(admin, { asker, used });
  findings.push(...ofRepositories, ...stores.findings);
  if (asker.hidden.length > 0) {
    findings.push(
      finding('info', 'STATE_UNKNOWN', {
        message: `this login may not see ${[...new Set(asker.hidden)].join(', ')}: they were not checked`,
        fix: 'check once with a login that has nx-admin, or ask the administrator of the server',
        details: { hidden: [...new Set(asker.hidden)] },
      }),
    );
  }
  return { findings, ...(stores.room === undefined ? {} : { room: stores.room }) };
}
