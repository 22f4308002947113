import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Descriptor } from '../core/descriptor.ts';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { TlsOptions } from '../io/certificates.ts';
import type { HttpClient } from '../io/http.ts';
import { isPrivateAddress } from '../io/private-address.ts';
import { withoutQuery } from '../io/redirect.ts';
import { resumableBytes } from '../io/resume.ts';
import type { NextStream } from '../oci/content.ts';
import { askInTurn, type Supply } from './in-turn.ts';

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

async function* download(
  descriptor: Descriptor,
  from: { readonly text: string; readonly start: number; readonly tools: Tools },
): AsyncGenerator<Uint8Array> {
  const { text, start, tools } = from;
  const url = await checkAddress(text, tools);
  const what = `foreign layer ${descriptor.digest} at ${withoutQuery(text)}`;
  yield* resumableBytes({
    what,
    size: descriptor.size,
    start,
    context: tools.context,
    open: async (at) => {
      const headers = at > 0 ? { range: `bytes=${at}-` } : {};
      const tls = tools.registries.tlsOf(url);
      // A redirect could lead to where the address itself may not.
      const answer = await tools.http.request({ method: 'GET', url, headers, tls, follow: false });
      if (answer.status === 200 || answer.status === 206 || (answer.status === 416 && at > 0)) return answer;
      await answer.body.dump();
      throw new SealiftError('CONTENT_NOT_FOUND', `${what}: HTTP ${answer.status}`);
    },
  });
}

/** What everybody says of a layer that nobody has. */
function nobodyHas(failures: readonly SealiftError[]): SealiftError {
  return new SealiftError(
    failures[0]?.code ?? 'CONTENT_NOT_FOUND',
    failures.map((e) => e.message).join('; '),
    {
      hint: 'leave the layer out with foreignLayers: false, or make one of the addresses reachable',
      side: 'source',
    },
  );
}

/**
 * Asks for a blob of an image with foreign layers: the registry, and where that does not have it the addresses that the
 * manifest names.
 * @throws what all say when no address helps either
 */
export function askForeign(
  descriptor: Descriptor,
  from: { readonly registry: readonly Supply[]; readonly tools: Tools },
): NextStream {
  const { registry, tools } = from;
  const others = (descriptor.urls ?? []).map((text) => ({
    name: withoutQuery(text),
    open: (start: number) => download(descriptor, { text, start, tools }),
  }));
  return askInTurn([...registry, ...others], { signal: tools.context.signal, sum: nobodyHas });
}
