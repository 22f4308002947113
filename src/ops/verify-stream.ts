import { refuseShort, wholeOf } from '../bundle/remote.ts';
import { openRemoteFile, type RemoteFile } from '../bundle/remote-file.ts';
import type { StreamEnd } from '../bundle/stream-end.ts';
import { type EntryBody, openStream, type StreamedBundle } from '../bundle/stream-reader.ts';
import { type Fault, fault, faultOf, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { ByteSource } from '../io/byte-source.ts';
import { countsOf } from '../lock/counts.ts';
import { type ChartLock, chartName } from '../lock/schema.ts';
import { chainOf, compareWithLock, readGivenLock } from './given-lock.ts';
import { leftOutFacts } from './left-out.ts';
import { withHttp } from './session.ts';
import { judgeEnd } from './stream-trust.ts';
import { policyOf } from './trust.ts';
import { isDeep, type VerifyOptions, type VerifyResult } from './verify.ts';

type Next = () => Promise<Buffer | undefined>;

/** Unpacks a chart in memory as it comes and compares its tree. @returns what is wrong with it */
async function checkTree(chart: ChartLock, next: Next): Promise<Fault | undefined> {
  const pieces = async function* (): AsyncGenerator<Buffer> {
    for (let piece = await next(); piece !== undefined; piece = await next()) yield piece;
  };
  const name = chartName(chart);
  const { tree: expected } = chart.integrity;
  const { readChartArchive } = await import('../helm/archive.ts');
  try {
    const { tree: found } = await readChartArchive(pieces(), { what: name });
    if (found === expected) return undefined;
    const message = `${name}: expected tree ${expected}, found ${found}`;
    return fault('BUNDLE_TREE_MISMATCH', message, { details: { name, expected, found } });
  } catch (error) {
    const { code, message } = faultOf(error);
    // What is wrong with the stream ends everything.
    if (!code.startsWith('CHART_')) throw error;
    return fault('BUNDLE_TREE_MISMATCH', `${name}: its archive cannot be read: ${message}`);
  }
}

/** What is wrong with the content of a bundle. */
interface Found {
  /** Blobs of another SHA-256, where that was asked for. */
  readonly blobs: readonly Fault[];
  /** Trees of charts, by the name of the archive's entry. */
  readonly trees: ReadonlyMap<string, Fault>;
}

/** Reads all blobs that are no manifests. */
async function readBlobs(
  bundle: StreamedBundle,
  { deep, context }: { readonly deep: boolean; readonly context: Context },
): Promise<Found> {
  const { entries } = bundle.plan;
  const charts = new Map<unknown, ChartLock>(bundle.lock.charts.map((c) => [c.integrity.archive, c]));
  const blobs: Fault[] = [];
  const trees = new Map<string, Fault>();
  const take = async (body: EntryBody): Promise<void> => {
    let pending: ReturnType<Next> = Promise.resolve(undefined);
    const next: Next = async () => {
      pending = body.next();
      const piece = await pending;
      if (piece !== undefined) context.emit({ type: 'progress', id: 'verify', bytes: piece.length });
      return piece;
    };
    const chart = charts.get(body.entry.digest);
    const wrong = chart === undefined ? undefined : await checkTree(chart, next);
    if (wrong !== undefined) trees.set(body.entry.name, wrong);
    // Who unpacks a broken archive may have asked for more.
    await pending;
    while ((await next()) !== undefined);
  };
  const size = entries.bytes();
  context.emit({ type: 'total', bytes: size, items: entries.length });
  context.emit({ type: 'start', id: 'verify', label: 'bytes', size });
  await bundle.passBlobs(take, { sha256: () => deep, tell: (found) => blobs.push(found) });
  return { blobs, trees };
}

/** Reads all that comes behind the manifests. @returns what is wrong with it; of a damaged archive it says enough that it is damaged. */
export async function readAll(
  bundle: StreamedBundle,
  how: { readonly deep: boolean; readonly context: Context },
): Promise<{ readonly end: StreamEnd; readonly faults: readonly Fault[] }> {
  const { blobs, trees } = await readBlobs(bundle, how);
  const end = await bundle.end();
  const seen = new Set(blobs.map((f) => f.details?.entry));
  const bytes = [...blobs, ...end.faults.filter((f) => !seen.has(f.details?.entry))];
  const damaged = new Set(bytes.map((f) => f.details?.entry));
  const faults = [...bytes, ...[...trees].flatMap(([name, wrong]) => (damaged.has(name) ? [] : [wrong]))];
  how.context.emit({ type: 'end', id: 'verify', outcome: faults.length === 0 ? 'done' : 'failed' });
  return { end, faults };
}

interface StreamChecks extends Omit<VerifyOptions, 'bundle' | 'others' | 'input'> {
  /** Where it is a file on a server. */
  readonly file?: RemoteFile;
}

/**
 * Verifies a bundle that comes in order and once, as `verify` does a file. What is wrong with its structure ends it, because
 * then nothing says where the next entry begins; wrong content is told of all entries.
 * @throws BUNDLE_TRUNCATED, BUNDLE_NOT_CANONICAL, BUNDLE_CHECKSUM_MISMATCH of its documents and manifests, USAGE
 */
export async function verifyStream(
  source: ByteSource,
  options: StreamChecks,
  context: Context,
): Promise<VerifyResult> {
  const { file } = options;
  if (options.requestPath !== undefined) {
    throw new SealiftError('USAGE', `--write-request: ${source.what} is not a file`, {
      hint: 'copy the bundle to a file and verify that: a repair mends what is there',
    });
  }
  try {
    const policy = await policyOf(options, context);
    const { given, own } = await readGivenLock(options.lockPath, policy);
    const bundle = await openStream(source);
    const { info, lock, lockDigest, plan } = bundle;
    if (file !== undefined) refuseShort(file, info);
    const deep = isDeep(options);
    const { end, faults } = await readAll(bundle, { deep, context });
    const { name, version } = lock;
    const facts = { name, version, lock: lockDigest };
    const trust = await judgeEnd(end, {
      what: source.what,
      facts,
      policy: own,
      ...(file === undefined ? {} : { file }),
    });
    const { state, keyId, at } = trust;
    const lockFaults =
      given === undefined ? [] : compareWithLock({ path: source.what, lock, lockDigest }, given);
    return {
      path: source.what,
      format: 'bundle',
      ...facts,
      ...countsOf(lock),
      chain: chainOf({ trust, given, deep }),
      signature: { state, keyId, at },
      entries: plan.entries.length,
      bytes: plan.entries.bytes(),
      leftOut: leftOutFacts({ info }, { blobs: 0, bytes: 0 }),
      request: null,
      faults: [...(given?.trust.faults ?? []), ...trust.faults, ...lockFaults, ...faults],
    };
  } finally {
    source.close();
  }
}

/** Verifies a bundle on a server: all of it is read once, and nothing kept. @throws as `verifyStream` and `openRemoteFile` */
export function verifyRemote(
  address: string,
  options: StreamChecks,
  context: Context,
): Promise<VerifyResult> {
  return withHttp(context, async (http) => {
    const file = await openRemoteFile(address, { http, context });
    return verifyStream(wholeOf(file, context), { ...options, file }, context);
  });
}
