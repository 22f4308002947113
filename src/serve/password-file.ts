import { createHmac, randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { compare, getRounds } from 'bcryptjs';
import { errorOf, type Fault, fault } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { type Answer, type Exchange, refusal } from './answer.ts';
import { basicCredentials, basicRefusal } from './auth.ts';

/** User name → bcrypt hash. */
export type PasswordFile = ReadonlyMap<string, string>;

const BCRYPT = /^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$/;
const HINT = 'make each line with `htpasswd -nB USER`';

/** What else a line of htpasswd may hold, by how it begins. */
const OTHERS: readonly (readonly [RegExp, string])[] = [
  [/^\$apr1\$/, 'MD5 (apr1)'],
  [/^\{SHA\}/, 'SHA-1'],
  [/^\$[56]\$/, 'crypt'],
];

function lineFault(rest: string, where: string): Fault | undefined {
  const other = OTHERS.find(([start]) => start.test(rest))?.[1];
  if (!BCRYPT.test(rest)) {
    const found = other === undefined ? 'another form' : other;
    return fault('USAGE', `${where}: the hash must be bcrypt, as registries have it, not ${found}`, {
      hint: HINT,
    });
  }
  const cost = getRounds(rest);
  if (cost <= LIMITS.passwordCost && cost >= 4) return undefined;
  return fault('USAGE', `${where}: the cost ${cost} is not between 4 and ${LIMITS.passwordCost}`, {
    hint: HINT,
  });
}

/**
 * Reads a htpasswd file of bcrypt hashes. No message holds a hash.
 * @throws USAGE with every line that cannot be used
 */
export function parsePasswordFile(text: string, path: string): PasswordFile {
  const users = new Map<string, string>();
  const faults: Fault[] = [];
  // Some editors begin a file with a mark (U+FEFF), which is no part of the first name.
  for (const [index, line] of text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const where = `${path}:${index + 1}`;
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(0, colon));
    if (name === '') faults.push(fault('USAGE', `${where}: not USER:HASH`, { hint: HINT }));
    else if (users.has(name)) faults.push(fault('USAGE', `${where}: the user stands there twice`));
    else {
      const hash = line.slice(colon + 1).trim();
      const wrong = lineFault(hash, where);
      if (wrong === undefined) users.set(name, hash);
      else faults.push(wrong);
    }
  }
  if (faults.length === 0 && users.size === 0) {
    faults.push(fault('USAGE', `${path}: no user stands there`, { hint: HINT }));
  }
  if (faults.length > 0) throw errorOf(faults, `${path}: ${faults.length} lines cannot be used`);
  return users;
}

/** The refusal for who is not in the file, or undefined when the request may go on. */
export type Doorkeeper = (exchange: Exchange) => Promise<Answer | undefined>;

/**
 * A doorkeeper who knows the users of a file. A password that was right is known again, because bcrypt is slow on purpose and
 * a client shows its password with every request; wrong ones are checked one after the other, and not many may wait. After a
 * wrong one there is a pause, in which downloads have the processor.
 * @param options.pauseMs default LIMITS.wrongPasswordMs
 */
export function doorkeeperOf(
  users: PasswordFile,
  { pauseMs = LIMITS.wrongPasswordMs }: { readonly pauseMs?: number } = {},
): Doorkeeper {
  const key = randomBytes(32);
  const known = new Set<string>();
  let waiting = 0;
  let turn: Promise<unknown> = Promise.resolve();
  const [someHash = ''] = users.values();

  const isRight = async (name: string, password: string): Promise<boolean> => {
    const hash = users.get(name);
    // As long for a name that is not there, so that nobody learns which are.
    const matches = await compare(password, hash ?? someHash);
    return matches && hash !== undefined;
  };

  return async (exchange) => {
    const said = basicCredentials(exchange);
    if (said === undefined || said === 'wrong') return basicRefusal();
    const seen = createHmac('sha256', key).update(`${said.name}\0${said.password}`).digest('base64');
    if (known.has(seen)) return undefined;
    if (waiting >= LIMITS.passwordsWaiting) {
      return refusal('TOOMANYREQUESTS', 'too many logins at once', { headers: { 'retry-after': '1' } });
    }
    waiting += 1;
    try {
      const check = turn.then(() => known.has(seen) || isRight(said.name, said.password));
      turn = check
        .catch(() => false)
        .then((isUser) => (isUser ? undefined : pause(pauseMs, undefined, { ref: false })));
      if (!(await check)) return basicRefusal();
      known.add(seen);
      return undefined;
    } finally {
      waiting -= 1;
    }
  };
}
