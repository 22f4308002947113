/** Where a library can be reached and what it has, as far as clients must be told. */
export interface ServedFacts {
  /** `https://host:port` */
  readonly url: string;
  readonly isPrivate: boolean;
  /** Hosts that images come from, sorted. */
  readonly hosts: readonly string[];
  /** One name of each kind, for the examples; undefined where there is none. */
  readonly chart: { readonly name: string; readonly version: string } | undefined;
  readonly project: string | undefined;
  readonly file: string | undefined;
}

/** What a client must be told, so that it asks here. */
export interface Snippet {
  readonly client: string;
  /** Where the text belongs; absent: it is a command. */
  readonly file?: string;
  readonly text: string;
}

/** Hosts that are written out; the others go the same way. */
const HOSTS_SHOWN = 20;

/** A text as a TOML string. */
function quoted(text: string): string {
  return JSON.stringify(text);
}

function containerd({ url }: ServedFacts): Snippet {
  const ca = url.startsWith('https:')
    ? '\n  # ca = "/path/of/ca.crt"  where the system does not trust it'
    : '';
  return {
    client: 'containerd',
    file: '/etc/containerd/certs.d/_default/hosts.toml',
    text: `[host.${quoted(url)}]\n  capabilities = ["pull", "resolve"]${ca}`,
  };
}

function docker({ url }: ServedFacts): Snippet {
  return {
    client: 'docker (images of docker.io)',
    file: '/etc/docker/daemon.json',
    text: JSON.stringify({ 'registry-mirrors': [url] }),
  };
}

/** registries.conf(5): a mirror for each host, under its name, so that equal paths are not mixed up. */
function containers({ url, hosts }: ServedFacts): Snippet {
  const { host, protocol } = new URL(url);
  const insecure = protocol === 'http:' ? '\ninsecure = true' : '';
  const mirrors = hosts.slice(0, HOSTS_SHOWN).map((from) => {
    const at = `${host}/${from.toLowerCase().replaceAll(':', '_')}`;
    return `[[registry]]\nlocation = ${quoted(from)}\n[[registry.mirror]]\nlocation = ${quoted(at)}${insecure}`;
  });
  const more = hosts.length - HOSTS_SHOWN;
  if (more > 0) mirrors.push(`# and ${more} more in the same way`);
  return {
    client: 'skopeo, podman, CRI-O',
    file: '/etc/containers/registries.conf.d/sealift.conf',
    text: mirrors.join('\n'),
  };
}

function helm({ url, chart }: ServedFacts): Snippet[] {
  if (chart === undefined) return [];
  const { host, protocol } = new URL(url);
  const plain = protocol === 'http:' ? ' --plain-http' : '';
  const text = [
    `helm repo add sealift ${url}/charts`,
    `helm pull oci://${host}/charts/${chart.name} --version ${chart.version}${plain}`,
  ].join('\n');
  return [{ client: 'helm', text }];
}

function pip({ url, project }: ServedFacts): Snippet[] {
  if (project === undefined) return [];
  const { hostname, protocol } = new URL(url);
  // pip itself trusts what it calls local.
  const isTrusted = protocol === 'https:' || hostname === 'localhost' || hostname === '127.0.0.1';
  const trust = isTrusted ? '' : ` --trusted-host ${hostname}`;
  return [{ client: 'pip', text: `pip install --index-url ${url}/simple/${trust} ${project}` }];
}

function curl({ url, file }: ServedFacts): Snippet[] {
  if (file === undefined) return [];
  const path = file.split('/').map(encodeURIComponent).join('/');
  return [{ client: 'files', text: `curl -fO -C - ${url}/files/${path}` }];
}

/** How each client is told to ask here. */
export function snippetsOf(facts: ServedFacts): Snippet[] {
  const images = facts.hosts.length === 0 ? [] : [containerd(facts), docker(facts), containers(facts)];
  return [...images, ...helm(facts), ...pip(facts), ...curl(facts)];
}

/** The same as text for a person. */
export function snippetText(facts: ServedFacts): string {
  const parts = snippetsOf(facts).map(({ client, file, text }) => {
    const lines = text.split('\n').map((line) => `    ${line}`);
    return `${client}${file === undefined ? '' : `: ${file}`}\n${lines.join('\n')}\n`;
  });
  const login = facts.isPrivate ? ['A login is needed for everything here.\n'] : [];
  return [...login, ...parts].join('\n');
}
