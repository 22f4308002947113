// What comes before the program: settings of V8, and code that V8 compiled when the program was built.
const { readFileSync, writeFileSync } = require('node:fs');
const Module = require('node:module');
const { basename, dirname } = require('node:path');
const { setFlagsFromString } = require('node:v8');
const { Script } = require('node:vm');
const { crc32 } = require('node:zlib');

/** These are V8's own settings, known to this engine; another one keeps its defaults. */
const isKnown = process.versions.v8.startsWith('11.3.');

/** Whenever V8 sets up the heap of a thread it corrects this to 2, for all threads. */
function keepYoungSpaceSmall() {
  if (isKnown) setFlagsFromString('--semi-space-growth-factor=1');
}

/**
 * Left alone, V8 lets the heap grow to four times of what lives before it collects, and the space of young objects to
 * 48 MB (docs/decisions/008, 014). None of this bounds what may live.
 */
function settleEngine() {
  if (!isKnown) return;
  setFlagsFromString('--heap-growing-percent=30');
  keepYoungSpaceSmall();
  process.on('worker', (worker) => worker.once('online', keepYoungSpaceSmall));
  // Most runs are over before optimized code pays for its making: in the first second only what is very hot is optimized.
  setFlagsFromString('--interrupt-budget=700000');
  setTimeout(() => setFlagsFromString('--interrupt-budget=67584'), 1000).unref();
}

/** What stands before the code in a `.compiled` file: CRC-32 of engine and module's bytes, then of the code; 4 bytes each. */
const HEAD = 8;

/** V8 compares versions by number and by settings that can be changed: not the processor, the patches, how it was built. */
const ENGINE = crc32(
  JSON.stringify([
    process.platform,
    process.arch,
    process.version,
    process.versions.v8,
    Object.entries(process.config.variables).filter(([name]) => name.startsWith('v8_')),
  ]),
);

function headOf(bytes, code) {
  const head = Buffer.alloc(HEAD);
  head.writeUInt32LE(crc32(bytes, ENGINE), 0);
  head.writeUInt32LE(crc32(code), 4);
  return head;
}

/** V8 looks only at the length of the module, and at none of the code: damaged code would run. */
function compiledOf(file, bytes) {
  try {
    const compiled = readFileSync(`${file}.compiled`);
    const code = compiled.subarray(HEAD);
    return compiled.subarray(0, HEAD).equals(headOf(bytes, code)) ? code : undefined;
  } catch {
    return undefined;
  }
}

function scriptOf(file) {
  const bytes = readFileSync(file);
  const cachedData = compiledOf(file, bytes);
  // What is compiled keeps the name that it had when it was built, so it is the same wherever that was. Joined, it is a text
  // of its own: put together in another way it would keep the whole path as its part.
  const filename = ['dist/program', basename(file)].join('/');
  return { file, bytes, script: new Script(Module.wrap(bytes.toString()), { filename, cachedData }) };
}

/** Keeps what V8 compiled of a module beside it. */
function keepCompiled({ file, bytes, script }) {
  const code = script.createCachedData();
  writeFileSync(`${file}.compiled`, Buffer.concat([headOf(bytes, code), code]));
}

/**
 * Has modules of `folder` loaded from what V8 compiled when they were built (docs/decisions/009). V8 takes that only from
 * the same engine with the same settings; otherwise, and where it is absent or damaged, it compiles as always.
 * @param told hears of each that is loaded, as `scriptOf` gives it; none is kept
 */
function useCompiled(folder, told = () => {}) {
  const usual = Module._extensions['.js'];
  Module._extensions['.js'] = (module, file) => {
    if (dirname(file) !== folder) return usual(module, file);
    // A thread that starts in the meantime would be another setting.
    keepYoungSpaceSmall();
    const one = scriptOf(file);
    told(one);
    one.script.runInThisContext()(module.exports, (id) => module.require(id), module, file, folder);
  };
}

module.exports = { keepCompiled, scriptOf, settleEngine, useCompiled };
