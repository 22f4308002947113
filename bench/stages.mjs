/** The order of a benchmark: which stages there are, who stands where, and one round of all of it. */
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { measure } from './measure.mjs';

/**
 * Stages of one chain follow each other on the same state: what a contestant packed is there when it packs again; those
 * that stand `alone` need nothing of the one before. The verb is what the contestant does (contestants.mjs).
 */
export const CHAINS = [
  [{ stage: 'start', title: 'start-up', verb: 'start' }],
  [{ stage: 'lock', title: 'lock', verb: 'lock' }],
  [
    { stage: 'pack', title: 'pack to one file', verb: 'pack', delivery: 0 },
    { stage: 'again', title: 'pack again', verb: 'pack', delivery: 0 },
    { stage: 'second', title: 'pack, second delivery', verb: 'pack', delivery: 1 },
  ],
  [
    { stage: 'verify', title: 'verify (BLAKE3)', verb: 'verify', alone: true },
    { stage: 'deep', title: 'verify (SHA-256)', verb: 'deep', alone: true },
  ],
  [
    { stage: 'load', title: 'load, empty registry', verb: 'load', server: 'registry' },
    { stage: 'loadAgain', title: 'load again', verb: 'load', server: 'registry' },
  ],
  [
    { stage: 'containerd', title: 'containerd, everything', verb: 'containerd', server: 'containerd' },
    { stage: 'containerdAgain', title: 'containerd again', verb: 'containerd', server: 'containerd' },
  ],
];

export const STAGES = CHAINS.flat();

/** Verbs that need what the contestant, or Sealift, packed before. */
const ON_PACKED = new Set(['verify', 'deep', 'load', 'containerd']);

/** The chains up to the last stage that is wanted. */
export function wantedChains(only) {
  const wanted = (stage) => only === undefined || only.includes(stage);
  return CHAINS.map((chain) => {
    const last = chain.findLastIndex(({ stage }) => wanted(stage));
    return chain.slice(0, last + 1).map((step) => ({ ...step, wanted: wanted(step.stage) }));
  }).filter((chain) => chain.length > 0);
}

/** Who goes first changes from round to round. */
export function orderOf(contestants, round) {
  const at = round % Math.max(1, contestants.length);
  const turned = [...contestants.slice(at), ...contestants.slice(0, at)];
  return round % 2 === 0 ? turned : turned.reverse();
}

async function empty(dir) {
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
}

/**
 * Packs the first delivery once for everybody who needs it later. Nothing is timed, and afterwards everything that the
 * sources hold is in the page cache.
 */
export async function prepare(site, contestants, chains) {
  const verbs = new Set(chains.flat().map(({ verb }) => verb));
  const failures = new Map();
  for (const contestant of contestants) {
    const needed = contestant.name === 'sealift' || [...ON_PACKED].some((v) => verbs.has(v) && contestant[v]);
    if (!needed || contestant.floor || contestant.pack === undefined) continue;
    const dir = join(site.dir, 'packed', contestant.name);
    await empty(dir);
    const steps = contestant.pack({ dir, source: site.source, delivery: site.deliveries[0] });
    const { failure } = await measure(steps, { log: site.log });
    if (failure !== undefined) failures.set(contestant.name, failure);
  }
  return failures;
}

/**
 * Reads all files below a path, so that they lie in the page cache: whoever comes first would read from the disk what the
 * others find in memory.
 */
async function warm(path) {
  if (!existsSync(path)) return;
  for (const entry of await readdir(path, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    for await (const _ of createReadStream(join(entry.path, entry.name), { highWaterMark: 1 << 20 }));
  }
}

/** Where the contestant works in this stage, with fresh servers and folders where it is the first of its chain. */
async function placeOf(site, contestant, { step, first }) {
  const packed = join(site.dir, 'packed', contestant.name);
  const work = join(site.dir, 'work');
  const scratch = join(site.dir, 'scratch');
  await empty(scratch);
  if (first) await empty(work);
  if (first && step.server === 'registry') await site.registry.fresh();
  if (first && step.server === 'containerd') await site.containerd.fresh();
  const onPacked = ON_PACKED.has(step.verb) && !contestant.floor;
  const dir = onPacked ? packed : work;
  await mkdir(dir, { recursive: true });
  if (ON_PACKED.has(step.verb)) {
    for (const name of new Set(['sealift', contestant.name])) await warm(join(site.dir, 'packed', name));
    if (contestant.floor && step.server === 'registry') await warm(site.content);
  }
  return {
    dir,
    scratch,
    source: site.source,
    target: site.target,
    socket: site.containerd?.socket,
    content: site.content,
    delivery: site.deliveries[step.delivery ?? 0],
    bundle: join(site.dir, 'packed', 'sealift', 'bundle.tar'),
  };
}

/** One contestant through one chain. */
async function runChain(site, contestant, { chain, round, record }) {
  const runs = new Map();
  for (const [i, step] of chain.entries()) {
    const make = contestant[step.verb];
    if (typeof make === 'string') {
      // It has one command for both: one run of it is what both are compared with.
      const run = runs.get(make);
      if (step.wanted && run !== undefined) record({ ...run, stage: step.stage });
      continue;
    }
    if (make === undefined && step.alone) continue;
    if (make === undefined || (contestant.floor && i > 0 && !step.alone)) return;
    const place = await placeOf(site, contestant, { step, first: i === 0 });
    const steps = make(place);
    site.take?.();
    const figures = await measure(steps, { log: site.log, sample: site.sample ?? false });
    const counts = site.take?.();
    const run = { stage: step.stage, name: contestant.name, round, figures, counts };
    runs.set(step.verb, run);
    if (step.wanted || figures.failure !== undefined) record(run);
    if (figures.failure !== undefined) return;
  }
}

/**
 * One round: every contestant through every chain, in an order that changes. `record` gets what each run cost; a
 * contestant for which `skip` is true has failed before and is left out.
 */
export async function runRound(site, { contestants, chains, round, record, skip }) {
  for (const chain of chains) {
    for (const contestant of orderOf(contestants, round)) {
      if (skip(contestant.name, chain)) continue;
      await runChain(site, contestant, { chain, round, record });
      await empty(join(site.dir, 'work'));
      await empty(join(site.dir, 'scratch'));
    }
  }
}
