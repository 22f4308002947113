import { EXIT, exitCodeOf, type SealiftError } from '../core/errors.ts';
import { clock, createSession, type Session } from './context.ts';
import type { Outcome } from './outcome.ts';
import { createPaint, type Paint } from './paint.ts';
import { chooseMode, createProgress, type Progress, type ProgressMode } from './progress.ts';
import { errorDocument, errorLines, shownError, warningLines } from './render-error.ts';
import { harmless, jsonText } from './words.ts';

/** How the program talks, from the global options. */
export interface Voice {
  readonly progress: ProgressMode;
  readonly color: boolean;
  readonly json: boolean;
}

const SCHEMA_VERSION = 1;

interface Speaker {
  readonly voice: Voice;
  readonly paint: Paint;
  /** Whether stderr is one JSON text a line. */
  readonly isLines: boolean;
}

function speakerOf(voice: Voice): Speaker {
  const { stderr, env } = process;
  const paint = createPaint({ isTerminal: stderr.isTTY === true, env, wanted: voice.color });
  return { voice, paint, isLines: voice.progress === 'json' };
}

function isDebug(): boolean {
  return process.env.SEALIFT_DEBUG === '1';
}

function print(stream: NodeJS.WriteStream, lines: readonly string[]): void {
  if (lines.length > 0) stream.write(`${lines.join('\n')}\n`);
}

function printDocument(document: Readonly<Record<string, unknown>>): void {
  print(process.stdout, [jsonText({ schemaVersion: SCHEMA_VERSION, ...document }, 2)]);
}

function sayError(error: SealiftError, { paint, isLines }: Speaker): void {
  const lines = isLines
    ? [jsonText({ type: 'error', error: errorDocument(error) })]
    : errorLines(error, { paint, debug: isDebug() });
  print(process.stderr, lines);
}

function sayOutcome(outcome: Outcome, speaker: Speaker): void {
  const { voice, paint, isLines } = speaker;
  const { failure, warnings = [], next } = outcome;
  const say = (lines: readonly string[]): void =>
    print(process.stderr, isLines ? lines.map((message) => jsonText({ type: 'note', message })) : lines);
  const told = new Set<string>();
  if (isLines)
    print(
      process.stderr,
      warnings.map((fault) => jsonText({ type: 'warning', fault })),
    );
  else say(warnings.flatMap((fault) => warningLines(fault, { paint, told })));
  if (voice.json) {
    printDocument({
      ...outcome.document,
      ...(failure === undefined ? {} : { error: errorDocument(failure) }),
    });
  } else print(process.stdout, outcome.data ?? []);
  say(outcome.summary);
  if (failure !== undefined) sayError(failure, speaker);
  if (next !== undefined) say([`next: ${isLines ? next : paint.strong(harmless(next))}`]);
}

/** Says why nothing came of it, on stderr and with `--json` also on stdout. @returns the exit code */
export function sayFailure(error: SealiftError, voice: Voice): number {
  if (voice.json) printDocument({ error: errorDocument(error) });
  sayError(error, speakerOf(voice));
  return exitCodeOf(error.code);
}

function startSession(progress: Progress): Session {
  return createSession({
    emit: progress.emit,
    onStop: () => progress.say(['stopping; press again to end at once']),
    onEnd: () => progress.stop(),
  });
}

/**
 * Runs one verb from the first event to the last line.
 * @returns the exit code
 */
export async function runVerb(
  voice: Voice,
  verb: (context: Session['context']) => Promise<Outcome>,
): Promise<number> {
  const speaker = speakerOf(voice);
  const { stderr, env } = process;
  const mode = chooseMode(voice.progress, { isTerminal: stderr.isTTY === true, env });
  const progress = await createProgress(mode, { stream: stderr, paint: speaker.paint, now: clock });
  const session = startSession(progress);
  try {
    const outcome = await verb(session.context);
    progress.stop();
    sayOutcome(outcome, speaker);
    return outcome.failure === undefined ? (outcome.exitCode ?? EXIT.done) : exitCodeOf(outcome.failure.code);
  } catch (error) {
    progress.stop();
    return sayFailure(shownError(error, session.context.signal.aborted), voice);
  } finally {
    progress.stop();
    session.close();
  }
}
