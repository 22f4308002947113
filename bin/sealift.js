#!/usr/bin/env node
// Runs the built program. `npm ci` builds it; a checkout where that did not happen gets a hint, not a stack trace.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const built = new URL('../dist/program/main.js', import.meta.url);
if (existsSync(fileURLToPath(built))) {
  const { main } = await import(built.href);
  process.exitCode = await main(process.argv);
} else {
  process.stderr.write('error[NOT_BUILT]: dist/ is absent, so there is no program to run\n');
  process.stderr.write('hint: run `npm ci` (or `npm run build`) in the folder of sealift\n');
  process.exitCode = 1;
}
