/** The faults of the matrix: what goes wrong, and whether one of it must heal. */
import type { WireFault } from '../support/fault-proxy.ts';

export interface Case {
  readonly name: string;
  /** In turn, for the requests to the place that is hit. `at` is a byte of the body there. */
  readonly faults: (at: number) => readonly WireFault[];
  /** Whether a run with it once must come to its end by itself. */
  readonly heals: boolean;
  /** Whether a run where it happens every time may still come to its end. Default false. */
  readonly harmless?: boolean;
}

const HTML = { 'content-type': 'text/html' };
const PAGE = '<!doctype html><html><body><h1>Please log in to the hotel network</h1></body></html>';
const CHALLENGE = { 'www-authenticate': 'Bearer realm="http://{host}/token",service="sealift"' };

function refuses(status: number, heals: boolean, headers: Readonly<Record<string, string>> = {}): Case {
  const after = headers['retry-after'];
  const name = `HTTP ${status}${after === undefined ? '' : ` with Retry-After: ${after}`}`;
  return { name, heals, faults: () => [{ kind: 'answer', status, headers }] };
}

/** Refusals of any request. */
export const REFUSALS: readonly Case[] = [
  refuses(403, false),
  refuses(404, false),
  refuses(408, true),
  refuses(413, false),
  refuses(429, true),
  refuses(429, true, { 'retry-after': '0.02' }),
  // Longer than anybody waits.
  refuses(429, false, { 'retry-after': 'Sun, 01 Jan 2034 00:00:00 GMT' }),
  refuses(500, true),
  refuses(502, true),
  refuses(503, true),
  {
    name: 'HTTP 401 (the token ended)',
    heals: true,
    faults: () => [{ kind: 'answer', status: 401, headers: CHALLENGE }],
  },
  {
    name: 'a web page with HTTP 200',
    heals: false,
    faults: () => [{ kind: 'answer', status: 200, headers: HTML, body: PAGE }],
  },
  {
    name: 'a web page with HTTP 503',
    heals: true,
    faults: () => [{ kind: 'answer', status: 503, headers: HTML, body: PAGE }],
  },
  {
    name: 'a redirect in a circle',
    heals: false,
    faults: () => Array(12).fill({ kind: 'answer', status: 307, headers: { location: '{self}' } }),
  },
];

/** What can happen to the bytes of an answer. */
export const ANSWERS: readonly Case[] = [
  { name: 'a cut', heals: true, faults: (at) => [{ kind: 'cut', after: at }] },
  { name: 'a reset', heals: true, faults: (at) => [{ kind: 'reset', after: at }] },
  { name: 'silence', heals: true, faults: (at) => [{ kind: 'stall', after: at }] },
  { name: 'an end too early', heals: true, faults: (at) => [{ kind: 'truncate', after: at }] },
  { name: 'a wrong byte', heals: true, faults: (at) => [{ kind: 'flip', at }] },
  { name: 'a Content-Length too small', heals: true, faults: () => [{ kind: 'length', by: -7 }] },
  { name: 'a Content-Length too large', heals: true, faults: () => [{ kind: 'length', by: 7 }] },
  {
    name: 'single bytes, slowly',
    heals: true,
    harmless: true,
    faults: () => [{ kind: 'slow', pieces: 20 }],
  },
  {
    name: 'a cut, and then a token that ended',
    heals: true,
    faults: (at) => [
      { kind: 'cut', after: at },
      { kind: 'answer', status: 401, headers: CHALLENGE },
    ],
  },
];

/** What can happen to the bytes of an upload. */
export const UPLOADS: readonly Case[] = [
  { name: 'a cut', heals: true, faults: (at) => [{ kind: 'upload-cut', at }] },
  { name: 'a reset', heals: true, faults: (at) => [{ kind: 'upload-reset', at }] },
  { name: 'silence', heals: true, faults: (at) => [{ kind: 'upload-stall', at }] },
  { name: 'a wrong byte', heals: true, faults: (at) => [{ kind: 'upload-flip', at }] },
  {
    name: 'HTTP 401 in the middle (the token ended)',
    heals: true,
    faults: (at) => [{ kind: 'answer', status: 401, headers: CHALLENGE, after: at }],
  },
  {
    name: 'HTTP 413 in the middle',
    heals: true,
    faults: (at) => [{ kind: 'answer', status: 413, after: at }],
  },
  {
    name: 'HTTP 503 in the middle',
    heals: true,
    faults: (at) => [{ kind: 'answer', status: 503, after: at }],
  },
  { name: 'a lost answer', heals: true, faults: () => [{ kind: 'lost-answer' }] },
];
