// The benchmark: Sealift, its peers and what the wire can do, on the same fleet and the same servers. See docs/bench.md.
import { existsSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { contestants } from './contestants.mjs';
import { judge } from './figures.mjs';
import { blobsOf, FLEETS } from './fleet.mjs';
import { machine, RESULTS, tables, targetTable, versions, writeResults } from './report.mjs';
import { scale } from './scale.mjs';
import { openSite } from './site.mjs';
import { prepare, runRound, STAGES, wantedChains } from './stages.mjs';

const USAGE = `npm run bench -- [--rounds N] [--small] [--only STAGE,…] [--scale [--sizes N,…]]

  --rounds N    how often each is measured (default 5, with --scale 1)
  --small       a fleet of 59 MB instead of 733 MB
  --only …      some stages: ${STAGES.map(({ stage }) => stage).join(', ')}; nothing is counted then
  --scale       how cost grows with the number of images: 100, 1000 and 5000 tiny ones (--sizes)
`;

function readOptions() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string' },
      small: { type: 'boolean', default: false },
      only: { type: 'string' },
      scale: { type: 'boolean', default: false },
      sizes: { type: 'string', default: '100,1000,5000' },
      help: { type: 'boolean', default: false },
    },
  });
  const only = values.only?.split(',');
  const rounds = Number(values.rounds ?? (values.scale ? 1 : 5));
  const sizes = values.sizes.split(',').map(Number);
  const unknown = only?.find((name) => !STAGES.some(({ stage }) => stage === name));
  const wrong = [rounds, ...sizes].some((n) => !Number.isInteger(n) || n < 1);
  if (values.help || unknown !== undefined || wrong) {
    process.stderr.write(unknown === undefined ? USAGE : `there is no stage "${unknown}"\n\n${USAGE}`);
    process.exit(values.help ? 0 : 2);
  }
  return { ...values, only, rounds, sizes };
}

const say = (text) => process.stdout.write(`${text}\n`);

/** Two levels of maps: stage → contestant → round. */
function book() {
  const pages = new Map();
  const add = ({ stage, name, round, value }) => {
    const page = pages.get(stage) ?? new Map();
    pages.set(stage, page);
    page.set(name, (page.get(name) ?? new Map()).set(round, value));
  };
  return { pages, add };
}

function introduce(all, present, { options, site }) {
  const known = versions(all);
  const missing = all.filter((c) => !present.includes(c)).map(({ name }) => name);
  const { images } = site.deliveries[0];
  const blobs = blobsOf(images);
  const bytes = blobs.reduce((sum, { size }) => sum + size, 0);
  const { cpu, cores, node, load } = machine();
  say(`fleet: ${images.length} images, ${blobs.length} blobs, ${Math.round(bytes / 1e6)} MB`);
  say(`machine: ${cores} × ${cpu}, Node ${node}, load ${load.join(' ')}`);
  for (const { name, note } of present)
    say(`  ${name} ${known[name]}${note === undefined ? '' : ` (${note})`}`);
  if (missing.length > 0) say(`missing, so not measured: ${missing.join(', ')}`);
  if (site.containerd === undefined)
    say('containerd is missing or this is not root: its stages are left out');
  say(`${options.rounds} rounds`);
  return { versions: known, fleet: { images: images.length, blobs: blobs.length, bytes } };
}

async function compare(options, { home, dir }) {
  const all = contestants();
  const withContainerd = process.getuid?.() === 0;
  const site = await openSite({
    home,
    dir,
    fleet: options.small ? FLEETS.small : FLEETS.full,
    withContainerd,
  });
  try {
    const chains = wantedChains(options.only).filter(
      (chain) => site.containerd !== undefined || chain[0].server !== 'containerd',
    );
    const present = all.filter(({ program }) => program !== undefined);
    const facts = introduce(all, present, { options, site });
    const failures = await prepare(site, present, chains);
    const results = book();
    const counts = book();
    const skip = (name) => failures.has(name);
    const keep = () =>
      writeResults({
        options,
        ...facts,
        targets: judge(results.pages),
        failures,
        results: results.pages,
        counts: counts.pages,
      });
    const recordIn = (which, field) => (run) => {
      if (run.figures.failure !== undefined) failures.set(run.name, `${run.stage}: ${run.figures.failure}`);
      else which.add({ ...run, value: run[field] });
    };
    const rest = { contestants: present, chains, skip };
    if (options.only === undefined) {
      say('counting requests and bytes');
      const record = recordIn(counts, 'counts');
      const counted = chains.filter(
        ([step]) => step.verb === 'lock' || step.delivery === 0 || step.server === 'registry',
      );
      await site.counted((through) => runRound(through, { ...rest, chains: counted, round: 0, record }));
    }
    for (let round = 1; round <= options.rounds; round++) {
      say(`round ${round} of ${options.rounds}`);
      await runRound(site, { ...rest, round, record: recordIn(results, 'figures') });
      // After each round, so that an interrupted run leaves what it has.
      await keep();
    }
    say(`\n${tables(present, { results: results.pages, counts: counts.pages })}`);
    say(`\n${targetTable(results.pages)}`);
    for (const [name, text] of failures) say(`\n${name} failed in ${text}`);
    say(`\nall runs: ${RESULTS}`);
    return !failures.has('sealift');
  } finally {
    await site.close();
  }
}

async function main() {
  const options = readOptions();
  if (!existsSync(new URL('../dist/program/main.js', import.meta.url)))
    throw new Error('dist/ is absent; run `npm run build` first');
  const home = process.env.SEALIFT_BENCH_DIR ?? join(tmpdir(), 'sealift-bench');
  await mkdir(home, { recursive: true });
  const dir = await mkdtemp(join(home, 'run-'));
  // Also when it is interrupted; the servers are ended by hooks that stand before this one.
  process.on('exit', () => rmSync(dir, { recursive: true, force: true, maxRetries: 3 }));
  const well = options.scale ? await scale(options, { home, dir }) : await compare(options, { home, dir });
  return well ? 0 : 1;
}

// The exit hooks end what was started.
process.on('SIGINT', () => process.exit(130));
process.on('SIGTERM', () => process.exit(143));
process.exit(await main());
