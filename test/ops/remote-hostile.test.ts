/** A bundle on a server that lies, stalls, refuses, or is the registry as well. */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { load } from '../../src/ops/load.ts';
import { ls } from '../../src/ops/ls.ts';
import { parseRegistryUrl } from '../../src/ops/registry-place.ts';
import { verify } from '../../src/ops/verify.ts';
import { startRegistry } from '../../src/serve/registry.ts';
import { publicKeyFile } from '../../src/trust/public-key.ts';
import { contextOf, openSite, packSite, placeOf } from '../bundle/site.ts';
import { inTurn, startFaultProxy } from '../support/fault-proxy.ts';
import { keyOf } from '../trust/keys.ts';

const site = await openSite({ fleet: { images: 2, layerSizes: [400_000, 300_000], baseSize: 300_000 } });
const good = await packSite(site);
afterAll(() => site.close());

/** What a request for a part asked for: from the first byte to before `end`. */
interface Part {
  readonly from: number;
  readonly end: number;
}

type Answer = (part: Part, to: ServerResponse, from: IncomingMessage) => void;

/** Answers as a server should. */
const rightly: Answer = ({ from, end }, to) => {
  const { length } = good.bytes;
  const headers = { 'content-range': `bytes ${from}-${end - 1}/${length}`, 'content-length': end - from };
  to.writeHead(206, headers).end(good.bytes.subarray(from, end));
};

let server: Server;
let address = '';
let answer: Answer = rightly;
/** What else the server has, by path. */
let others: Readonly<Record<string, (to: ServerResponse) => unknown>> = {};
/** Answers to parts that are not over. */
const open = new Set<ServerResponse>();

