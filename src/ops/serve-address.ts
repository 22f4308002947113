import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { SealiftError } from '../core/errors.ts';
import { isHost } from '../core/reference.ts';
import type { Pair } from '../io/certificates.ts';

/** Where to listen; an empty host is every address of this machine. */
export interface Listen {
  readonly host: string;
  readonly port: number;
}

/** `HOST:PORT`, `[IPv6]:PORT` or `:PORT`. @throws USAGE */
export function parseListen(text: string): Listen {
  const [, host = '', digits = ''] = /^(.*):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits !== '' && port <= 65_535 && (host === '' || isHost(host))) {
    return { host: host.replace(/^\[|\]$/g, ''), port };
  }
  throw new SealiftError('USAGE', `--listen: "${text.slice(0, 100)}" is not an address`, {
    hint: 'write HOST:PORT, for example 127.0.0.1:5000, or :5000 for all networks',
  });
}

function isLoopback(host: string): boolean {
  return host === '::1' || host === 'localhost' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** Whether a certificate is for a name or an address. */
function isFor(certificate: X509Certificate, host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '');
  const found = isIP(bare) === 0 ? certificate.checkHost(bare) : certificate.checkIP(bare);
  return found !== undefined;
}

/** A name that a certificate is for, other than a pattern. */
function nameIn({ subjectAltName }: X509Certificate): string | undefined {
  const names = (subjectAltName ?? '').split(', ').flatMap((name) => /^DNS:(.+)$/.exec(name)?.[1] ?? []);
  return names.find((name) => isHost(name));
}

/** By what name clients reach a server that listens on every address. */
function ownName(certificate: X509Certificate | undefined): string {
  const name = hostname();
  if (certificate === undefined || isFor(certificate, name)) return name;
  return nameIn(certificate) ?? name;
}

/**
 * Where clients can reach the server, `https://host:port`: by the name that was given, by its address, or where it listens on
 * every address by this machine's name, or by one that its certificate is for.
 */
export function addressOf(
  server: { readonly host: string; readonly port: number },
  { host, tls }: { readonly host: string; readonly tls: Pair | undefined },
): string {
  const scheme = tls === undefined ? 'http' : 'https';
  const certificate = tls === undefined ? undefined : new X509Certificate(tls.cert);
  if (['', '::', '0.0.0.0'].includes(host)) return `${scheme}://${ownName(certificate)}:${server.port}`;
  return isIP(host) === 0 ? `${scheme}://${host}:${server.port}` : `${scheme}://${server.host}`;
}

/** What somebody may not have meant, a sentence each. */
export function doubtsAbout(server: {
  readonly listen: Listen;
  readonly url: string;
  readonly tls: Pair | undefined;
  readonly isPrivate: boolean;
  /** Milliseconds since the epoch. */
  readonly now: number;
}): string[] {
  const { listen, url, tls, isPrivate, now } = server;
  const doubts: string[] = [];
  if (!isLoopback(listen.host)) {
    if (!isPrivate) doubts.push('everybody who reaches this machine can read the bundle (--auth)');
    else if (tls === undefined) doubts.push('passwords travel in the open (--tls)');
  }
  if (tls === undefined) return doubts;
  const certificate = new X509Certificate(tls.cert);
  const { hostname: name } = new URL(url);
  if (!isFor(certificate, name)) doubts.push(`the certificate is not for ${name}: clients will refuse it`);
  const [from, to] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
  if (now < from) doubts.push(`the certificate holds only from ${new Date(from).toISOString()} on`);
  if (now > to) doubts.push(`the certificate held only until ${new Date(to).toISOString()}`);
  return doubts;
}
