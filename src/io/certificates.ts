import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { diskError, kindOf, readFileIfExists, readFileLimited } from './files.ts';

/** How to talk to one host, where it differs from plain HTTPS with the system's trust. Plain data: it goes to threads. */
export interface TlsOptions {
  /** Accept any certificate. Only when the manifest or a flag says so for that host. */
  readonly insecure?: boolean;
  /** PEM file with CAs to trust besides the well-known ones. */
  readonly caFile?: string;
  /** PEM file with the certificate that says who we are; needs `clientKey`. */
  readonly clientCert?: string;
  /** PEM file with its private key, not encrypted. */
  readonly clientKey?: string;
}

/** Only the TLS settings of a host's configuration. */
export function tlsOptionsOf(config: TlsOptions): TlsOptions {
  const { insecure, caFile, clientCert, clientKey } = config;
  return {
    ...(insecure === undefined ? {} : { insecure }),
    ...(caFile === undefined ? {} : { caFile }),
    ...(clientCert === undefined ? {} : { clientCert }),
    ...(clientKey === undefined ? {} : { clientKey }),
  };
}

type Env = Readonly<Record<string, string | undefined>>;

/** A certificate and its private key. */
export interface Pair {
  readonly cert: string;
  readonly key: string;
}

const PEM_CERTIFICATE =
  /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[\s\S]+?-----END (?:X509 |TRUSTED )?CERTIFICATE-----/g;

/** TLS settings of one address for another that it leads to: `insecure` and who we are stay with the host name that they were said for. */
export function tlsTowards(tls: TlsOptions, way: { readonly from: URL; readonly to: URL }): TlsOptions {
  if (way.to.hostname === way.from.hostname) return tls;
  return tls.caFile === undefined ? {} : { caFile: tls.caFile };
}

async function readPem(path: string): Promise<string> {
  const options = { limit: LIMITS.certificates, missing: 'FILE_NOT_FOUND' } as const;
  return (await readFileLimited(path, options)).toString('latin1');
}

function broken(
  path: string,
  what: string,
  more: { readonly hint: string; readonly cause?: unknown },
): never {
  throw new SealiftError('TLS_FILE_INVALID', `${path}: ${what}`, more);
}

/** Reads certificates and checks that each can be parsed. @throws TLS_FILE_INVALID, FILE_NOT_FOUND, FILE_UNREADABLE */
async function readCertificates(
  path: string,
): Promise<{ readonly pem: string; readonly first: X509Certificate }> {
  const pem = await readPem(path);
  const found: X509Certificate[] = [];
  for (const [text] of pem.matchAll(PEM_CERTIFICATE)) {
    try {
      found.push(new X509Certificate(text));
    } catch (cause) {
      broken(path, `certificate ${found.length + 1} cannot be read`, {
        cause,
        hint: 'copy the file again: it is damaged',
      });
    }
  }
  const [first] = found;
  if (first !== undefined) return { pem, first };
  return broken(path, 'no certificate in PEM form', {
    hint: `a binary one is converted with \`openssl x509 -inform der -in ${path} -out ca.crt\``,
  });
}

/**
 * A certificate, perhaps with those that lead to its CA, and its private key; both as PEM.
 * @throws TLS_FILE_INVALID, FILE_NOT_FOUND, FILE_UNREADABLE
 */
export async function readPair(certPath: string, keyPath: string): Promise<Pair> {
  const { pem: cert, first } = await readCertificates(certPath);
  const key = await readPem(keyPath);
  let parsed: ReturnType<typeof createPrivateKey>;
  try {
    parsed = createPrivateKey(key);
  } catch (cause) {
    return broken(
      keyPath,
      /ENCRYPTED/.test(key) ? 'the key has a pass phrase' : 'no private key in PEM form',
      {
        cause,
        hint: 'give the key without a pass phrase, readable only by you: `openssl pkey -in KEY -out client.key`',
      },
    );
  }
  if (first.checkPrivateKey(parsed)) return { cert, key };
  return broken(keyPath, `is not the key of ${certPath}`, {
    hint: 'give the two files that belong together',
  });
}

/** What one host folder of certs.d holds. */
interface HostFolder {
  readonly ca: readonly string[];
  readonly pairs: readonly Pair[];
}

