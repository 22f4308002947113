import { type Fault, type Position, redact, SealiftError } from '../core/errors.ts';
import type { Paint } from './paint.ts';
import { harmless } from './words.ts';

/** Faults that are listed on a screen; `--json` gives all. */
const FAULTS_SHOWN = 50;

/** Any thrown thing as the error that is shown: ours as it is, the stop as ABORTED, everything else as INTERNAL. */
export function shownError(error: unknown, stopped: boolean): SealiftError {
  if (stopped) {
    return new SealiftError('ABORTED', 'stopped', {
      cause: error,
      hint: 'run the same command again to go on',
    });
  }
  if (error instanceof SealiftError) return error;
  const message = error instanceof Error ? error.message || error.name : String(error);
  return new SealiftError('INTERNAL', message, {
    cause: error,
    hint: 'this is a fault of sealift: run it again with SEALIFT_DEBUG=1 and report what it shows',
  });
}

function placeText({ file, line, column }: Position): string {
  return `${file}:${line}:${column}`;
}

function faultLine(fault: Fault, headline: SealiftError): string {
  const code = fault.code === headline.code ? '' : `[${fault.code}] `;
  const place = fault.position === undefined ? '' : `${placeText(fault.position)}  `;
  return `  ${harmless(place + code + fault.message)}`;
}

/** The lines below the headline. A single fault that says what the headline says only adds its place. */
function faultLines(error: SealiftError): string[] {
  const [first, second] = error.faults;
  if (first !== undefined && second === undefined && first.message === error.message) {
    return first.position === undefined ? [] : [`  ${harmless(placeText(first.position))}`];
  }
  const shown = error.faults.slice(0, FAULTS_SHOWN).map((f) => faultLine(f, error));
  const more = error.faults.length - shown.length;
  return more > 0 ? [...shown, `  and ${more} more (all with --json)`] : shown;
}

function stackLines(error: SealiftError): string[] {
  const lines: string[] = [];
  for (let at: unknown = error; at instanceof Error && lines.length < 200; at = at.cause) {
    const of = (at.stack ?? '').split('\n');
    lines.push(...of.map((line) => `  ${harmless(redact(line))}`));
  }
  return lines;
}

/**
 * An error as the design shows it: headline, one line for each fault, each hint once.
 * @param options.debug adds stacks (SEALIFT_DEBUG=1)
 */
export function errorLines(
  error: SealiftError,
  options: { readonly paint: Paint; readonly debug: boolean },
): string[] {
  const { paint, debug } = options;
  const hints = [error.hint, ...error.faults.slice(0, FAULTS_SHOWN).map((f) => f.hint)];
  const shown = [...new Set(hints.filter((h) => h !== undefined))];
  return [
    `${paint.error(`error[${error.code}]`)}: ${harmless(error.message)}`,
    ...faultLines(error),
    ...shown.map((hint) => `${paint.hint('hint')}: ${harmless(hint)}`),
    ...(debug ? stackLines(error) : []),
  ];
}

/** A warning; its hint is left out when `told` has it already. */
export function warningLines(
  fault: Fault,
  options: { readonly paint: Paint; readonly told: Set<string> },
): string[] {
  const { paint, told } = options;
  const place = fault.position === undefined ? [] : [`  ${harmless(placeText(fault.position))}`];
  const isNew = fault.hint !== undefined && !told.has(fault.hint);
  if (fault.hint !== undefined) told.add(fault.hint);
  return [
    `${paint.warning(`warning[${fault.code}]`)}: ${harmless(fault.message)}`,
    ...place,
    ...(isNew && fault.hint !== undefined ? [`${paint.hint('hint')}: ${harmless(fault.hint)}`] : []),
  ];
}

function redactDeep(value: unknown): unknown {
  if (typeof value === 'string') return redact(value);
  if (Array.isArray(value)) return value.map(redactDeep);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, redactDeep(v)]));
}

/** An error for `--json`: `{code, message, hint, details, faults}`, hint and details null when there is none. */
export function errorDocument(error: SealiftError): Record<string, unknown> {
  return {
    code: error.code,
    message: error.message,
    hint: error.hint ?? null,
    details: redactDeep(error.details ?? null),
    faults: redactDeep(error.faults),
  };
}
