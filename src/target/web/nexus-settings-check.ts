import { type Finding, finding } from '../finding.ts';
import type { NexusConnector, NexusSettings } from './nexus-admin.ts';
import type { NexusPlace, WantedRepository } from './nexus-check.ts';
import type { WebServer } from './server.ts';

interface About {
  readonly wanted: WantedRepository;
  readonly place: Pick<NexusPlace, 'onConflict'>;
  /** undefined where this login may not see them. */
  readonly realms: readonly string[] | undefined;
  readonly anonymous: boolean | undefined;
  readonly server: WebServer;
}

/** Where a setting is changed by hand. */
const pageOf = (name: string, setting: string): string =>
  `Administration, Repository, Repositories, ${name}: ${setting}`;

/** Realm whose tokens docker's clients ask for, by the format. */
const TOKEN_REALM: Readonly<Record<string, string>> = { docker: 'DockerToken', oci: 'OciToken' };

function policyFindings({ name, format, storage }: NexusSettings, { place }: About): Finding[] {
  const policy = storage?.writePolicy?.toUpperCase();
  const isImages = format === 'docker' || format === 'oci';
  if (policy === 'DENY') {
    const message = `${name} is read-only (deployment policy): nothing can be put there`;
    const fix = pageOf(name, 'Deployment policy "Disable redeploy"');
    return [finding('fault', 'WRITE_POLICY', { message, fix })];
  }
  if (policy !== 'ALLOW_ONCE') return [];
  if (place.onConflict === 'replace') {
    return [
      finding('warning', 'WRITE_POLICY', {
        message: `${name} lets nothing be replaced (redeploying is disabled), and onConflict is replace: what differs there will fail`,
        fix: `${pageOf(name, 'Deployment policy "Allow redeploy"')}; or write onConflict: fail or keep`,
      }),
    ];
  }
  if (!isImages) return [];
  const latest =
    storage?.latestPolicy === true
      ? 'only the tag latest can be moved'
      : 'no tag can be moved, latest neither';
  return [
    finding('info', 'WRITE_POLICY', {
      message: `${name}: redeploying is disabled: ${latest}; an image under a tag that is there with another digest is a conflict`,
      ...(storage?.latestPolicy === true
        ? {}
        : { fix: pageOf(name, '"Allow redeploy only on \'latest\' tag", where latest is moved') }),
    }),
  ];
}

function typeFindings({ name, format, storage }: NexusSettings): Finding[] {
  if (format !== 'raw' || storage?.strictContentTypeValidation !== true) return [];
  return [
    finding('warning', 'CONTENT_TYPE_STRICT', {
      message: `${name} refuses files whose content is not what their name promises (HTTP 400)`,
      fix: pageOf(name, 'untick "Strict Content Type Validation"'),
    }),
  ];
}

/** The port that an address means. */
function portOf(url: URL): number {
  if (url.port !== '') return Number(url.port);
  return url.protocol === 'https:' ? 443 : 80;
}

function waysOf(connector: NexusConnector): string[] {
  const { httpPort, httpsPort, subdomain, pathEnabled } = connector;
  return [
    ...(httpPort == null ? [] : [`HTTP port ${httpPort}`]),
    ...(httpsPort == null ? [] : [`HTTPS port ${httpsPort}`]),
    ...(subdomain == null || subdomain === '' ? [] : [`sub-domain ${subdomain}`]),
    ...(pathEnabled === true ? ['path-based routing'] : []),
  ];
}

