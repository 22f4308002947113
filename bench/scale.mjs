/** How cost grows with the number of images: the same verbs on fleets of tiny images. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { contestants } from './contestants.mjs';
import { median, number, table } from './figures.mjs';
import { tinyFleet } from './fleet.mjs';
import { RESULTS, writeResults } from './report.mjs';
import { openSite } from './site.mjs';
import { prepare, runRound, wantedChains } from './stages.mjs';

const STAGES = ['lock', 'pack', 'again', 'verify', 'load', 'loadAgain'];

/** Sealift alone through all stages on one fleet: each stage `rounds` times, then once through the counting proxies. */
async function measureSize(images, { home, dir, rounds, say }) {
  const site = await openSite({ home, dir: join(dir, String(images)), fleet: tinyFleet(images) });
  const present = contestants().filter(({ name }) => name === 'sealift');
  const chains = wantedChains(STAGES);
  const runs = new Map(STAGES.map((stage) => [stage, []]));
  const record = ({ stage, figures, counts }) => {
    if (figures.failure !== undefined) throw new Error(`${images} images, ${stage}: ${figures.failure}`);
    runs.get(stage).push({ ...figures, ...(counts === undefined ? {} : { counts }) });
  };
  const all = { contestants: present, chains, record, skip: () => false };
  try {
    const failures = await prepare(site, present, chains);
    for (const [name, failure] of failures) throw new Error(`${images} images, ${name}: ${failure}`);
    const bundle = (await stat(join(site.dir, 'packed', 'sealift', 'bundle.tar'))).size;
    for (let round = 1; round <= rounds; round++) {
      say(`${images} images, round ${round} of ${rounds}`);
      await runRound({ ...site, sample: true }, { ...all, round });
    }
    say(`${images} images, counting`);
    const timed = structuredClone(runs);
    await site.counted((through) => runRound(through, { ...all, round: 0 }));
    const counts = new Map([...runs].map(([stage, list]) => [stage, list.at(-1).counts]));
    return { images, bundle, runs: timed, counts };
  } finally {
    await site.close();
  }
}

const middle = (size, { stage, field }) => median(size.runs.get(stage).map((figures) => figures[field]));

/** One row for each stage, one column for each number of images. */
function growth(sizes, { title, cell }) {
  const rows = STAGES.map((stage) => [stage, ...sizes.map((size) => cell(size, stage))]);
  return table([[title, ...sizes.map(({ images }) => `${images}`)], ...rows]);
}

const PARTS = [
  {
    title: 'seconds, median',
    cell: (size, stage) => number(middle(size, { stage, field: 'seconds' })),
  },
  {
    title: 'milliseconds per image',
    cell: (size, stage) => number((1000 * middle(size, { stage, field: 'seconds' })) / size.images),
  },
  {
    title: 'requests per image',
    cell: (size, stage) => number(size.counts.get(stage).requests / size.images),
  },
  {
    title: 'peak memory, MB',
    cell: (size, stage) => number(middle(size, { stage, field: 'memory' }), 'bytes'),
  },
  {
    title: 'open files, most',
    cell: (size, stage) => number(Math.max(...size.runs.get(stage).map(({ files }) => files)), 'count'),
  },
];

/** Measures every size, prints how cost grows and writes results.json. */
export async function scale(options, { home, dir }) {
  const say = (text) => process.stdout.write(`${text}\n`);
  const sizes = [];
  for (const images of options.sizes)
    sizes.push(await measureSize(images, { home, dir, rounds: options.rounds, say }));
  for (const part of PARTS) say(`\n${growth(sizes, part)}`);
  await writeResults({ options, scale: sizes });
  say(`\nall runs: ${RESULTS}`);
  return true;
}
