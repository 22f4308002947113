import { isAbort, SealiftError } from '../core/errors.ts';
import type { FoundRepository, NexusFacts } from '../site/init-text.ts';
import { isNexusRepository } from '../site/words.ts';
import type { NexusAdmin, NexusRepository, NexusSettings } from '../target/web/nexus-admin.ts';

type Key = 'docker' | 'helm' | 'pypi' | 'raw';

const KEYS: readonly Key[] = ['docker', 'helm', 'pypi', 'raw'];

/** Since this version images are also reached on the main port, without a connector (registry.md 2.8). */
const PATH_ROUTING = [3, 83] as const;

function isOfKey({ format }: NexusRepository, key: Key): boolean {
  return format === key || (key === 'docker' && format === 'oci');
}

/** How likely a name is meant for what is delivered: the lower the better. */
function rank(name: string, key: Key): number {
  if (name === `${key}-hosted`) return 0;
  if (/stag|test|snapshot|dev|tmp|temp|old|sandbox/i.test(name)) return 3;
  return /prod|release|hosted/i.test(name) ? 1 : 2;
}

/**
 * What a Nexus has, as it shall stand in a site's file.
 * @param choices is told what was chosen and why
 * @throws TARGET_UNREACHABLE, AUTH_REQUIRED, AUTH_DENIED
 */
export async function nexusFacts(admin: NexusAdmin, choices: string[]): Promise<NexusFacts> {
  const { base } = admin.server;
  const status = await admin.status();
  const all = await admin.repositories();
  const hosted = all.filter(({ type, name }) => type === 'hosted' && isNexusRepository(name) === undefined);
  const own = hosted.filter((one) => KEYS.some((key) => isOfKey(one, key)));
  const edition = [status.version, status.edition].filter((part) => part !== undefined).join(' ');
  choices.push(`${base.host}: Nexus ${edition === '' ? 'of an unknown version' : edition}`);
  const remarks: string[] = [];
  const about = { admin, choices, remarks };
  const isEmpty = own.length === 0;
  const facts = isEmpty ? await newRepositories(status.version, about) : await chosen(own, about);
  const url = base.href.replace(/\/$/, '');
  return { name: 'nexus', url, create: isEmpty, ...facts, remarks };
}

interface About {
  readonly admin: NexusAdmin;
  readonly choices: string[];
  readonly remarks: string[];
}

type Found = Pick<NexusFacts, Key>;

/** A server with nothing to load into: what shall be made, of the formats that it knows. */
async function newRepositories(version: string | undefined, { admin, choices }: About): Promise<Found> {
  const found: Record<Key, FoundRepository[]> = { docker: [], helm: [], pypi: [], raw: [] };
  const offered = new Set<Key>();
  for (const key of KEYS) if (await admin.offers(key)) offered.add(key);
  for (const key of KEYS) {
    // One that seems to know none does not say.
    if (offered.size > 0 && !offered.has(key)) {
      choices.push(`${key}: left out, this server has no such format`);
      continue;
    }
    const name = `${key}-hosted`;
    const url = key === 'docker' ? { url: newConnector(admin.server.base, version) } : {};
    found[key].push({ name, ...url });
    choices.push(`${key}: ${name}, which \`load\` makes (create: true), because there is none`);
  }
  return found;
}

function newConnector(base: URL, version: string | undefined): string {
  const [major = 0, minor = 0] = (version ?? '').split(/[.-]/).map(Number);
  const isRouted = major > PATH_ROUTING[0] || (major === PATH_ROUTING[0] && minor >= PATH_ROUTING[1]);
  return isRouted ? base.origin : `${base.protocol}//${base.hostname}:5000`;
}

/** What is there, the likeliest first. */
async function chosen(own: readonly NexusRepository[], about: About): Promise<Found> {
  const { choices } = about;
  const found: Record<Key, FoundRepository[]> = { docker: [], helm: [], pypi: [], raw: [] };
  for (const key of KEYS) {
    const ranked = own
      .filter((one) => isOfKey(one, key))
      .sort((a, b) => rank(a.name, key) - rank(b.name, key) || (a.name < b.name ? -1 : 1));
    const usable = key === 'docker' ? await connected(ranked, about) : ranked.map(({ name }) => ({ name }));
    found[key].push(...usable);
    const [first, ...others] = usable;
    if (first === undefined) {
      if (ranked.length === 0) choices.push(`${key}: left out, there is no hosted repository of this format`);
      continue;
    }
    const names = others.map(({ name }) => name).join(', ');
    const why =
      others.length === 0 ? 'the only hosted one' : `by its name; also there, as a comment: ${names}`;
    choices.push(`${key}: ${first.name} (${why})`);
  }
  return found;
}

/** Docker repositories with the address that images are pushed to; what has none that we can see is remarked. */
async function connected(ranked: readonly NexusRepository[], about: About): Promise<FoundRepository[]> {
  const { admin, choices, remarks } = about;
  const { base } = admin.server;
  const found: FoundRepository[] = [];
  for (const repository of ranked) {
    const { name, format } = repository;
    const settings = await settingsOf(admin, repository);
    if (settings === 'denied') {
      remarks.push(
        `docker: {repository: ${name}, url: "${base.protocol}//${base.hostname}:PORT"}   # only administrators see the port`,
      );
      choices.push(`docker: ${name} as a comment: only administrators see its connector; write its address`);
      continue;
    }
    const url = addressOf(settings?.[format === 'oci' ? 'oci' : 'docker'] ?? undefined, base);
    if (url === undefined) {
      remarks.push(
        `docker ${name} has neither a connector nor path-based routing: nothing can be pushed to it`,
      );
      choices.push(`docker: ${name} left out: it has neither a connector nor path-based routing`);
    } else found.push({ name, url });
  }
  return found;
}

async function settingsOf(
  admin: NexusAdmin,
  repository: NexusRepository,
): Promise<NexusSettings | 'denied' | undefined> {
  try {
    return await admin.settings(repository);
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    if (error.code === 'AUTH_DENIED' || error.code === 'AUTH_REQUIRED') return 'denied';
    throw error;
  }
}

function addressOf(connector: NexusSettings['docker'] | undefined, base: URL): string | undefined {
  if (connector == null) return undefined;
  const { httpsPort, httpPort, subdomain, pathEnabled } = connector;
  if (httpsPort) return `https://${base.hostname}:${httpsPort}`;
  if (httpPort) return `http://${base.hostname}:${httpPort}`;
  if (subdomain && /^[a-z0-9-]{1,63}$/i.test(subdomain)) return `${base.protocol}//${subdomain}.${base.host}`;
  return pathEnabled === true ? base.origin : undefined;
}
