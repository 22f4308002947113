import { createRequire } from 'node:module';
import type { Blake3Hasher } from '@napi-rs/blake-hash';

type Library = typeof import('@napi-rs/blake-hash');

let library: Library | undefined;

/**
 * The library's own beginning has Node write a report of the whole process to tell glibc from musl: 8 ms on each thread,
 * and a name lookup for each open connection. npm has put here only the binary for this machine, so the usual one is
 * asked for by name, and where it is absent or does not fit, the library finds out by itself.
 */
function load(): Library {
  const require = createRequire(import.meta.url);
  if (process.platform === 'linux') {
    try {
      return require(`@napi-rs/blake-hash-linux-${process.arch}-gnu`);
    } catch {
      // musl, or a machine that has no binary of its own name.
    }
  }
  return require('@napi-rs/blake-hash');
}

/** A new BLAKE3: feed it with `update`, then ask for `digest('hex')`. Loads the native library when it is first needed. */
export function createBlake3(): Blake3Hasher {
  library ??= load();
  return new library.Blake3Hasher();
}
