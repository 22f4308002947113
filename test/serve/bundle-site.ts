/** A packed bundle with some of everything, and a server over it. */
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { type ServeOptions, type Serving, serve } from '../../src/ops/serve.ts';
import { makeSite, type Site, testContext } from '../support/bundles.ts';
import { demoFiles } from '../support/charts.ts';
import { type FleetImage, makeFleet } from '../support/fleet.ts';
import { attach, signByTag } from '../support/referrers.ts';

export interface BundleSite extends Site {
  readonly images: readonly FleetImage[];
  /** Of an image by its number: where its name says that it is from. */
  hostOf(i: number): string;
  /** Path of the bundle. */
  readonly tar: string;
  /** Bytes of its files by name. */
  readonly files: ReadonlyMap<string, Buffer>;
  /** The chart's archive, as its publisher has it. */
  readonly chart: Buffer;
  /** About the last image. */
  readonly referrer: Awaited<ReturnType<typeof attach>>;
}

export const WHEEL = 'wheels/Demo_Pkg-1.2.0-py3-none-any.whl';

/** Where the first images say that they are from; all come from one source, and the last says so. */
const HOSTS = ['docker.io', 'docker.io', 'quay.io'] as const;

/**
 * Two images of docker.io, the first with a signature, one of quay.io, and one of the source itself with a referrer; a chart,
 * files and a wheel.
 * @param more further files by name
 */
export async function makeBundleSite(more: Readonly<Record<string, Buffer>> = {}): Promise<BundleSite> {
  const site = await makeSite();
  const images = makeFleet({
    images: 4,
    sharedBases: 0,
    kinds: ['oci', 'docker'],
    platforms: ['linux/amd64', 'linux/arm64'],
    layerSizes: [300_000, 2_000],
  });
  for (const image of images) await site.addImage(image);
  const [signed, , , described] = images;
  if (signed === undefined || described === undefined) throw new Error('no image');
  const at = `${site.source.url}/v2`;
  await signByTag(`${at}/${signed.name}`, signed.index.digest);
  const { index } = described;
  const referrer = await attach(`${at}/${described.name}`, { ...index, size: index.bytes.length });
  await site.addChart('demo', '1.2.3', demoFiles());
  const files = new Map([
    ['bin/tool', Buffer.alloc(700_000, 'tool')],
    ['docs/read me.txt', Buffer.from('read me')],
    ['empty', Buffer.alloc(0)],
    [WHEEL, Buffer.from('a wheel')],
    ...Object.entries(more),
  ]);
  for (const [name, bytes] of files) await site.put(`site/${name}`, bytes);
  const hostOf = (i: number): string => HOSTS[i] ?? site.source.host;
  const refs = images.map((image, i) => `${hostOf(i)}/${image.name}:${image.tag}`);
  const host = JSON.stringify(site.source.host);
  const tar = await site.bundle(
    'site',
    [
      'platforms: [linux/amd64]',
      `images: ${JSON.stringify(refs)}`,
      `charts: [{name: demo, version: 1.2.3, repo: ${JSON.stringify(`${site.source.url}/charts`)}}]`,
      `files: ${JSON.stringify([...files.keys()].map((name) => ({ path: name, name })))}`,
      `registries: {docker.io: {mirrors: [${host}]}, quay.io: {mirrors: [${host}]}, ${host}: {plainHttp: true}}`,
      '',
    ].join('\n'),
  );
  const chart = Buffer.from(await (await fetch(`${site.source.url}/charts/demo-1.2.3.tgz`)).arrayBuffer());
  return { ...site, images, hostOf, tar, files, chart, referrer };
}

/** Serves bundles at a free port; `lines` are those of the access log. */
export async function serveBundles(
  bundles: readonly string[],
  options: Partial<ServeOptions> = {},
): Promise<Serving & { readonly lines: string[]; readonly context: ReturnType<typeof testContext> }> {
  const context = testContext();
  const lines: string[] = [];
  const serving = await serve(
    { bundles, listen: '127.0.0.1:0', accessLog: (line) => void lines.push(line), ...options },
    context,
  );
  return { ...serving, lines, context };
}

/** An answer whose path was sent exactly as it is written, which fetch would not do. */
export function ask(
  url: string,
  options: { readonly path: string; readonly method?: string; readonly headers?: Record<string, string> },
): Promise<{ status: number; headers: Record<string, unknown>; body: Buffer; ended: boolean }> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const { path, method = 'GET', headers = {} } = options;
    const asked = request({ hostname, port, path, method, headers, agent: false }, (answer) => {
      const chunks: Buffer[] = [];
      const settle = (ended: boolean): void =>
        resolve({
          status: answer.statusCode ?? 0,
          headers: answer.headers,
          body: Buffer.concat(chunks),
          ended,
        });
      answer.on('data', (chunk: Buffer) => void chunks.push(chunk));
      answer.on('end', () => settle(true));
      answer.on('error', () => settle(false));
    });
    asked.on('error', reject);
    asked.end();
  });
}

/** Where bytes lie in a file. */
export async function findIn(path: string, bytes: Buffer): Promise<number> {
  return (await readFile(path)).indexOf(bytes);
}
