import { SealiftError } from '../core/errors.ts';
import { FEW_FILES } from './files.ts';

/** The parser's own code is there in some versions of undici only. */
const NOT_HTTP = 'HPE_NOT_HTTP';

/** No more connections at once: one of the others may end soon. */
const FEW_CODES = new Set(['EMFILE', 'ENFILE']);

const NETWORK_CODES = new Set([
  NOT_HTTP,
  ...FEW_CODES,
  'ECONNRESET',
  'ECONNREFUSED',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_SOCKET',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_CLOSED',
  'UND_ERR_DESTROYED',
]);

/** Codes of OpenSSL's verification (`CERT_HAS_EXPIRED`, `UNABLE_TO_VERIFY_LEAF_SIGNATURE` …) and of Node's TLS. */
const TLS_CODE = /^ERR_TLS|CERT|SELF_SIGNED|SSL|^UNABLE_TO_/;

/** The system codes of an error and of what caused it. */
function codesOf(error: unknown): string[] {
  const codes: string[] = [];
  for (let e = error, depth = 0; e instanceof Error && depth < 4; e = e.cause, depth++) {
    // By its name: the general client is loaded only when it is needed.
    if (e.name === 'HTTPParserError') codes.push(NOT_HTTP);
    else if ('code' in e && typeof e.code === 'string') codes.push(e.code);
  }
  return codes;
}

/** True for faults of the wire, which a new try may cure. */
export function isNetworkError(error: unknown): boolean {
  if (error instanceof SealiftError)
    return error.code === 'NETWORK_FAILED' || error.code === 'NETWORK_TIMEOUT';
  return codesOf(error).some((c) => NETWORK_CODES.has(c));
}

/** True where TLS itself failed: a certificate that is not trusted, or no TLS on the other side. */
export function isTlsError(error: unknown): boolean {
  return codesOf(error).some((c) => TLS_CODE.test(c));
}

/** What an error says, for a line on the screen: its message, else its code. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'broken';
  return error.message || (codesOf(error)[0] ?? 'broken');
}

/**
 * A fault of the wire as our error; other errors pass unchanged.
 * @param options.redirected whether another server sent us there; `details` then says so
 */
export function networkError(
  error: unknown,
  where: string,
  options: { readonly redirected?: boolean } = {},
): unknown {
  if (error instanceof SealiftError) return error;
  const codes = codesOf(error);
  const cause = { cause: error };
  if (codes.some((c) => c.includes('TIMEOUT') || c === 'ETIMEDOUT')) {
    return new SealiftError('NETWORK_TIMEOUT', `${where}: no answer in time`, {
      ...cause,
      hint: 'check the network, the port and proxies in between, then run the same command again',
    });
  }
  if (codes.some((c) => TLS_CODE.test(c))) {
    // An alert is what the other side says of us, the rest is what we say of its certificate.
    const isAlert = codes.some((c) => c.includes('_ALERT_'));
    return new SealiftError(
      'NETWORK_FAILED',
      `${where}: TLS failed (${codes.find((c) => TLS_CODE.test(c))})`,
      {
        ...cause,
        hint: isAlert
          ? 'the server broke off the handshake: it may want a client certificate (registries.<host>.clientCert and clientKey, --client-cert and --client-key, or certs.d)'
          : 'give the CA with registries.<host>.caFile, --ca-file or certs.d, or plainHttp: true when the server has no TLS',
      },
    );
  }
  if (codes.includes('UND_ERR_REQ_CONTENT_LENGTH_MISMATCH')) {
    return new SealiftError(
      'CONTENT_SIZE_MISMATCH',
      `${where}: the body to send has not the announced size`,
      {
        ...cause,
        side: 'source',
      },
    );
  }
  if (isNetworkError(error)) {
    const [system] = codes.filter((c) => NETWORK_CODES.has(c));
    return new SealiftError('NETWORK_FAILED', `${where}: ${reasonOf(error)}`, {
      ...cause,
      details: { system, ...(options.redirected === true ? { redirected: true } : {}) },
      hint: FEW_CODES.has(system ?? '')
        ? FEW_FILES
        : 'check the host name, the port and the network, then run the same command again',
    });
  }
  return error;
}

/** A fault of the wire that says how often it was tried; other errors pass unchanged. */
export function afterTries(error: unknown, tries: number): unknown {
  if (!(error instanceof SealiftError) || !isNetworkError(error) || tries < 2) return error;
  return new SealiftError(error.code, `${error.message} (tried ${tries} times)`, {
    cause: error.cause,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(error.details === undefined ? {} : { details: error.details }),
    ...(error.side === undefined ? {} : { side: error.side }),
  });
}
