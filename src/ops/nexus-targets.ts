import { type Fault, fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { CredentialSource } from '../oci/credentials.ts';
import type { NexusDocker, NexusSite } from '../site/load.ts';
import type { Item, Target } from '../target/target.ts';
import {
  NexusAdmin,
  type NexusFormat,
  type NexusRepository,
  type NexusSettings,
} from '../target/web/nexus-admin.ts';
import { type Connector, hostedSettings } from '../target/web/nexus-settings.ts';
import type { WebServer } from '../target/web/server.ts';
import { untilWritable } from '../target/writable.ts';
import type { MissingRepository, PlannedTarget } from './planned-target.ts';
import { registryTargetOf } from './registry-place.ts';
import { pipUse, type SiteTools, webServerOf } from './site-server.ts';

/** One repository of a Nexus of a site. */
interface Part {
  /** The key in the site's file. */
  readonly key: 'docker' | 'helm' | 'pypi' | 'raw';
  readonly repository: string;
  readonly target: Target;
  /** How clients are told to use it, for people. */
  readonly use?: readonly string[];
}

/** Formats that a key of the site's file may lead to; the first one is made. */
const FORMATS = {
  docker: ['docker', 'oci'],
  helm: ['helm'],
  pypi: ['pypi'],
  raw: ['raw'],
} as const satisfies Readonly<Record<Part['key'], readonly NexusFormat[]>>;

type Tools = SiteTools & { readonly credentials: CredentialSource };

/**
 * The targets of a Nexus: a repository for each kind of content. Every one is looked up first, and one that cannot be pushed to
 * says so. Nothing is written.
 */
export async function nexusTargets(
  site: NexusSite,
  tools: Tools & { readonly dryRun: boolean },
): Promise<PlannedTarget[]> {
  const server = webServerOf(site, tools);
  const admin = new NexusAdmin(server);
  const made = { ...tools, server, admin };
  const whole = { site: site.name };
  try {
    const there = await admin.repositories();
    const wait = { name: site.url.host, context: tools.context };
    if (!tools.dryRun) await untilWritable(() => admin.writable(), wait);
    const planned: PlannedTarget[] = [];
    const movesLatest = await latestMoves(site, there, admin);
    for (const part of await partsOf(site, { ...made, movesLatest })) {
      const { target, use = [] } = part;
      planned.push({ ...whole, target, use, ...(await judge(part, there, { site, admin, tools })) });
    }
    return planned;
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    const parts = await partsOf(site, { ...made, movesLatest: false });
    return parts.map(({ target }) => ({ ...whole, target, fault: faultOf(unreached(error, site)) }));
  }
}

/** The network's own words, as of a target that does not answer. */
function unreached(error: SealiftError, site: NexusSite): SealiftError {
  if (!error.code.startsWith('NETWORK_')) return error;
  return new SealiftError('TARGET_UNREACHABLE', error.message, {
    cause: error,
    hint: `check url of ${site.name} in the site's file; \`curl ${site.url.href}service/rest/v1/status\` must answer on this machine`,
  });
}

/** What a repository of the wanted name is good for. */
async function judge(
  { key, repository }: Part,
  there: readonly NexusRepository[],
  about: { readonly site: NexusSite; readonly admin: NexusAdmin; readonly tools: Tools },
): Promise<{ readonly fault?: Fault; readonly missing?: MissingRepository }> {
  const { site, admin } = about;
  const formats: readonly string[] = FORMATS[key];
  const hosted = there.filter((one) => one.type === 'hosted' && formats.includes(one.format));
  const found = there.find((one) => one.name === repository);
  const where = `${site.url.host}: ${repository}`;
  const refused = (message: string, hint: string): { readonly fault: Fault } => ({
    fault: fault('TARGET_FAILED', `${where}: ${message}`, { hint }),
  });
  if (found === undefined) {
    if (site.create) return { missing: await missingOf(key, repository, about) };
    return refused('there is no such repository', whatElse(key, hosted, site));
  }
  if (!formats.includes(found.format)) {
    const message = `is of the format ${found.format}, expected ${formats.join(' or ')}`;
    return refused(message, whatElse(key, hosted, site));
  }
  if (found.type !== 'hosted') {
    const settings = found.type === 'group' ? await settingsSeen(admin, found) : undefined;
    const members = settings?.group?.memberNames;
    const good = hosted.filter(({ name }) => members == null || members.includes(name));
    const message = `is a ${found.type} repository: nothing is loaded into it`;
    return refused(message, whatElse(key, good.length === 0 ? hosted : good, site));
  }
  if (found.online === false) {
    return refused('is offline', 'set it online in Nexus (Administration, Repository, Repositories)');
  }
  return {};
}

/** Settings of a repository; undefined where only administrators see them. */
async function settingsSeen(
  admin: NexusAdmin,
  repository: NexusRepository,
): Promise<NexusSettings | undefined> {
  try {
    return await admin.settings(repository);
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    return undefined;
  }
}

function whatElse(key: string, hosted: readonly NexusRepository[], { create, name }: NexusSite): string {
  const words = hosted.map((one) => one.name);
  const write = (word: string): string => (key === 'docker' ? `repository: ${word}` : `${key}: ${word}`);
  if (words.length === 1) return `write ${write(String(words[0]))} under ${name} in the site's file`;
  if (words.length > 1) return `write one of these hosted ones under ${name}: ${words.join(', ')}`;
  if (create) return `there is no hosted one: name one that is not there yet, and it is made`;
  return `there is no hosted one that this login may see: add create: true to ${name}, or make it in Nexus`;
}

async function missingOf(
  key: Part['key'],
  repository: string,
  about: { readonly site: NexusSite; readonly admin: NexusAdmin; readonly tools: Tools },
): Promise<MissingRepository> {
  const { site, admin, tools } = about;
  const [format] = FORMATS[key];
  const { docker, onConflict } = site;
  const blobStore = site.blobStore ?? 'default';
  const connector =
    key === 'docker' && docker !== undefined ? { connector: connectorOf(docker, site.url) } : {};
  const settings = hostedSettings({ format, name: repository, blobStore, onConflict, ...connector });
  const make = async (): Promise<void> => {
    await refuseNoBlobStore(admin, blobStore);
    await admin.create(format, settings);
    if (key === 'docker' && docker !== undefined) await untilItAnswers(docker.url, { site, tools });
  };
  return { name: repository, format, settings, make };
}

/** Older servers make a repository on a blob store that is not there, which then can neither be used nor removed. */
async function refuseNoBlobStore(admin: NexusAdmin, name: string): Promise<void> {
  const stores = await admin.blobStores();
  if (stores.some((store) => store.name === name)) return;
  const names = stores.map((store) => store.name).join(', ');
  throw new SealiftError('TARGET_FAILED', `${admin.server.base.host}: there is no blob store ${name}`, {
    hint:
      names === ''
        ? 'make one in Nexus (Administration, Repository, Blob Stores)'
        : `write blobStore: with one of ${names}`,
  });
}

/** A new connector needs a moment. That it never answers is told when it is asked what it has. */
async function untilItAnswers(
  url: URL,
  { site, tools }: { readonly site: NexusSite; readonly tools: Tools },
): Promise<void> {
  try {
    const request = { method: 'GET', url: new URL('/v2/', url), tls: site.tls, tries: 4 } as const;
    await (await tools.http.request(request)).body.dump();
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
  }
}

/** How a docker repository that we make shall be reached, from its address (registry.md 2.8). */
function connectorOf({ url, httpPort, httpsPort }: NexusDocker, base: URL): Connector {
  if (httpPort !== undefined || httpsPort !== undefined) {
    return {
      ...(httpPort === undefined ? {} : { httpPort }),
      ...(httpsPort === undefined ? {} : { httpsPort }),
    };
  }
  if (url.host === base.host) return { isPath: true };
  if (url.hostname.endsWith(`.${base.hostname}`) && url.port === base.port) {
    return { subdomain: url.hostname.slice(0, -base.hostname.length - 1) };
  }
  const port = Number(url.port);
  // Another host name is a proxy of theirs, and only they know where it leads to.
  if (url.hostname !== base.hostname || port === 0) return {};
  return url.protocol === 'https:' ? { httpsPort: port } : { httpPort: port };
}

/** Where images of a Nexus go: with path-based routing the repository is the first part of every name. */
export function dockerPlace(
  { repository, url }: NexusDocker,
  base: URL,
): { readonly host: string; readonly prefix: string } {
  const path = url.pathname.replace(/^\/+|\/+$/g, '');
  const prefix = path === '' && url.host === base.host ? repository : path;
  return { host: url.host, prefix };
}

/** Whether the docker repository lets `latest` move under "disable redeploy", as far as this login may see it. */
async function latestMoves(
  { docker }: NexusSite,
  there: readonly NexusRepository[],
  admin: NexusAdmin,
): Promise<boolean> {
  const found = docker && there.find(({ name }) => name === docker.repository);
  return found !== undefined && (await settingsSeen(admin, found))?.storage?.latestPolicy === true;
}

async function partsOf(
  site: NexusSite,
  tools: Tools & { readonly server: WebServer; readonly admin: NexusAdmin; readonly movesLatest: boolean },
): Promise<Part[]> {
  const { docker, naming, indexPolicy, helm, pypi, raw, name, onConflict, parallel } = site;
  const { server } = tools;
  const lanes = parallel === undefined ? {} : { parallel };
  const how = { server, onConflict, ...lanes };
  const parts: Part[] = [];
  if (docker !== undefined) {
    const config = { ...site.tls, plainHttp: docker.url.protocol === 'http:' };
    const { admin, movesLatest } = tools;
    const pushed = { onConflict, movesLatest, writable: () => admin.writable() };
    const place = { ...dockerPlace(docker, site.url), config, naming, indexPolicy, ...pushed, ...lanes };
    const target = { ...registryTargetOf(place, tools), accepts: (item: Item) => isForDocker(item, site) };
    parts.push({ key: 'docker', repository: docker.repository, target });
  }
  if (helm !== undefined) {
    const { helmTarget } = await import('../target/web/helm.ts');
    const use = [`helm repo add ${name} ${server.url(`repository/${helm}`).href}`];
    parts.push({ key: 'helm', repository: helm, target: helmTarget({ ...how, repository: helm }), use });
  }
  if (pypi !== undefined) {
    const { pypiIndexUrl, pypiTarget } = await import('../target/web/pypi.ts');
    const use = pipUse(pypiIndexUrl(server.base, pypi));
    parts.push({ key: 'pypi', repository: pypi, target: pypiTarget({ ...how, repository: pypi }), use });
  }
  if (raw !== undefined) {
    const { rawTarget } = await import('../target/web/raw.ts');
    parts.push({ key: 'raw', repository: raw, target: rawTarget({ ...how, repository: raw }) });
  }
  return parts;
}

/** Charts, packages and files go as OCI content only where they have no repository of their own. */
function isForDocker({ kind }: Item, { helm, raw }: NexusSite): boolean {
  if (kind === 'image') return true;
  if (kind === 'chart') return helm === undefined;
  return kind === 'file' && raw === undefined;
}
