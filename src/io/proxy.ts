import { BlockList, isIP } from 'node:net';
import { SealiftError } from '../core/errors.ts';

/** An HTTP proxy on the way to a server. */
export interface HttpProxy {
  /** Scheme, host and port, without a login. */
  readonly url: URL;
  /** `Basic …` where the variable holds a login. Never shown. */
  readonly authorization: string | undefined;
  /** The variable that names it: `HTTPS_PROXY`. */
  readonly variable: string;
}

type Env = Readonly<Record<string, string | undefined>>;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8);
LOOPBACK.addAddress('::1', 'ipv6');

function familyOf(address: string): 'ipv4' | 'ipv6' | undefined {
  const version = isIP(address);
  return version === 0 ? undefined : version === 6 ? 'ipv6' : 'ipv4';
}

function bareHost(hostname: string): string {
  return hostname
    .replace(/^\[|\]$/g, '')
    .replace(/\.$/, '')
    .toLowerCase();
}

/** One entry of NO_PROXY as a question about a host; undefined for an empty one. */
type Rule = (host: string, port: string) => boolean;

function subnetRule(entry: string): Rule | undefined {
  const [, address = '', bits = ''] = /^(.+)\/(\d{1,3})$/.exec(entry) ?? [];
  const family = familyOf(address);
  if (family === undefined || Number(bits) > (family === 'ipv6' ? 128 : 32)) return undefined;
  const net = new BlockList();
  net.addSubnet(address, Number(bits), family);
  return (host) => {
    const of = familyOf(host);
    return of !== undefined && net.check(host, of);
  };
}

/** `host`, `host:port`, `[::1]:port`, an address without a port. */
function splitPort(entry: string): readonly [host: string, port: string] {
  if (familyOf(entry) === 'ipv6') return [entry, ''];
  const [, host = entry, port = ''] = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(entry) ?? [];
  return [host, port];
}

function ruleOf(entry: string): Rule | undefined {
  if (entry === '') return undefined;
  const subnet = subnetRule(entry);
  if (subnet !== undefined) return subnet;
  const [name, port] = splitPort(entry);
  const isOnlyBelow = /^\*?\./.test(name);
  const wanted = bareHost(name.replace(/^\*?\./, ''));
  if (wanted === '') return undefined;
  return (host, at) => {
    if (port !== '' && port !== at) return false;
    if (host === wanted) return !isOnlyBelow;
    return familyOf(host) === undefined && host.endsWith(`.${wanted}`);
  };
}

/** The variable's name as it stands in the environment and its value; capitals win, as in Go's tools. */
function variable(env: Env, name: string): readonly [name: string, value: string] | undefined {
  for (const key of [name, name.toLowerCase()]) {
    const value = env[key]?.trim();
    if (value !== undefined && value !== '') return [key, value];
  }
  return undefined;
}

function parseProxy(name: string, value: string): HttpProxy {
  // Never the value itself: it may hold a password.
  const wrong = (what: string): SealiftError =>
    new SealiftError('USAGE', `${name}: ${what}`, {
      hint: `write ${name}=http://host:port, or NO_PROXY='*' to use no proxy`,
    });
  const text = /^[a-z][a-z0-9+.-]*:\/\//i.test(value) ? value : `http://${value}`;
  if (!URL.canParse(text)) throw wrong('is not the address of a proxy');
  const url = new URL(text);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw wrong(`a proxy of the kind ${url.protocol}// is not supported`);
  }
  let login: string;
  try {
    login = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  } catch {
    throw wrong('its login is not percent-encoded');
  }
  const authorization = login === ':' ? undefined : `Basic ${Buffer.from(login).toString('base64')}`;
  return { url: new URL(url.origin), authorization, variable: name };
}

/**
 * Chooses the proxy for a URL as Go's tools do (docker, skopeo, helm): HTTPS_PROXY or HTTP_PROXY by the URL's scheme,
 * then ALL_PROXY as curl; NO_PROXY names hosts with what is below them, `.suffix`, addresses, subnets, `:port`, or `*`.
 * The machine itself is never asked for through a proxy. Names are not looked up.
 * @throws USAGE (when it is asked) for a variable that is no address of a proxy
 */
export function proxyChooser(env: Env): (url: URL) => HttpProxy | undefined {
  const entries = (variable(env, 'NO_PROXY')?.[1] ?? '').split(/[\s,]+/);
  const isNever = entries.includes('*');
  const rules = entries.flatMap((entry) => ruleOf(entry) ?? []);
  return (url) => {
    const host = bareHost(url.hostname);
    const family = familyOf(host);
    if (isNever || host === 'localhost' || (family !== undefined && LOOPBACK.check(host, family))) {
      return undefined;
    }
    const port = url.port !== '' ? url.port : url.protocol === 'https:' ? '443' : '80';
    if (rules.some((rule) => rule(host, port))) return undefined;
    const found =
      variable(env, url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY') ?? variable(env, 'ALL_PROXY');
    return found === undefined ? undefined : parseProxy(...found);
  };
}
