import { type Fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { HttpClient, type HttpOptions } from '../io/http.ts';

/** Runs `work` with an HTTP client that is closed at the end, however it ends. */
export async function withHttp<T>(
  context: Context,
  work: (http: HttpClient) => Promise<T>,
  options: HttpOptions = {},
): Promise<T> {
  const http = new HttpClient(context, options);
  try {
    return await work(http);
  } finally {
    await http.close();
  }
}

/** The result of one piece of many: a failure does not stop the others. */
export type Attempt<T> = { readonly value: T } | { readonly fault: Fault };

/** Runs one piece of many; being stopped and bugs still end everything. */
export async function attempt<T>(work: () => Promise<T>, position?: Fault['position']): Promise<Attempt<T>> {
  try {
    return { value: await work() };
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    const inner = error.faults.length > 1 ? ` (${error.faults.map((f) => f.message).join('; ')})` : '';
    const f = faultOf(error);
    return { fault: { ...f, message: f.message + inner, ...(position === undefined ? {} : { position }) } };
  }
}

/** Every fault of a failure on its own; being stopped and bugs are thrown on. */
export function faultsIn(error: unknown): readonly Fault[] {
  if (isAbort(error) || !(error instanceof SealiftError)) throw error;
  return error.faults.length === 0 ? [faultOf(error)] : error.faults;
}

/** Splits attempts into values and faults. */
export function sortAttempts<T>(attempts: readonly Attempt<T>[]): {
  readonly values: T[];
  readonly faults: Fault[];
} {
  const values: T[] = [];
  const faults: Fault[] = [];
  for (const a of attempts) {
    if ('value' in a) values.push(a.value);
    else faults.push(a.fault);
  }
  return { values, faults };
}
