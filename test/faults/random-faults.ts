/** Faults that are dealt at random: for each kind of request a shuffled deck, so that every fault of it has its turn. */
import type { FaultProxy, Seen, WireFault } from '../support/fault-proxy.ts';

type Random = () => number;

/** A fault for a request or an answer whose body has so many bytes. */
type Card = (about: { readonly size: number; readonly at: number; readonly seen: Seen }) => WireFault;

const HTML = { 'content-type': 'text/html' };
const PAGE = '<!doctype html><html><body><h1>Please log in to the hotel network</h1></body></html>';
const CHALLENGE = { 'www-authenticate': 'Bearer realm="http://{host}/token",service="sealift"' };
const FAR = { 'retry-after': 'Sun, 01 Jan 2034 00:00:00 GMT' };
const OTHER = `sha256:${'0'.repeat(64)}`;
/** Requests below it are sent back to it for ever. */
const LOOP = '/loop';

function refuses(status: number, headers: Readonly<Record<string, string>> = {}): Card {
  return () => ({ kind: 'answer', status, headers });
}

const REFUSALS: readonly Card[] = [
  refuses(401, CHALLENGE),
  ...[403, 404, 408, 413, 429, 500, 502, 503].map((status) => refuses(status)),
  refuses(429, { 'retry-after': '0.02' }),
  refuses(429, FAR),
  () => ({ kind: 'answer', status: 200, headers: HTML, body: PAGE }),
  () => ({ kind: 'answer', status: 503, headers: HTML, body: PAGE }),
  () => ({ kind: 'answer', status: 307, headers: { location: LOOP } }),
];

const SILENT: readonly Card[] = [
  () => ({ kind: 'cut', after: 0 }),
  () => ({ kind: 'reset', after: 0 }),
  () => ({ kind: 'stall', after: 0 }),
];

const CONTENT: readonly Card[] = [
  ({ at }) => ({ kind: 'cut', after: at }),
  ({ at }) => ({ kind: 'reset', after: at }),
  ({ at }) => ({ kind: 'stall', after: at }),
  ({ at }) => ({ kind: 'truncate', after: at }),
  ({ at }) => ({ kind: 'flip', at }),
  ({ size }) => ({ kind: 'length', by: -Math.min(7, size) }),
  () => ({ kind: 'length', by: 7 }),
  () => ({ kind: 'slow', pieces: 20 }),
  () => ({ kind: 'rewrite', headers: { 'docker-content-digest': OTHER } }),
  () => ({ kind: 'rewrite', headers: { 'content-type': 'text/html' } }),
];

const UPLOADS: readonly Card[] = [
  ({ at }) => ({ kind: 'upload-cut', at }),
  ({ at }) => ({ kind: 'upload-reset', at }),
  ({ at }) => ({ kind: 'upload-stall', at }),
  ({ at }) => ({ kind: 'upload-flip', at }),
  ({ at }) => ({ kind: 'answer', status: 401, headers: CHALLENGE, after: at }),
  ({ at }) => ({ kind: 'answer', status: 413, after: at }),
  ({ at }) => ({ kind: 'answer', status: 503, after: at }),
  () => ({ kind: 'lost-answer' }),
];

