import { type ErrorCode, isAbort, redact, SealiftError } from '../core/errors.ts';

/**
 * How much a finding of a check weighs. `ok`: looked at and right. `info`: worth knowing, or could not be looked at.
 * `warning`: a load works, something beside it may not. `fault`: a load would fail.
 */
export type Level = 'ok' | 'info' | 'warning' | 'fault';

/** What a check can find, beside the codes of errors. A new one is added here or nowhere. */
const CODES = [
  'ANONYMOUS_PULL',
  'BLOB_STORE',
  'CONNECTOR',
  'CONTENT_ISOLATED',
  'CONTENT_TYPE_STRICT',
  'CRI_ABSENT',
  'EULA',
  'FOLDER',
  'HALF_WRITTEN',
  'IMAGES_INCOMPLETE',
  'IMAGES_UNPINNED',
  'IMAGES_WRONG_NAMESPACE',
  'INDEX',
  'LAYERS_DISCARDED',
  'LEASES_LEFT',
  'LIMITS',
  'LOGIN',
  'NAMESPACE',
  'NAMES_NOT_CANONICAL',
  'QUOTA',
  'REACHABLE',
  'REFERRERS',
  'REPOSITORY',
  'REPOSITORY_ABSENT',
  'REPOSITORY_FORMAT',
  'REPOSITORY_OFFLINE',
  'REPOSITORY_TYPE',
  'RIGHTS',
  'SANDBOX_IMAGE',
  'SPACE',
  'STATE_UNKNOWN',
  'STORE_READ_ONLY',
  'UPLOADS_LEFT',
  'VERSION_BUG',
  'VERSION_OLD',
  'WRITE_POLICY',
] as const;

export type FindingCode = (typeof CODES)[number] | ErrorCode;

/** One thing that a check found out about a target. */
export interface Finding {
  readonly level: Level;
  readonly code: FindingCode;
  /** What was found, where. One line. */
  readonly message: string;
  /** What to do: a command, a curl line, or the place in a program's pages. */
  readonly fix?: string;
  /** JSON-safe facts. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/** Free bytes of the place that a target writes to. */
export interface Room {
  readonly free: number;
  /** For people: a folder, a blob store. */
  readonly where: string;
}

/** What a check of one target tells. */
export interface TargetReport {
  readonly findings: readonly Finding[];
  /** Absent where it cannot be known. */
  readonly room?: Room;
}

/** A finding whose texts hold no secrets. */
export function finding(
  level: Level,
  code: FindingCode,
  about: { readonly message: string; readonly fix?: string; readonly details?: Finding['details'] },
): Finding {
  return {
    level,
    code,
    message: redact(about.message),
    ...(about.fix === undefined ? {} : { fix: redact(about.fix) }),
    ...(about.details === undefined ? {} : { details: about.details }),
  };
}

/** A refusal of a target as a fault that its check found. @throws what is no refusal: stops, bugs */
export function findingOf(error: unknown, level: Level = 'fault'): Finding {
  if (isAbort(error) || !(error instanceof SealiftError)) throw error;
  const { code, message, hint, details } = error;
  return finding(level, code, {
    message,
    ...(hint === undefined ? {} : { fix: hint }),
    ...(details === undefined ? {} : { details }),
  });
}

/** Names that a message shows; all are in the details. */
const NAMES_SHOWN = 3;

/** The first names of a list, and how many more there are. */
export function someOf(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_SHOWN).join(', ');
  return names.length <= NAMES_SHOWN ? shown : `${shown} and ${names.length - NAMES_SHOWN} more`;
}
