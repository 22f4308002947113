// Has V8 compile the program in the folder that is named, and keeps what it made beside each file (docs/decisions/009).
// Every verb that needs no network runs once, so what they need is compiled, not only what stands at the top of a file.
const { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { keepCompiled, scriptOf, settleEngine, useCompiled } = require('../bin/start.js');

const MANIFEST = `apiVersion: sealift/v1
name: sample
version: "1"
charts:
  - {path: chart}
files:
  - {path: file.txt, name: file.txt}
`;
const VERBS = [
  ['lock'],
  ['pack', '-o', 'sample.tar', '--no-tool'],
  ['pack', '-o', 'sample.tar', '--no-tool'],
  ['verify', 'sample.tar'],
  ['verify', 'sample.tar', '--deep'],
  ['ls', 'sample.tar'],
  ['load', 'sample.tar', '--chart-tree', 'charts', '--files', 'files'],
];

function makeSample(dir) {
  mkdirSync(join(dir, 'chart'));
  writeFileSync(join(dir, 'chart/Chart.yaml'), 'apiVersion: v2\nname: sample\nversion: 1.0.0\n');
  writeFileSync(join(dir, 'file.txt'), 'sample\n');
  writeFileSync(join(dir, 'sealift.yaml'), MANIFEST);
}

async function runVerbs(program, dir) {
  const { main } = require(join(program, 'main.js'));
  makeSample(dir);
  const home = process.cwd();
  process.chdir(dir);
  try {
    for (const verb of VERBS) {
      const code = await main([process.execPath, 'sealift', ...verb]);
      if (code !== 0) throw new Error(`sealift ${verb.join(' ')} ended with ${code}`);
    }
  } finally {
    process.chdir(home);
  }
}

/** What this machine trusts or has logins for concerns no sample, and must not decide what is compiled. */
function forgetSettings() {
  for (const name of Object.keys(process.env)) if (name.startsWith('SEALIFT_')) delete process.env[name];
}

async function compile(program) {
  forgetSettings();
  settleEngine();
  const loaded = [];
  useCompiled(program, (one) => loaded.push(one));
  const dir = mkdtempSync(join(tmpdir(), 'sealift-compile-'));
  try {
    await runVerbs(program, dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  // As they are when a program begins.
  settleEngine();
  for (const one of loaded) keepCompiled(one);
  const ran = new Set(loaded.map(({ file }) => file));
  const files = readdirSync(program).map((name) => join(program, name));
  for (const file of files) if (file.endsWith('.js') && !ran.has(file)) keepCompiled(scriptOf(file));
}

compile(process.argv[2]);
