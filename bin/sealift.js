#!/usr/bin/env node
// Runs the built program. `npm ci` builds it; a checkout where that did not happen gets a hint, not a stack trace.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';

// Left alone, V8 lets the heap grow to four times of what lives before it collects, and the space of young objects to 48 MB.
// These are V8's own settings, known to this engine (docs/decisions/008, 014); another engine keeps its
// defaults. None bounds what may live.
if (process.versions.v8.startsWith('11.3.')) {
  setFlagsFromString('--heap-growing-percent=30');
  const keepYoungSpaceSmall = () => setFlagsFromString('--semi-space-growth-factor=1');
  keepYoungSpaceSmall();
  // Whenever V8 sets up the heap of a thread it corrects this one to 2, for all threads.
  process.on('worker', (worker) => worker.once('online', keepYoungSpaceSmall));
  // Most runs are over before optimized code pays for its making: in the first second only what is very hot is optimized.
  setFlagsFromString('--interrupt-budget=700000');
  setTimeout(() => setFlagsFromString('--interrupt-budget=67584'), 1000).unref();
}

const built = new URL('../dist/program/main.js', import.meta.url);
if (existsSync(fileURLToPath(built))) {
  if (process.argv.includes('verify')) {
    const { beginEarly } = await import(new URL('early.js', built).href);
    beginEarly(process.argv.slice(2));
  }
  const { main } = await import(built.href);
  process.exitCode = await main(process.argv);
} else {
  process.stderr.write('error[NOT_BUILT]: dist/ is absent, so there is no program to run\n');
  process.stderr.write('hint: run `npm ci` (or `npm run build`) in the folder of sealift\n');
  process.exitCode = 1;
}