/** HEAD and POST. A HEAD may also lie. */
const QUESTIONS: readonly Card[] = [
  () => ({ kind: 'lost-answer' }),
  () => ({ kind: 'rewrite', status: 200, headers: {} }),
  () => ({ kind: 'rewrite', status: 404, headers: {} }),
  () => ({ kind: 'rewrite', headers: { 'docker-content-digest': OTHER } }),
  () => ({ kind: 'rewrite', headers: { 'content-length': '3' } }),
];

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function randomFrom(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Deals the cards in any order, and shuffles them again when all are dealt. */
function deckOf(cards: readonly Card[], random: Random): () => Card {
  let left: Card[] = [];
  return () => {
    if (left.length === 0) left = [...cards];
    const [card] = left.splice(Math.floor(random() * left.length), 1);
    if (card === undefined) throw new Error('an empty deck');
    return card;
  };
}

function pathOf(seen: Seen): string {
  return seen.url.split('?')[0] ?? '';
}

/** Bytes that an answer has, from where it was asked. */
function answerSize(seen: Seen, sizes: ReadonlyMap<string, number>): number {
  const whole = sizes.get(pathOf(seen).split('/').at(-1) ?? '') ?? 0;
  return Math.max(0, whole - Number(/^bytes=(\d+)-/.exec(seen.headers.range ?? '')?.[1] ?? 0));
}

export interface Dealt {
  /** Faults that came to effect. */
  readonly happened: readonly WireFault[];
  /** Settles when every fault that was dealt has come to effect or never will. */
  settled(): Promise<void>;
}

/** What a fault is called in the tally. */
export function kindOf(fault: WireFault): string {
  if (fault.kind !== 'answer') return fault.kind;
  if (fault.status === 307) return fault.headers?.location === LOOP ? 'redirect loop' : 'redirect elsewhere';
  return `HTTP ${fault.status}${fault.body === undefined ? '' : ' page'}`;
}

/**
 * Lets a proxy break requests at random until `count` faults came to effect: one that the client did not wait for is dealt
 * again. `sizes` says how long content is, by digest and tag; `elsewhere` is another origin to be sent to.
 */
export function dealFaults(
  proxy: FaultProxy,
  options: {
    readonly count: number;
    /** How probable a fault is for each transfer, 0 to 1. */
    readonly chance: number;
    readonly random: Random;
    readonly sizes: ReadonlyMap<string, number>;
    readonly elsewhere: string;
  },
): Dealt {
  const { count, chance, random, sizes, elsewhere } = options;
  const away: Card = ({ seen }) => ({
    kind: 'answer',
    status: 307,
    headers: { location: `${elsewhere}${seen.url}` },
  });
  const decks = {
    token: deckOf([...SILENT, refuses(401), refuses(403), refuses(429), refuses(500), refuses(503)], random),
    content: deckOf([...CONTENT, ...REFUSALS, away], random),
    upload: deckOf([...UPLOADS, ...REFUSALS, away], random),
    question: deckOf([...QUESTIONS, ...SILENT, ...REFUSALS, away], random),
  };
  const pending = new Set<WireFault>();
  const happened: WireFault[] = [];
  let onSettled = (): void => {};

  const choose = (seen: Seen): WireFault | undefined => {
    const { method, headers } = seen;
    const isToken = pathOf(seen) === '/token';
    // The first request of all goes without a token; its 401 is no fault.
    if (headers.authorization === undefined && !isToken) return undefined;
    const isUpload = method === 'PUT' || method === 'PATCH';
    const size =
      method === 'GET' ? answerSize(seen, sizes) : isUpload ? Number(headers['content-length'] ?? 0) : 0;
    const deck = isToken ? 'token' : size === 0 ? 'question' : isUpload ? 'upload' : 'content';
    // There are many more questions, for tokens too, than transfers.
    const isQuestion = deck === 'question' || deck === 'token';
    if (random() >= (isQuestion ? chance / 4 : chance)) return undefined;
    return decks[deck]()({ size, at: Math.floor(random() * size), seen });
  };

  proxy.decide = (seen) => {
    if (pathOf(seen) === LOOP) return { kind: 'answer', status: 307, headers: { location: LOOP } };
    if (happened.length + pending.size >= count) return undefined;
    const fault = choose(seen);
    if (fault !== undefined) pending.add(fault);
    return fault;
  };
  proxy.onFault = (fault, did) => {
    // What follows in a loop is not another fault.
    if (!pending.delete(fault)) return;
    if (did) happened.push(fault);
    if (pending.size === 0) onSettled();
  };
  return {
    happened,
    settled: async () => {
      // Nobody waits for an answer any more.
      proxy.disconnect();
      while (pending.size > 0) {
        await new Promise<void>((resolve) => {
          onSettled = resolve;
        });
      }
    },
  };
}