beforeEach(async () => {
  answer = rightly;
  others = {};
  server = createServer((request, response) => {
    const other = others[request.url ?? ''];
    const [, from, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    if (other !== undefined) return void other(response);
    if (from === undefined || last === undefined) return void response.writeHead(404).end();
    open.add(response);
    response.once('close', () => open.delete(response));
    answer({ from: Number(from), end: Math.min(Number(last) + 1, good.bytes.length) }, response, request);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/good.tar`;
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** Large blobs: those that are asked for by themselves. */
const blobs = good.entries.filter((e) => e.kind === 'blob' && e.size > 200_000);
const blobAt = ({ from }: Part): number => blobs.findIndex((b) => b.offset === from);

/** The head of a right answer. */
function begin({ from, end }: Part, to: ServerResponse): void {
  const headers = { 'content-range': `bytes ${from}-${end - 1}/${good.bytes.length}` };
  to.writeHead(206, { ...headers, 'content-length': end - from });
}

/** Settles when the client has left all answers. */
async function left(): Promise<void> {
  await Promise.all([...open].map((response) => once(response, 'close')));
}

describe('a bundle on a server', () => {
  it('that is the registry too is loaded, however few requests it bears at once', async () => {
    const both = await startRegistry({ storage: 'memory' });
    both.addFile('good.tar', good.bytes);
    const proxy = await startFaultProxy(both.host);
    const busy = { kind: 'answer', status: 503 } as const;
    // The upload of the first blob is refused so often that only one request at once is left.
    proxy.decide = inTurn(({ method }) => method === 'POST', [busy, busy, busy, busy, busy]);
    let clock = 0;
    const now = (): number => {
      clock += 2000;
      return clock;
    };
    const { host, config } = parseRegistryUrl(proxy.url);
    const registries = [{ ...placeOf(both), host, config }];
    const bundle = `${proxy.url}/files/good.tar`;
    const result = await load({ bundle, registries }, { ...contextOf(), now });
    expect([result.failed, proxy.done.length]).toEqual([0, 5]);
    await proxy.close();
    await both.close();
  });

  it('whose one blob is wrong does not wait for another that never comes', async () => {
    const registry = await startRegistry({ storage: 'memory' });
    let bothAsked = (): void => {};
    const asked = new Promise<void>((resolve) => {
      bothAsked = resolve;
    });
    answer = (part, to, from) => {
      const blob = blobAt(part);
      if (blob !== 0 && blob !== 1) return rightly(part, to, from);
      begin(part, to);
      if (blob === 1) return void asked.then(() => to.end(Buffer.alloc(part.end - part.from)));
      to.write(good.bytes.subarray(part.from, part.from + 1000), () => bothAsked());
    };
    const work = load({ bundle: address, registries: [placeOf(registry)] }, contextOf());
    await expect(work).rejects.toMatchObject({
      code: 'BUNDLE_CHECKSUM_MISMATCH',
      details: { entry: blobs[1]?.name },
    });
    await left();
    await registry.close();
  });

  it.each<[string, Answer]>([
    [
      'sends more than it says',
      ({ from, end }, to) => {
        to.writeHead(206, { 'content-range': `bytes ${from}-${end - 1}/${good.bytes.length}` });
        to.write(good.bytes.subarray(from, end));
        to.write(Buffer.alloc(1000));
      },
    ],
    [
      'sends several parts',
      (_, to) => {
        to.writeHead(206, { 'content-type': 'multipart/byteranges; boundary=X' });
        to.write('--X\r\n');
      },
    ],
    [
      'says nonsense of the part',
      ({ from, end }, to) => {
        to.writeHead(206, { 'content-range': `bytes ${from}--${end}/1${'0'.repeat(20)}` });
        to.write('x');
      },
    ],
    [
      'sends another part',
      ({ from, end }, to) => {
        to.writeHead(206, { 'content-range': `bytes ${from + 1}-${end}/${good.bytes.length}` });
        to.write('x');
      },
    ],
    ['has no such part any more', (_, to) => to.writeHead(416, { 'content-range': 'bytes */5' }).write('x')],
  ])('that %s is refused, and its answer is not read any more', async (_, lie) => {
    answer = (part, to, from) => (part.end === 1 ? rightly : lie)(part, to, from);
    await expect(verify({ bundle: address }, contextOf())).rejects.toMatchObject({
      code: 'REGISTRY_ANSWER_INVALID',
      message: expect.stringContaining('asked for'),
    });
    await left();
  });

  it('is read from a server that gives all of it where all was asked for', async () => {
    answer = (part, to, from) => {
      if (part.end - part.from < good.bytes.length) rightly(part, to, from);
      else to.writeHead(200, { 'content-length': good.bytes.length }).end(good.bytes);
    };
    expect((await verify({ bundle: address }, contextOf())).faults).toEqual([]);
  });

  it.each([
    ['200', { 'content-length': '0' }],
    ['416', { 'content-range': 'bytes */0' }],
  ])('that is empty is said to be that (HTTP %s)', async (status, headers) => {
    answer = (_, to) => to.writeHead(Number(status), headers).end();
    await expect(ls(address, contextOf())).rejects.toMatchObject({
      code: 'BUNDLE_TRUNCATED',
      message: `${address}: is empty`,
    });
  });

  it('whose address is for a time only is asked for anew when that is over', async () => {
    answer = (_, to) => to.writeHead(403).end();
    await expect(ls(`${address}?sig=x`, contextOf())).rejects.toMatchObject({
      code: 'AUTH_DENIED',
      hint: expect.stringContaining('ask for a new address'),
    });
  });

  it('that is one volume of several is named so before it is read', async () => {
    const half = Math.ceil(good.bytes.length / 2);
    const asked: Part[] = [];
    answer = (part, to) => {
      asked.push(part);
      const end = Math.min(part.end, half);
      const headers = { 'content-range': `bytes ${part.from}-${end - 1}/${half}` };
      to.writeHead(206, headers).end(good.bytes.subarray(part.from, end));
    };
    const bundle = `${address}.001`;
    await expect(verify({ bundle }, contextOf())).rejects.toMatchObject({
      code: 'BUNDLE_TRUNCATED',
      hint: expect.stringContaining('volume'),
    });
    expect(asked.length).toBeGreaterThan(1);
  });
});

describe('the signature beside a bundle on a server', async () => {
  const { secret } = await keyOf('a');
  const pub = site.path('a.pub');
  await writeFile(pub, publicKeyFile(secret.public));
  const page = '<!doctype html><title>files</title>';

  it.each<[string, (to: ServerResponse) => unknown]>([
    ['that is a page', (to) => to.writeHead(200).end(page)],
    ['that is a large page', (to) => to.writeHead(200).end(page + ' '.repeat(100_000))],
    ['of which nothing may be known', (to) => to.writeHead(403).end()],
  ])('%s is none', async (_, other) => {
    others = { '/good.tar.minisig': other };
    const { faults } = await verify({ bundle: address, keys: [pub] }, contextOf());
    expect(faults.map((f) => f.code)).toEqual(['SIGNATURE_MISSING']);
    const { signature } = await verify({ bundle: address }, contextOf());
    expect(signature).toEqual({ state: 'none', keyId: null, at: null });
  });

  it('that cannot be had is not said to be missing, and matters only to who has a key', async () => {
    others = { '/good.tar.minisig': (to) => to.writeHead(500).end() };
    await expect(verify({ bundle: address, keys: [pub] }, contextOf())).rejects.toMatchObject({
      code: 'NETWORK_FAILED',
      message: expect.stringContaining('good.tar.minisig: HTTP 500'),
    });
    expect((await verify({ bundle: address }, contextOf())).faults).toEqual([]);
  });
});
