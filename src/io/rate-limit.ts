import { LIMITS } from '../core/limits.ts';

/** What a server tells about its limit on requests, as Docker Hub does with every manifest. */
export interface Quota {
  /** Requests in one window. */
  readonly limit: number | undefined;
  /** Requests that are left. */
  readonly remaining: number;
  /** Length of the window in milliseconds. */
  readonly windowMs: number | undefined;
  /** Whether it counts by a login, and not by our address; undefined when it does not say. */
  readonly byLogin: boolean | undefined;
}

type Headers = Readonly<Record<string, string>>;

/** `76;w=21600`: a number and a window in seconds. */
function numberAndWindow(text: string | undefined): {
  readonly value: number | undefined;
  readonly windowMs: number | undefined;
} {
  const [, value, , seconds] = /^\s*(\d{1,15})(\s*;[^,]*?\bw=(\d{1,9})\b)?/.exec(text ?? '') ?? [];
  return {
    value: value === undefined ? undefined : Number(value),
    windowMs: seconds === undefined ? undefined : Number(seconds) * 1000,
  };
}

/** Reads `ratelimit-limit`, `ratelimit-remaining` and `docker-ratelimit-source` (registry.md 1.3 "Docker Hub"). */
export function quotaOf(headers: Headers): Quota | undefined {
  const limit = numberAndWindow(headers['ratelimit-limit']);
  const remaining = numberAndWindow(headers['ratelimit-remaining']);
  if (remaining.value === undefined) return undefined;
  const source = headers['docker-ratelimit-source'];
  return {
    limit: limit.value,
    remaining: remaining.value,
    windowMs: remaining.windowMs ?? limit.windowMs,
    // An address, or the id of an account.
    byLogin: source === undefined ? undefined : !/^[\d.]+$|:/.test(source.trim()),
  };
}

/**
 * Milliseconds that an answer asks to wait (seconds or HTTP date, RFC 9110 10.2.3; so many seconds that they can only
 * be a point in time are one); undefined when it does not.
 */
function retryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  const seconds = Number(value);
  const at = Number.isFinite(seconds) ? (seconds > 1e9 ? 0 : now) + seconds * 1000 : Date.parse(value);
  return Number.isFinite(at) ? Math.max(at - now, 0) : undefined;
}

/** Milliseconds that an answer asks to wait, at most LIMITS.retryAfterMs; undefined when it does not. */
export function retryAfterMs(value: string | undefined, now: number): number | undefined {
  const ms = retryAfter(value, now);
  return ms === undefined ? undefined : Math.min(ms, LIMITS.retryAfterMs);
}

/** How long a refusal is meant. */
export interface Refusal {
  /** Milliseconds until it is worth asking again. */
  readonly waitMs: number;
  /** When it is over at the latest, in milliseconds since the epoch. */
  readonly until: number;
  /** The longest that is waited for it in all, in milliseconds. */
  readonly boundMs: number;
}

/**
 * How long a refusal is meant: Retry-After, else (429) the window of the limit. When in the window the limit ends is not
 * told, so it is asked for a few times until then: a refused request costs nothing. Undefined when nothing is stated.
 */
export function refusalOf(
  answer: { readonly status: number; readonly headers: Headers },
  now: number,
): Refusal | undefined {
  const { status, headers } = answer;
  const quota = status === 429 ? quotaOf({ 'ratelimit-remaining': '0', ...headers }) : undefined;
  const windowMs = quota?.windowMs;
  const boundMs =
    status === 429
      ? Math.min(Math.max(windowMs ?? 0, LIMITS.rateLimitMs), 24 * 3_600_000)
      : LIMITS.retryAfterMs;
  const asked = retryAfter(headers['retry-after'], now);
  if (asked !== undefined) return { waitMs: asked, until: now + asked, boundMs };
  if (windowMs === undefined) return undefined;
  const part = Math.min(windowMs, Math.max(windowMs / 24, LIMITS.limitProbeMs));
  return { waitMs: part, until: now + windowMs, boundMs };
}

/** When a limit ends at the latest, as a point in time to be shown (`2026-01-01T06:00:00Z`); undefined when it is not told. */
export function limitEnd(
  answer: { readonly status: number; readonly headers: Headers },
  now: number,
): string | undefined {
  const until = refusalOf(answer, now)?.until;
  // The clock of a far server may be anything; a Date holds no more than this.
  return until === undefined || until > 8.64e15
    ? undefined
    : new Date(until).toISOString().replace(/\.\d+/, '');
}
