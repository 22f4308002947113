import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Descriptor } from '../core/descriptor.ts';
import { isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { TlsOptions } from '../io/certificates.ts';
import type { HttpClient } from '../io/http.ts';
import { isPrivateAddress } from '../io/private-address.ts';
import { withoutQuery } from '../io/redirect.ts';
import { resumableBytes } from '../io/resume.ts';
import { verified } from '../io/verify.ts';
import type { ContentReader, ReadOptions } from '../oci/content.ts';

interface Tools {
  readonly http: HttpClient;
  readonly context: Context;
  readonly registries: { tlsOf(url: URL): TlsOptions };
  /** `host[:port]` that the manifest names under `registries`: they may be private. */
  readonly named: ReadonlySet<string>;
}

/** An image decides where we go here, so the way leads to public http(s) addresses only (registry.md 1.3). */
async function checkAddress(text: string, tools: Tools): Promise<URL> {
  const refuse = (why: string): SealiftError =>
    new SealiftError('NETWORK_URL_REFUSED', `foreign layer at ${withoutQuery(text)}: ${why}`, {
      hint: 'name the host under `registries` in sealift.yaml when it is one of yours',
    });
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) throw refuse('only http and https are fetched');
  if (tools.named.has(url.host)) return url;
  const name = url.hostname.replace(/^\[|\]$/g, '');
  // Where a proxy looks names up this machine may not know them: then there is nothing to compare.
  const found = isIP(name) === 0 ? await lookup(name, { all: true }).catch(() => []) : [{ address: name }];
  if (isPrivateAddress(name) || found.some(({ address }) => isPrivateAddress(address))) {
    throw refuse('it is a private address');
  }
  return url;
}

async function* download(descriptor: Descriptor, text: string, tools: Tools): AsyncGenerator<Uint8Array> {
  const url = await checkAddress(text, tools);
  const what = `foreign layer ${descriptor.digest} at ${withoutQuery(text)}`;
  const bytes = resumableBytes({
    what,
    size: descriptor.size,
    start: 0,
    context: tools.context,
    open: async (at) => {
      const headers = at > 0 ? { range: `bytes=${at}-` } : {};
      const tls = tools.registries.tlsOf(url);
      // A redirect could lead to where the address itself may not.
      const answer = await tools.http.request({ method: 'GET', url, headers, tls, follow: false });
      if (answer.status === 200 || answer.status === 206) return answer;
      await answer.body.dump();
      throw new SealiftError('CONTENT_NOT_FOUND', `${what}: HTTP ${answer.status}`);
    },
  });
  yield* verified(bytes, { digest: descriptor.digest, size: descriptor.size, what });
}

async function* skip(bytes: AsyncIterable<Uint8Array>, offset: number): AsyncGenerator<Uint8Array> {
  let left = offset;
  for await (const chunk of bytes) {
    if (left < chunk.length) yield left === 0 ? chunk : chunk.subarray(left);
    left = Math.max(0, left - chunk.length);
  }
}

/**
 * Reads foreign layers: from the registry, and where that does not have them from the addresses that the manifest names.
 * @throws what the registry says when no address helps either
 */
export function foreignReader(registry: ContentReader, tools: Tools): ContentReader {
  return { open: (descriptor, options) => openForeign(registry, { descriptor, options, tools }) };
}

async function* openForeign(
  registry: ContentReader,
  job: { readonly descriptor: Descriptor; readonly options: ReadOptions; readonly tools: Tools },
): AsyncGenerator<Uint8Array> {
  const { descriptor, options, tools } = job;
  const tried: SealiftError[] = [];
  const ways = [
    () => registry.open(descriptor, options),
    ...(descriptor.urls ?? []).map(
      (url) => () => skip(download(descriptor, url, tools), options.offset ?? 0),
    ),
  ];
  for (const open of ways) {
    let begun = false;
    try {
      for await (const chunk of open()) {
        begun = true;
        yield chunk;
      }
      return;
    } catch (error) {
      if (begun || isAbort(error) || !(error instanceof SealiftError)) throw error;
      tried.push(error);
    }
  }
  const [first] = tried;
  throw new SealiftError(first?.code ?? 'CONTENT_NOT_FOUND', tried.map((e) => e.message).join('; '), {
    hint: 'leave the layer out with foreignLayers: false, or make one of the addresses reachable',
    side: 'source',
  });
}
