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

function containerd({ url, isPrivate }: ServedFacts): Snippet {
  const host = `host.${quoted(url)}`;
  const lines = [
    '# read where config_path of the registry in config.toml is /etc/containerd/certs.d',
    `[${host}]`,
    '  capabilities = ["pull", "resolve"]',
    ...(url.startsWith('https:') ? ['  # ca = "/path/of/ca.crt"  # where the system does not trust it'] : []),
    ...(isPrivate
      ? [`[${host}.header]`, '  authorization = "Basic BASE64"  # printf USER:PASSWORD | base64']
      : []),
  ];
  return {
    client: 'containerd',
    file: '/etc/containerd/certs.d/_default/hosts.toml',
    text: lines.join('\n'),
  };
}

/** Their file for containerd, in which every host stands by itself. */
function rancher({ url, isPrivate, hosts }: ServedFacts): Snippet {
  const { host, protocol } = new URL(url);
  const shown = hosts.slice(0, HOSTS_SHOWN);
  const mirrors = shown.map((from) => `  ${quoted(from)}: {endpoint: [${quoted(url)}]}`);
  const more = moreHosts(hosts);
  const auth = isPrivate ? ['auth: {username: USER, password: PASSWORD}'] : [];
  const tls = protocol === 'https:' ? ['tls: {ca_file: /path/of/ca.crt}'] : [];
  const own = [...auth, ...tls].map((line) => `    ${line}`);
  const configs = own.length === 0 ? [] : ['configs:', `  ${quoted(host)}:`, ...own];
  return {
    client: 'k3s, rke2',
    file: '/etc/rancher/k3s/registries.yaml or /etc/rancher/rke2/registries.yaml',
    text: ['mirrors:', ...mirrors, ...more, ...configs].join('\n'),
  };
}

/** Where images of more hosts are than are written out. */
function moreHosts(hosts: readonly string[]): string[] {
  const more = hosts.length - HOSTS_SHOWN;
  return more > 0 ? [`# and ${more} more in the same way`] : [];
}

/** Docker sends no login to a mirror, and has mirrors for its own host alone. */
function docker({ url, isPrivate }: ServedFacts): Snippet {
  const { host, hostname, protocol } = new URL(url);
  const isLocal = hostname === 'localhost' || hostname.startsWith('127.');
  const insecure = protocol === 'http:' && !isLocal ? { 'insecure-registries': [host] } : {};
  const mirrors = isPrivate ? {} : { 'registry-mirrors': [url] };
  const settings = { ...mirrors, ...insecure };
  const client = isPrivate ? `docker (docker pull ${host}/docker.io/NAME)` : 'docker (images of docker.io)';
  if (Object.keys(settings).length === 0) return { client, text: `docker login ${host}` };
  return { client, file: '/etc/docker/daemon.json', text: JSON.stringify(settings) };
}

/** registries.conf(5): a mirror for each host, under its name, so that equal paths are not mixed up. */
function containers({ url, hosts }: ServedFacts): Snippet {
  const { host, protocol } = new URL(url);
  const insecure = protocol === 'http:' ? '\ninsecure = true' : '';
  const mirrors = hosts.slice(0, HOSTS_SHOWN).map((from) => {
    const at = `${host}/${from.toLowerCase().replaceAll(':', '_')}`;
    return `[[registry]]\nlocation = ${quoted(from)}\n[[registry.mirror]]\nlocation = ${quoted(at)}${insecure}`;
  });
  return {
    client: 'skopeo, podman, CRI-O',
    file: '/etc/containers/registries.conf.d/sealift.conf',
    text: [...mirrors, ...moreHosts(hosts)].join('\n'),
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
  const images =
    facts.hosts.length === 0 ? [] : [containerd, rancher, docker, containers].map((of) => of(facts));
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
