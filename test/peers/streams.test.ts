import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureBuilt } from '../cli/program.ts';
import { type FleetImage, makeBigFleet, pushImage } from '../support/fleet.ts';
import { type Containerd, type Registry, run, startContainerd, startRegistry } from '../support/peers.ts';

/** Bundles of more than 700 MB through pipes, to real peers, with the peak memory of the real program. */

const LIMIT_KIB = 250 * 1024;
const MIB = 1024 * 1024;
const BIN = resolve(import.meta.dirname, '../../bin/sealift.js');

let dir: string;
let source: Registry;
let target: Registry;
let other: Registry;
let containerd: Containerd;
const images: FleetImage[] = [];

/** Runs a pipeline of which the last is sealift, and returns the peak resident set of its members in KiB. */
async function peakOf(before: readonly string[], args: readonly string[], out?: string): Promise<number> {
  const script = `
import json, resource, subprocess, sys
before, command, out = json.loads(sys.argv[1])
first = subprocess.Popen(before, stdout=subprocess.PIPE) if before else None
second = subprocess.Popen(command, stdin=first and first.stdout, stdout=subprocess.PIPE)
with open(out or '/dev/null', 'wb') as file:
    while chunk := second.stdout.read(65536): file.write(chunk)
code = second.wait()
if first:
    first.stdout.close()
    first.wait()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
`;
  const job = JSON.stringify([before, [process.execPath, BIN, ...args], out ?? null]);
  const { stdout } = await run('python3', ['-c', script, job], { cwd: dir });
  return Number(stdout.trim().split('\n').at(-1));
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest('hex');
}

async function digestsOn(registry: Registry): Promise<string[]> {
  const digests: string[] = [];
  for (const { name, tag } of images) {
    const answer = await fetch(`http://${registry.url}/v2/${name}/manifests/${tag}`, {
      method: 'HEAD',
      headers: {
        accept: 'application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json',
      },
    });
    digests.push(`${name} ${answer.headers.get('docker-content-digest')}`);
  }
  return digests;
}

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-streams-'));
  [source, target, other] = [await startRegistry(), await startRegistry(), await startRegistry()];
  containerd = await startContainerd('1.6');
  let refs = '';
  const layerSizes = [18 * MIB, 6 * MIB, 2 * MIB];
  for (const image of makeBigFleet({ images: 12, layerSizes, kinds: ['oci'] })) {
    await pushImage(source.url, image);
    images.push(image);
    refs += `  - ${source.url}/${image.name}:${image.tag}\n`;
  }
  const text = `apiVersion: sealift/v1\nname: fleet\nversion: "1"\nplatforms: all\nimages:\n${refs}`;
  await writeFile(join(dir, 'sealift.yaml'), text);
  await run(process.execPath, [BIN, 'lock'], { cwd: dir });
  await run(process.execPath, [BIN, 'pack', '-o', 'fleet.tar', '--no-tool'], { cwd: dir });
});

afterAll(async () => {
  await containerd?.stop();
  for (const registry of [source, target, other]) await registry?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe('a bundle of 700 MB through a pipe', () => {
  it('is the same as the file, and packed with bounded memory', async () => {
    const peak = await peakOf([], ['pack', '-o', '-'], join(dir, 'piped.tar'));
    expect((await stat(join(dir, 'piped.tar'))).size).toBeGreaterThan(700_000_000);
    expect(await sha256(join(dir, 'piped.tar'))).toBe(await sha256(join(dir, 'fleet.tar')));
    await rm(join(dir, 'piped.tar'));
    expect(peak, `pack -o -: ${Math.round(peak / 1024)} MiB`).toBeLessThan(LIMIT_KIB);
  });

  it('reaches a registry and a containerd at once, with bounded memory and the digests of a load from the file', async () => {
    const targets = ['--registry', target.url, '--containerd', containerd.socket, '--namespace', 'k8s.io'];
    const peak = await peakOf(['cat', 'fleet.tar'], ['load', '-', ...targets]);
    expect(peak, `load -: ${Math.round(peak / 1024)} MiB`).toBeLessThan(LIMIT_KIB);
    await run(process.execPath, [BIN, 'load', 'fleet.tar', '--registry', other.url], { cwd: dir });
    const digests = await digestsOn(target);
    expect(digests).toEqual(await digestsOn(other));
    expect(digests).toEqual(images.map((i) => `${i.name} ${i.index.digest}`));
    for (const { name, tag } of images) {
      const ref = `${source.url}/${name}:${tag}`;
      const { stdout } = await containerd.ctr('-n', 'k8s.io', 'images', 'check', `name==${ref}`);
      expect(stdout, ref).toContain('complete (');
    }
    const leases = await containerd.ctr('-n', 'k8s.io', 'leases', 'ls', '-q');
    expect(leases.stdout.trim()).toBe('');
    const again = await run(process.execPath, [BIN, 'load', 'fleet.tar', ...targets], { cwd: dir });
    expect(again.stderr).toContain('everything was there already');
  });
});
