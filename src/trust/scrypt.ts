import { freemem } from 'node:os';
import { SealiftError } from '../core/errors.ts';
import { LIMITS, MIB } from '../core/limits.ts';
import { runProcess } from '../io/process.ts';
import { type Reading, refuse } from './lines.ts';

/** What a key file says about how its key was derived from the password: libsodium's two numbers and the salt. */
export interface KdfLimits {
  /** Operations. */
  readonly ops: bigint;
  /** Bytes. */
  readonly memory: bigint;
}

/** What minisign takes for a new key: 1 GiB. */
export const MINISIGN_LIMITS: KdfLimits = { ops: 33_554_432n, memory: 1_073_741_824n };

/** Scrypt's own parameters (RFC 7914, section 2). */
interface Parameters {
  readonly N: number;
  readonly r: number;
  readonly p: number;
}

/** The least operations that libsodium computes with. */
const LEAST_OPS = 32_768;
const R = 8;

/**
 * The parameters that libsodium chooses for its limits (`pickparams` of crypto_pwhash_scryptsalsa208sha256).
 * @throws KEY_INVALID for more than minisign's own limits: a hostile key file shall not take the machine's memory
 */
export function parametersOf({ ops, memory }: KdfLimits, reading: Reading): Parameters {
  if (ops > MINISIGN_LIMITS.ops || memory > MINISIGN_LIMITS.memory) {
    const found = `${ops} operations and ${memory} bytes`;
    refuse(reading, `its password needs ${found}, more than minisign ever asks for`);
  }
  const wanted = Math.max(LEAST_OPS, Number(ops));
  const bytes = Number(memory);
  const isByOps = wanted < Math.floor(bytes / 32);
  const most = isByOps ? wanted / (4 * R) : bytes / (128 * R);
  let power = 1;
  while (power < 63 && 2 ** power <= most / 2) power += 1;
  const N = 2 ** power;
  const p = isByOps ? 1 : Math.max(1, Math.floor(Math.floor(wanted / 4 / N) / R));
  return { N, r: R, p };
}

/** What scrypt works on, and the process around it. Bytes. */
function memoryOf({ N, r, p }: Parameters): number {
  return 128 * r * (N + p + 2);
}
const PROCESS = 64 * MIB;

/**
 * The whole program of the child. It asks the kernel to be the first that ends where memory is short: nothing is lost with
 * it. Passwords come on standard input, never as words of a command.
 */
const PROGRAM = `
try { require('node:fs').writeFileSync('/proc/self/oom_score_adj', '1000'); } catch {}
const { scryptSync } = require('node:crypto');
const { password, salt, length, N, r, p, maxmem } = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const key = scryptSync(Buffer.from(password, 'base64'), Buffer.from(salt, 'base64'), length, { N, r, p, maxmem });
process.stdout.write(key.toString('base64'));
`;

/** Longer than the slowest machine needs, in milliseconds. */
const TIMEOUT = 300_000;

function lacking(need: number, what: string, cause?: string): SealiftError {
  const why = cause === undefined ? '' : ` (${cause})`;
  return new SealiftError(
    'MEMORY_LACKING',
    `${what}: its password needs ${Math.ceil(need / MIB)} MiB of memory, and this machine does not give so much${why}`,
    {
      hint: 'use a machine with more memory, or a key without a password (`sealift keygen --no-password`) that you keep safe in another way',
      details: { need },
    },
  );
}

/** Bytes that this process, or its container, may still take. */
function available(): number {
  // Node 20.19 has no availableMemory.
  const bytes = typeof process.availableMemory === 'function' ? process.availableMemory() : freemem();
  // Without /proc (a bare chroot) nobody knows.
  return bytes > 0 ? bytes : Number.POSITIVE_INFINITY;
}

/**
 * Derives a key from a password, in a process of its own: what it takes (1 GiB and some seconds, the format's) is given back
 * with it, and when the system ends it for want of memory, this program goes on.
 * @throws MEMORY_LACKING before it starts where memory is known to lack, or when it fails; KEY_INVALID, ABORTED
 */
export async function deriveKey(
  password: string,
  options: {
    readonly salt: Uint8Array;
    readonly limits: KdfLimits;
    /** Of the derived key, in bytes. */
    readonly length: number;
    readonly reading: Reading;
    readonly signal: AbortSignal;
    /** Bytes that may be taken; for tests. */
    readonly available?: number;
  },
): Promise<Buffer> {
  const { salt, limits, length, reading, signal } = options;
  const parameters = parametersOf(limits, reading);
  const need = memoryOf(parameters) + PROCESS;
  const has = options.available ?? available();
  if (has < need) throw lacking(need, reading.what, `${Math.floor(has / MIB)} MiB are free`);
  const input = JSON.stringify({
    password: Buffer.from(password).toString('base64'),
    salt: Buffer.from(salt).toString('base64'),
    length,
    ...parameters,
    maxmem: memoryOf(parameters) + MIB,
  });
  // Where the launcher of the tarball gave this Node its C++ library, the other one needs it too.
  const env = { LD_LIBRARY_PATH: process.env.LD_LIBRARY_PATH };
  const run = { input, timeoutMs: TIMEOUT, limit: LIMITS.errorBody, env, signal };
  const { code, stdout } = await runProcess(process.execPath, ['-e', PROGRAM], run);
  const key = Buffer.from(stdout, 'base64');
  if (code !== 0 || key.length !== length) throw lacking(need, reading.what, 'the derivation ended early');
  return key;
}
