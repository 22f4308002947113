/**
 * The one error class, its closed list of codes, and how a code becomes an exit code.
 * Checks return `Fault[]`; work that cannot go on throws a `SealiftError`, which may carry many faults.
 */

/** Exit codes of the program (design, "On the screen"). */
export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  checkSaysNo: 3,
  auth: 4,
  integrity: 5,
  interrupted: 130,
} as const;

/** Every code, with the exit code that it leads to. A new code is added here or nowhere. */
const CODES = {
  ABORTED: EXIT.interrupted,
  ARCHIVE_INVALID: EXIT.integrity,
  AUTH_DENIED: EXIT.auth,
  AUTH_FILE_BUSY: EXIT.failed,
  AUTH_REQUIRED: EXIT.auth,
  AUTH_STORED_PLAIN: EXIT.failed,
  BUNDLE_CHECKSUM_MISMATCH: EXIT.integrity,
  BUNDLE_ENTRY_EXTRA: EXIT.integrity,
  BUNDLE_ENTRY_MISSING: EXIT.integrity,
  BUNDLE_GRAPH_INCOMPLETE: EXIT.integrity,
  BUNDLE_LOCK_DIFFERS: EXIT.integrity,
  BUNDLE_NOT_CANONICAL: EXIT.integrity,
  BUNDLE_NOT_FOUND: EXIT.usage,
  BUNDLE_TOO_NEW: EXIT.usage,
  BUNDLE_TREE_MISMATCH: EXIT.integrity,
  BUNDLE_TRUNCATED: EXIT.integrity,
  BUNDLE_UNREACHABLE: EXIT.failed,
  BUNDLE_VOLUME_MISSING: EXIT.integrity,
  BUNDLE_VOLUME_WRONG: EXIT.integrity,
  BUNDLE_BASE_MISSING: EXIT.integrity,
  CHART_ARCHIVE_BOMB: EXIT.integrity,
  CHART_ARCHIVE_INVALID: EXIT.integrity,
  CHART_ARCHIVE_LINK: EXIT.integrity,
  CHART_ARCHIVE_ROOTS: EXIT.integrity,
  CHART_ARCHIVE_SPECIAL: EXIT.integrity,
  CHART_ARCHIVE_TRAVERSAL: EXIT.integrity,
  CHART_INDEX_INVALID: EXIT.failed,
  CHART_INDEX_MISMATCH: EXIT.integrity,
  CHART_INVALID: EXIT.integrity,
  CHART_REPUBLISHED: EXIT.checkSaysNo,
  CHART_VERSION_NOT_FOUND: EXIT.failed,
  CONTENT_DIGEST_MISMATCH: EXIT.integrity,
  CONTENT_NOT_FOUND: EXIT.failed,
  CONTENT_SIZE_MISMATCH: EXIT.integrity,
  CONTENT_TOO_LARGE: EXIT.integrity,
  CONTENT_UNSUPPORTED: EXIT.failed,
  DIGEST_INVALID: EXIT.usage,
  DISK_FULL: EXIT.failed,
  DRIFT_FOUND: EXIT.checkSaysNo,
  FILE_CHECKSUM_MISMATCH: EXIT.integrity,
  FILE_NOT_FOUND: EXIT.usage,
  FILE_UNREADABLE: EXIT.failed,
  IMAGE_FOREIGN_LAYERS: EXIT.failed,
  IMAGE_PLATFORM_MISSING: EXIT.failed,
  IMAGE_TAG_FLOATING: EXIT.usage,
  INTERNAL: EXIT.failed,
  KEY_INVALID: EXIT.usage,
  KEY_PASSWORD_WRONG: EXIT.auth,
  LOCK_INVALID: EXIT.usage,
  LOCK_NOT_FOUND: EXIT.checkSaysNo,
  LOCK_STALE: EXIT.checkSaysNo,
  MANIFEST_CONFLICT: EXIT.usage,
  MANIFEST_EMPTY: EXIT.usage,
  MANIFEST_INVALID: EXIT.usage,
  MANIFEST_NOT_FOUND: EXIT.usage,
  MEMORY_LACKING: EXIT.failed,
  NETWORK_FAILED: EXIT.failed,
  NETWORK_TIMEOUT: EXIT.failed,
  NETWORK_URL_REFUSED: EXIT.failed,
  OCI_MANIFEST_INVALID: EXIT.integrity,
  OUTPUT_CLOSED: EXIT.failed,
  PACKAGE_INVALID: EXIT.integrity,
  PACKAGE_NOT_FOUND: EXIT.failed,
  PACKAGE_UNRESOLVED: EXIT.failed,
  PACKAGE_YANKED: EXIT.failed,
  PACK_BUSY: EXIT.failed,
  PLATFORM_INVALID: EXIT.usage,
  POLICY_DOWNGRADE: EXIT.integrity,
  REFERENCE_INVALID: EXIT.usage,
  RESOLVER_MISSING: EXIT.usage,
  REGISTRY_ANSWER_INVALID: EXIT.failed,
  REGISTRY_FAILED: EXIT.failed,
  REGISTRY_RATE_LIMITED: EXIT.failed,
  REGISTRY_WARNING: EXIT.failed,
  SIGNATURE_COMMENT_MISMATCH: EXIT.integrity,
  SIGNATURE_INVALID: EXIT.integrity,
  SIGNATURE_KEY_UNKNOWN: EXIT.integrity,
  SIGNATURE_MISSING: EXIT.integrity,
  SITE_INVALID: EXIT.usage,
  SITE_NOT_READY: EXIT.checkSaysNo,
  TARGET_BUSY: EXIT.failed,
  TARGET_CONFLICT: EXIT.failed,
  TARGET_FAILED: EXIT.failed,
  TARGET_FULL: EXIT.failed,
  TARGET_NAME_COLLISION: EXIT.usage,
  TARGET_READ_ONLY: EXIT.failed,
  TARGET_UNREACHABLE: EXIT.failed,
  TLS_FILE_INVALID: EXIT.usage,
  USAGE: EXIT.usage,
} as const;