async function readHostFolder(folder: string): Promise<HostFolder> {
  let names: string[];
  try {
    names = (await readdir(folder)).sort();
  } catch (error) {
    throw diskError(error, folder);
  }
  const known = new Set(names);
  const ca: string[] = [];
  const pairs: Pair[] = [];
  for (const name of names) {
    const [, stem, kind] = /^(.*)\.(crt|cert|key)$/.exec(name) ?? [];
    if (kind === 'crt') ca.push((await readCertificates(join(folder, name))).pem);
    if (kind === 'key' && !known.has(`${stem}.cert`)) {
      broken(join(folder, name), `there is no ${stem}.cert beside it`, {
        hint: 'a client certificate is a pair NAME.cert and NAME.key',
      });
    }
    if (kind !== 'cert') continue;
    if (!known.has(`${stem}.key`)) {
      broken(join(folder, name), `there is no ${stem}.key beside it`, {
        hint: 'a client certificate is a pair NAME.cert and NAME.key; a CA must be called NAME.crt',
      });
    }
    pairs.push(await readPair(join(folder, name), join(folder, `${stem}.key`)));
  }
  return { ca, pairs };
}

/**
 * Folders with one folder `host[:port]` each, in the order of containers/image (containers-certs.d(5)); docker's is the
 * last. SEALIFT_CERTS_D names others instead, separated by colons.
 */
function certsFolders(env: Env): string[] {
  const named = env.SEALIFT_CERTS_D;
  if (named !== undefined) return named.split(':').filter((folder) => folder !== '');
  const own = env.HOME === undefined || env.HOME === '' ? [] : [join(env.HOME, '.config/containers/certs.d')];
  return [...own, '/etc/containers/certs.d', '/etc/docker/certs.d'];
}

/** The first certs.d folder of a host: there is never more than one in use (registry.md 1.1). */
async function findHostFolder(url: URL, env: Env): Promise<HostFolder | undefined> {
  const names = url.port === '' ? [url.host, `${url.host}:443`] : [url.host];
  for (const folder of certsFolders(env)) {
    for (const name of names) {
      const path = join(folder, name);
      if ((await kindOf(path)) === 'folder') return readHostFolder(path);
    }
  }
  return undefined;
}

async function ownPair(tls: TlsOptions, url: URL): Promise<Pair | undefined> {
  const { clientCert, clientKey } = tls;
  if (clientCert === undefined && clientKey === undefined) return undefined;
  if (clientCert === undefined || clientKey === undefined) {
    throw new SealiftError(
      'USAGE',
      `${url.host}: a client certificate needs its key, and a key its certificate`,
      {
        hint: 'give both clientCert and clientKey (--client-cert and --client-key)',
      },
    );
  }
  return readPair(clientCert, clientKey);
}

/** What Node adds to its own CAs for the whole process, which naming any CA would take away. */
async function extraCas(env: Env): Promise<readonly string[]> {
  const path = env.NODE_EXTRA_CA_CERTS;
  if (path === undefined || path === '') return [];
  const bytes = await readFileIfExists(path).catch(() => undefined);
  return bytes === undefined ? [] : [bytes.toString('latin1')];
}

/**
 * The trust and the client certificates for one https address: what the options say, and from docker's and containers'
 * `certs.d` what they do not say (`*.crt` are CAs, `NAME.cert` with `NAME.key` is a client's pair). Undefined where
 * Node's defaults do.
 * @throws TLS_FILE_INVALID, FILE_NOT_FOUND, FILE_UNREADABLE, CONTENT_TOO_LARGE, USAGE
 */
export async function secureContextFor(
  url: URL,
  options: { readonly tls: TlsOptions; readonly env: Env },
): Promise<SecureContext | undefined> {
  const { tls, env } = options;
  const folder = await findHostFolder(url, env);
  const ca = tls.caFile === undefined ? (folder?.ca ?? []) : [(await readCertificates(tls.caFile)).pem];
  const own = await ownPair(tls, url);
  const pairs = own === undefined ? (folder?.pairs ?? []) : [own];
  if (ca.length + pairs.length === 0) return undefined;
  return createSecureContext({
    // The well-known CAs stay: a redirect may lead to a public host.
    ...(ca.length === 0 ? {} : { ca: [...rootCertificates, ...(await extraCas(env)), ...ca] }),
    ...(pairs.length === 0 ? {} : { cert: pairs.map((p) => p.cert), key: pairs.map((p) => p.key) }),
  });
}
