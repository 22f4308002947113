/** Colours for words that carry meaning; nothing is said by colour alone. */
export interface Paint {
  readonly error: (text: string) => string;
  readonly warning: (text: string) => string;
  readonly hint: (text: string) => string;
  readonly strong: (text: string) => string;
}

const same = (text: string): string => text;

function style(open: number, close: number): (text: string) => string {
  return (text) => `\x1b[${open}m${text}\x1b[${close}m`;
}

const COLOURS: Paint = {
  error: (text) => style(1, 22)(style(31, 39)(text)),
  warning: style(33, 39),
  hint: style(36, 39),
  strong: style(1, 22),
};

const PLAIN: Paint = { error: same, warning: same, hint: same, strong: same };

/** Colours only where a person looks: on a terminal that has them, and not with NO_COLOR (no-color.org) or `--no-color`. */
export function createPaint(about: {
  readonly isTerminal: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** False with `--no-color`. */
  readonly wanted: boolean;
}): Paint {
  const { isTerminal, env, wanted } = about;
  const noColor = env.NO_COLOR !== undefined && env.NO_COLOR !== '';
  return isTerminal && wanted && !noColor && env.TERM !== 'dumb' ? COLOURS : PLAIN;
}
