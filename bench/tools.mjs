/** Which programs are there. scripts/peers knows where it put what it built; everything else must stand on the PATH. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';

function folders() {
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  const built = join(process.env.SEALIFT_PEERS ?? join(cache, 'sealift', 'peers'), 'bin');
  // Daemons stand in a folder that some users' PATH leaves out.
  return [...(process.env.PATH ?? '').split(delimiter), built, '/usr/sbin', '/usr/bin'].filter(
    (d) => d !== '',
  );
}

/** The path of a program, or undefined. */
export function locate(name) {
  for (const dir of folders()) {
    const path = join(dir, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // The next folder may have it.
    }
  }
  return undefined;
}

/** The path of a program without which there is no benchmark. */
export function need(name) {
  const path = locate(name);
  if (path === undefined)
    throw new Error(`the program ${name} is missing; run \`scripts/peers install\` or put it on the PATH`);
  return path;
}

/** The first line that says a version, or `unknown`: some programs do not know theirs when they are built outside their repository. */
export function versionOf([program, ...args]) {
  try {
    const text = execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    return text.match(/v?\d+\.\d+(?:\.\d+)?[^\s,]*/)?.[0] ?? 'unknown';
  } catch {
    return 'unknown';
  }
}
