/** The place where a benchmark happens: a fleet in a source registry, an empty target, perhaps a containerd, locks. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { contestants } from './contestants.mjs';
import { openFleet } from './fleet.mjs';
import { measure } from './measure.mjs';
import { countingProxy } from './proxy.mjs';
import { emptyContainerd, emptyRegistry, freePort, startRegistry } from './servers.mjs';
import { locate } from './tools.mjs';

function manifestOf(source, images) {
  const refs = images.map((image) => `  - ${source}/${image.name}:${image.tag}\n`).join('');
  return `apiVersion: sealift/v1\nname: bench\nversion: "1"\nplatforms: all\nimages:\n${refs}`;
}

/** sealift.yaml and versions.lock of one delivery, in a folder of their own. */
async function writeLock(site, { images, n }) {
  const manifest = join(site.dir, `delivery-${n + 1}`);
  const text = manifestOf(site.source, images);
  await mkdir(manifest, { recursive: true });
  const [sealift] = contestants();
  const steps = sealift.lock({ dir: site.dir, scratch: manifest, delivery: { text } });
  const { failure } = await measure(steps, { log: site.log });
  if (failure !== undefined) throw new Error(failure);
  return { images, manifest, text };
}

/**
 * Makes the fleet where it is not there yet, starts the servers and locks the deliveries. Everything of this run is below
 * `dir`, which `close` removes; the fleet stays below `home`.
 */
export async function openSite({ home, dir, fleet, withContainerd }) {
  const { content, deliveries } = await openFleet(home, fleet);
  await mkdir(dir, { recursive: true });
  const port = await freePort();
  const settings = { dir: join(dir, 'source'), content };
  const site = { dir, content, source: `127.0.0.1:${port}`, log: join(dir, 'command.log') };
  let server = await startRegistry({ ...settings, port });
  site.registry = await emptyRegistry({ dir: join(dir, 'target'), port: await freePort() });
  site.target = site.registry.host;
  if (withContainerd && locate('containerd') !== undefined && locate('ctr') !== undefined)
    site.containerd = await emptyContainerd({ dir: join(dir, 'ctrd') });
  site.deliveries = [];
  for (const [n, { images }] of deliveries.entries())
    site.deliveries.push(await writeLock(site, { images, n }));

  /** Runs `work` with a site whose registries are asked through counting proxies, at the same address for the source. */
  site.counted = async (work) => {
    await server.stop();
    const behind = await freePort();
    server = await startRegistry({ ...settings, port: behind });
    const front = await countingProxy({ port, upstream: behind });
    const targetPort = await freePort();
    const target = await countingProxy({
      port: targetPort,
      upstream: Number(site.registry.host.split(':')[1]),
    });
    const take = () => {
      const [a, b] = [front.take(), target.take()];
      return {
        requests: a.requests + b.requests,
        sent: a.sent + b.sent,
        received: a.received + b.received,
        methods: { ...a.methods, ...b.methods },
      };
    };
    try {
      await work({ ...site, target: `127.0.0.1:${targetPort}`, take });
    } finally {
      await Promise.all([front.stop(), target.stop(), server.stop()]);
    }
    server = await startRegistry({ ...settings, port });
  };
  site.close = async () => {
    await Promise.all([server.stop(), site.registry.stop(), site.containerd?.stop()]);
    await rm(dir, { recursive: true, force: true, maxRetries: 3 });
  };
  return site;
}
