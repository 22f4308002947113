import { type ErrorCode, type Fault, isErrorCode, SealiftError } from '../core/errors.ts';

/** What the main thread tells a worker thread. */
export type ToWorker =
  | { readonly type: 'job'; readonly id: number; readonly job: unknown }
  | { readonly type: 'stop'; readonly id: number };

/** What a worker thread tells the main thread. */
export type FromWorker =
  | { readonly type: 'note'; readonly id: number; readonly note: number }
  | { readonly type: 'done'; readonly id: number; readonly result: unknown }
  | { readonly type: 'failed'; readonly id: number; readonly error: WireError };

/** An error as it crosses threads: copies of errors lose their class. */
export interface WireError {
  readonly code: ErrorCode | undefined;
  /** The system's or a library's code (`ECONNRESET`), by which faults of the wire are told from bugs. */
  readonly errno?: string;
  readonly message: string;
  readonly stack?: string;
  readonly hint?: string;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly faults?: readonly Fault[];
  readonly side?: 'source' | 'destination';
}

/** An error for the other thread. */
export function toWire(error: unknown): WireError {
  if (error instanceof SealiftError) {
    const { code, message, hint, details, faults, side } = error;
    return {
      code,
      message,
      faults,
      ...(hint === undefined ? {} : { hint }),
      ...(details === undefined ? {} : { details }),
      ...(side === undefined ? {} : { side }),
    };
  }
  if (!(error instanceof Error)) return { code: undefined, message: String(error) };
  const { message, stack } = error;
  const errno = 'code' in error && typeof error.code === 'string' ? { errno: error.code } : {};
  return { code: undefined, message, ...errno, ...(stack === undefined ? {} : { stack }) };
}

/** The error that the other thread had. */
export function fromWire(wire: WireError): Error {
  const { code, errno, message, stack, ...more } = wire;
  if (code !== undefined && isErrorCode(code)) return new SealiftError(code, message, more);
  const error = Object.assign(new Error(message), errno === undefined ? {} : { code: errno });
  if (stack !== undefined) error.stack = stack;
  return error;
}