function connectorFindings({ name }: NexusSettings, connector: NexusConnector, about: About): Finding[] {
  const { url } = about.wanted;
  const { base } = about.server;
  const ways = waysOf(connector);
  if (ways.length === 0) {
    return [
      finding('fault', 'CONNECTOR', {
        message: `${name} has no connector: images can neither be pushed nor pulled`,
        fix: `${pageOf(name, 'tick HTTP and write a port (5000)')}, let the firewall pass it, and write that address as docker.url`,
      }),
    ];
  }
  if (url === undefined) return [];
  const { httpPort, httpsPort, subdomain, pathEnabled } = connector;
  const isMain = url.hostname === base.hostname && portOf(url) === portOf(base);
  const [first = ''] = url.pathname.replace(/^\/+/, '').split('/');
  const reach = `it is reached by ${ways.join(', ')}`;
  if (isMain && pathEnabled !== true) {
    return [
      finding('fault', 'CONNECTOR', {
        message: `docker.url is the address of Nexus itself, where ${name} is not: ${reach}`,
        fix:
          httpPort == null
            ? `write the address of the connector as docker.url`
            : `write docker.url: http://${base.hostname}:${httpPort} (or the proxy with TLS in front of it)`,
      }),
    ];
  }
  // Without a path the load puts the repository there by itself.
  if (isMain && first !== '' && first !== name) {
    const fix = `write docker.url: ${base.origin}/${name}`;
    return [
      finding('fault', 'CONNECTOR', {
        message: `docker.url does not name ${name}: with path-based routing it is the first part of the path`,
        fix,
      }),
    ];
  }
  if (isMain) return [finding('ok', 'CONNECTOR', { message: `${name}: ${reach}` })];
  const isOwnPort = portOf(url) === httpPort || portOf(url) === httpsPort;
  const isOwnName = subdomain != null && subdomain !== '' && url.hostname.startsWith(`${subdomain}.`);
  if (isOwnPort && portOf(url) !== httpsPort && url.protocol === 'https:') {
    return [
      finding('warning', 'CONNECTOR', {
        message: `docker.url is https, and port ${portOf(url)} of ${name} is the plain HTTP connector: right only where a proxy with TLS has the same port`,
        fix: `if none is there, write docker.url: http://${url.host}`,
      }),
    ];
  }
  if (isOwnPort || isOwnName) return [finding('ok', 'CONNECTOR', { message: `${name}: ${reach}` })];
  return [
    finding('warning', 'CONNECTOR', {
      message: `docker.url is ${url.host}; ${name}: ${reach}: right only where a proxy leads there`,
      fix: 'compare the address with the proxy, or write that of the connector as docker.url',
    }),
  ];
}

/** Whether nodes can pull without a login. */
function pullFindings({ name, format }: NexusSettings, connector: NexusConnector, about: About): Finding[] {
  if (connector.forceBasicAuth !== false) {
    return [
      finding('info', 'ANONYMOUS_PULL', {
        message: `${name}: pulls need a login too: nodes need an imagePullSecret or a login in their registry configuration`,
        fix: `for pulls without a login: ${pageOf(name, 'tick "Allow anonymous docker pull"')}, switch anonymous access on, and activate the realm for bearer tokens`,
      }),
    ];
  }
  const found: Finding[] = [];
  const realm = TOKEN_REALM[format];
  if (about.anonymous === false) {
    found.push(
      finding('warning', 'ANONYMOUS_PULL', {
        message: `${name} allows pulls without a login, but anonymous access to the server is off: they are refused`,
        fix: 'Administration, Security, Anonymous Access: tick "Allow anonymous users to access the server"',
      }),
    );
  }
  if (about.realms !== undefined && realm !== undefined && !about.realms.includes(realm)) {
    found.push(
      finding('warning', 'ANONYMOUS_PULL', {
        message: `${name} allows pulls without a login, but the realm ${realm} is not active: clients that ask for a token are refused`,
        fix: `Administration, Security, Realms: move "${format === 'oci' ? 'OCI' : 'Docker'} Bearer Token Realm" to Active`,
      }),
    );
  }
  return found;
}

/** What the settings of a repository mean for a load and for those who pull from it. */
export function settingsFindings(settings: NexusSettings, about: About): Finding[] {
  const { name } = settings;
  const offline =
    settings.online === false
      ? [
          finding('fault', 'REPOSITORY_OFFLINE', {
            message: `${name} is offline: it answers nobody`,
            fix: pageOf(name, 'tick "Online"'),
          }),
        ]
      : [];
  const connector = settings.docker ?? settings.oci;
  const ofImages =
    connector == null
      ? []
      : [...connectorFindings(settings, connector, about), ...pullFindings(settings, connector, about)];
  return [...offline, ...policyFindings(settings, about), ...typeFindings(settings), ...ofImages];
}
