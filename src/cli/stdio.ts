import { fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Output } from '../io/byte-sink.ts';

/** The number that every program's standard output has. */
const STDOUT = 1;

/**
 * stdout as a place for a bundle. Where it is a pipe it is taken by a stream of our own: Node never closes its own one, so
 * a write that nobody takes would keep a stopped program alive.
 */
export function bundleOutput(): Output {
  const stat = fstatSync(STDOUT);
  if (!stat.isFIFO() && !stat.isSocket()) return process.stdout;
  return Object.assign(new Socket({ fd: STDOUT, readable: false, writable: true }), { fd: STDOUT });
}
