#!/usr/bin/env node
// Runs the built program. `npm ci` builds it; a checkout where that did not happen gets a hint, not a stack trace.
const { existsSync } = require('node:fs');
const { join } = require('node:path');
const { settleEngine, useCompiled } = require('./start.js');

settleEngine();
const program = join(__dirname, '../dist/program');
if (existsSync(join(program, 'main.js'))) {
  useCompiled(program);
  if (process.argv.includes('verify')) require(join(program, 'early.js')).beginEarly(process.argv.slice(2));
  const { main } = require(join(program, 'main.js'));
  main(process.argv).then((code) => {
    process.exitCode = code;
  });
} else {
  process.stderr.write('error[NOT_BUILT]: dist/ is absent, so there is no program to run\n');
  process.stderr.write('hint: run `npm ci` (or `npm run build`) in the folder of sealift\n');
  process.exitCode = 1;
}
