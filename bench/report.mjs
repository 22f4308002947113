/** What the benchmark says: tables on the screen, and bench/results.json with every single run. */
import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { judge, medianOf, number, ratioOf, table } from './figures.mjs';
import { STAGES } from './stages.mjs';
import { locate, versionOf } from './tools.mjs';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Where every single run is written. */
export const RESULTS = fileURLToPath(new URL('results.json', import.meta.url));

function commit() {
  try {
    const git = (...args) => execFileSync('git', ['-C', ROOT, ...args], { encoding: 'utf8' }).trim();
    return `${git('rev-parse', '--short=12', 'HEAD')}${git('status', '--porcelain') === '' ? '' : ' and changes'}`;
  } catch {
    return 'unknown';
  }
}

/** What somebody must know to judge the figures. */
export function machine() {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memory: totalmem(),
    kernel: release(),
    node: process.version,
    load: loadavg().map((x) => Math.round(x * 100) / 100),
  };
}

/** The version of every contestant and server, or `missing`. */
export function versions(contestants) {
  const servers = ['docker-registry', 'containerd'].map((name) => ({
    name,
    program: locate(name),
    version: [locate(name) ?? '', '--version'],
  }));
  return Object.fromEntries(
    [...contestants, ...servers].map(({ name, program, version }) => [
      name,
      program === undefined ? 'missing' : versionOf(version ?? [program, '--version']),
    ]),
  );
}

/** A floor has a column together with the other floors: at most one of them takes part in a stage. */
function columns(contestants) {
  const present = contestants.filter(({ program }) => program !== undefined);
  const peers = present.filter(({ floor }) => !floor).map(({ name }) => ({ title: name, names: [name] }));
  const floor = { title: 'floor', names: present.filter((c) => c.floor).map((c) => c.name) };
  return [...peers, floor];
}

/** One row for each stage that somebody ran, one cell for each contestant. */
function matrix(contestants, { results, title, cell }) {
  const heads = columns(contestants);
  const stages = STAGES.filter(({ stage }) => results.has(stage));
  const rows = stages.map((stage) => [
    stage.title,
    ...heads.map(({ names }) => {
      const name = names.find((n) => results.get(stage.stage)?.has(n));
      return name === undefined ? '' : cell(stage.stage, name);
    }),
  ]);
  return table([[title, ...heads.map((head) => head.title)], ...rows]);
}

function judgeRow({ what, against, most, field, value, holds }) {
  const unit = field === undefined ? 'seconds' : 'bytes';
  const bound = field !== undefined ? `${most / 1e6} MB` : against === undefined ? `${most} s` : `${most} ×`;
  const verdict = holds === undefined ? 'not measured' : holds ? 'holds' : 'does not hold';
  return [what, against ?? '', bound, number(value, unit), verdict];
}

/** The table of what is to be reached. */
export function targetTable(results) {
  const rows = judge(results).map(judgeRow);
  return table([['to reach', 'against', 'at most', 'measured', ''], ...rows]);
}

/** All tables: times, times against Sealift's, and what each run used. */
export function tables(contestants, { results, counts }) {
  const of = (field, unit) => (stage, name) => number(medianOf(results, { stage, name, field }), unit);
  const factor = (stage, name) =>
    name === 'sealift' ? '1' : number(ratioOf(results, { stage, against: name }));
  const parts = [
    { results, title: 'seconds, median', cell: of('seconds', 'seconds') },
    { results, title: "Sealift's time : theirs", cell: factor },
    { results, title: 'processor, seconds', cell: of('cpuSeconds', 'seconds') },
    { results, title: 'peak memory, MB', cell: of('memory', 'bytes') },
    { results, title: 'disk written, MB', cell: of('written', 'bytes') },
  ];
  if (counts.size > 0) {
    const counted = (field, unit) => (stage, name) =>
      number([...(counts.get(stage)?.get(name)?.values() ?? [])][0]?.[field], unit);
    parts.push(
      { results: counts, title: 'requests', cell: counted('requests', 'count') },
      { results: counts, title: 'received, MB', cell: counted('received', 'bytes') },
      { results: counts, title: 'sent, MB', cell: counted('sent', 'bytes') },
    );
  }
  return parts.map((part) => matrix(contestants, part)).join('\n\n');
}

const plain = (value) =>
  value instanceof Map ? Object.fromEntries([...value].map(([key, inner]) => [key, plain(inner)])) : value;

/** Writes bench/results.json: everything that was measured, and what was there. */
export async function writeResults(document) {
  const text = JSON.stringify(
    { schemaVersion: 1, commit: commit(), machine: machine(), ...document },
    (_, v) => plain(v),
    2,
  );
  await writeFile(RESULTS, `${text}\n`);
}