export type ErrorCode = keyof typeof CODES;

/** A place in a text that a person wrote: 1-based line and column. */
export interface Position {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** One thing that is wrong, as data: what a check returns and what an error carries. */
export interface Fault {
  readonly code: ErrorCode;
  /** What, where, expected and found. One line. */
  readonly message: string;
  /** What to do about it, as a command where possible. */
  readonly hint?: string;
  readonly position?: Position;
  /** JSON-safe facts for `--json` (digests, sizes, offsets in bytes). */
  readonly details?: Readonly<Record<string, unknown>>;
}

export interface ErrorOptions {
  readonly hint?: string;
  readonly cause?: unknown;
  readonly details?: Readonly<Record<string, unknown>>;
  /** All faults when there are several; the message then is the headline. */
  readonly faults?: readonly Fault[];
  /** Which end of a copy failed. */
  readonly side?: 'source' | 'destination';
}

const SECRET_QUERY =
  /([?&](?:token|access_token|refresh_token|sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+|password|secret|key|credential)=)[^&\s"']*/gi;
const SECRET_USERINFO = /(\b[a-z][a-z0-9+.-]*:\/\/)[^/\s@"']+@/gi;
const SECRET_HEADER = /\b(authorization\s*[:=]\s*"?)?(bearer|basic)\s+[a-z0-9+/=._~-]{6,}/gi;

/** Removes passwords, tokens and signed queries from a text that a person or a log will see (registry.md A10). */
export function redact(text: string): string {
  return text
    .replace(SECRET_USERINFO, '$1***@')
    .replace(SECRET_QUERY, '$1***')
    .replace(SECRET_HEADER, '$1$2 ***');
}

/** The error of every operation. `message` and `hint` are redacted when it is made. */
export class SealiftError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, unknown>> | undefined;
  readonly faults: readonly Fault[];
  readonly side: 'source' | 'destination' | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(redact(message), options.cause === undefined ? {} : { cause: options.cause });
    this.name = 'SealiftError';
    this.code = code;
    this.hint = options.hint === undefined ? undefined : redact(options.hint);
    this.details = options.details;
    this.faults = options.faults ?? [];
    this.side = options.side;
  }
}

/** The exit code that belongs to an error code. */
export function exitCodeOf(code: ErrorCode): number {
  return CODES[code];
}

/** True for any string of the closed list. */
export function isErrorCode(value: string): value is ErrorCode {
  return Object.hasOwn(CODES, value);
}

/** Makes a fault with a redacted message. */
export function fault(code: ErrorCode, message: string, more: Omit<Fault, 'code' | 'message'> = {}): Fault {
  return {
    code,
    message: redact(message),
    ...more,
    ...(more.hint === undefined ? {} : { hint: redact(more.hint) }),
  };
}

/** One error for many faults: the headline, the first fault's code unless one is given, every fault inside. */
export function errorOf(faults: readonly Fault[], headline: string, code?: ErrorCode): SealiftError {
  const first = faults[0];
  if (first !== undefined && faults.length === 1 && code === undefined) {
    return new SealiftError(first.code, first.message, {
      ...(first.hint === undefined ? {} : { hint: first.hint }),
      ...(first.details === undefined ? {} : { details: first.details }),
      faults,
    });
  }
  const hint = faults.find((f) => f.hint !== undefined)?.hint;
  return new SealiftError(code ?? first?.code ?? 'INTERNAL', headline, {
    faults,
    ...(hint === undefined ? {} : { hint }),
  });
}

/** An error as a fault, for lists that go on after a failure. */
export function faultOf(error: unknown): Fault {
  if (error instanceof SealiftError) {
    return fault(error.code, error.message, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(error.details === undefined ? {} : { details: error.details }),
    });
  }
  return fault('INTERNAL', error instanceof Error ? error.message : String(error));
}

/** True when the work was stopped from outside (Ctrl-C), whichever layer noticed first. */
export function isAbort(error: unknown): boolean {
  if (error instanceof SealiftError) return error.code === 'ABORTED';
  return error instanceof Error && (error.name === 'AbortError' || error.name === 'RequestAbortedError');
}
