/** Runs the commands of one contestant and measures them. */
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const METER = fileURLToPath(new URL('measure.py', import.meta.url));
const LIMIT_SECONDS = 900;
const running = new Set();
let python;

process.on('exit', () => {
  for (const child of running) child.kill('SIGTERM');
});

/** The interpreter itself: what stands on the PATH may be a script that costs more than what it measures. */
function interpreter() {
  python ??= execFileSync('python3', ['-c', 'import sys; print(sys.executable)'], {
    encoding: 'utf8',
  }).trim();
  return python;
}

function meter(spec) {
  return new Promise((resolve, reject) => {
    const child = spawn(interpreter(), ['-S', '-E', METER], { stdio: ['pipe', 'pipe', 'inherit'] });
    let text = '';
    running.add(child);
    child.stdout.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      running.delete(child);
      if (code === 0) resolve(JSON.parse(text));
      else reject(new Error(`the meter ended with exit code ${code}`));
    });
    child.stdin.end(JSON.stringify(spec));
  });
}

const sum = (steps, field) => steps.reduce((total, step) => total + step[field], 0);
const most = (steps, field) => Math.max(0, ...steps.map((step) => step[field]));

/**
 * Runs `steps` (`{argv, cwd, env}`) one after another. Before that everything that others wrote goes to the disk, so that
 * nobody pays for another's writes.
 * @returns {Promise<{failure?: string, seconds: number, cpuSeconds: number, memory: number, written: number, files: number, steps: number[]}>}
 * times in seconds, the rest in bytes and numbers; `failure` is the end of what the commands printed
 */
export async function measure(steps, { log, sample = false }) {
  rmSync(log, { force: true });
  execFileSync('sync');
  const done = await meter({ steps, log, sample, limit: LIMIT_SECONDS });
  const figures = {
    seconds: sum(done, 'seconds'),
    cpuSeconds: sum(done, 'cpuSeconds'),
    memory: most(done, 'memory'),
    written: sum(done, 'written'),
    files: most(done, 'files'),
    steps: done.map((step) => step.seconds),
  };
  const broken = done.find((step) => step.code !== 0);
  if (broken === undefined) return figures;
  const argv = steps[done.length - 1].argv.join(' ').slice(0, 300);
  const said = readFileSync(log, 'utf8').trim().slice(-1500);
  return { ...figures, failure: `${argv}\nended with ${broken.code}: ${said}` };
}
