import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { ensureBuilt, type Ran, runProgram } from './program.ts';
import { openSite, type Site } from './site.ts';

/** Every secret holds this word, as it is or in Base64. */
const WORD = 'hunter2';
const PASSWORD = `${WORD}-password`;
const TOKEN = `${WORD}-bearer`;
const BASIC = Buffer.from(`ann:${PASSWORD}`).toString('base64');
const FORMS = [
  WORD,
  BASIC,
  ...[0, 1, 2].map((i) =>
    Buffer.from(`${'x'.repeat(i)}${WORD}`)
      .toString('base64')
      .slice(4, -4),
  ),
];

let site: Site;
let target: RunningRegistry;
/** How the source answers whoever is logged in. */
let mood: 'well' | 'echo' | 'forbidden' | 'redirect' = 'well';
let locked = false;
let loggedIn = 0;

function refuse(response: ServerResponse, challenge: string): true {
  response.writeHead(401, { 'www-authenticate': challenge }).end(`who? ${PASSWORD}`);
  return true;
}

/** Wants a token for the registry and a password for charts and files; misbehaves as `mood` says. */
async function guard(request: IncomingMessage, response: ServerResponse): Promise<boolean> {
  if (!locked) return false;
  const sent = request.headers.authorization ?? '';
  const url = request.url ?? '';
  const host = request.headers.host ?? '';
  if (url.startsWith('/signed')) return false;
  if (url.startsWith('/token-server')) {
    let body = '';
    for await (const chunk of request) body += chunk;
    const known = sent === `Basic ${BASIC}` || body.includes(`refresh_token=${PASSWORD}`);
    if (!known) response.writeHead(401).end(`no such user: ${sent} ${body}`);
    else response.end(JSON.stringify({ token: TOKEN }));
    return true;
  }
  const isRegistry = url.startsWith('/v2/');
  if (isRegistry && sent !== `Bearer ${TOKEN}`) {
    return refuse(response, `Bearer realm="http://${host}/token-server?x=${WORD}",service="s"`);
  }
  if (!isRegistry && sent !== `Basic ${BASIC}`) return refuse(response, 'Basic realm="x"');
  loggedIn += 1;
  const said = JSON.stringify({ errors: [{ code: sent, message: `you sent ${sent} as ann ${PASSWORD}` }] });
  if (mood === 'echo') response.writeHead(400).end(said);
  else if (mood === 'forbidden') response.writeHead(403).end(said);
  else if (mood === 'redirect') {
    response
      .writeHead(307, { location: `ftp://ann:${PASSWORD}@store/x?X-Amz-Signature=${WORD}&o=${WORD}` })
      .end();
  } else return false;
  return true;
}

const inputs = new Set<string>();

async function input(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  inputs.add(path);
}

function variablesOf(host: string, password = PASSWORD): Record<string, string> {
  const name = `SEALIFT_CREDENTIALS_${host.replace(/[.:]/g, '_')}`;
  return { [`${name}_USERNAME`]: 'ann', [`${name}_PASSWORD`]: password };
}

/** The places where a login may be; each makes the home of a person and gives the environment. */
const PLACES: Record<string, (home: string, hosts: readonly string[]) => Promise<Record<string, string>>> = {
  "docker's file and helm's list": async (home, hosts) => {
    const auths = Object.fromEntries(hosts.map((host) => [host, { auth: BASIC }]));
    await input(join(home, '.docker/config.json'), JSON.stringify({ auths }));
    return {};
  },
  'a credential helper': async (home, _) => {
    const path = join(home, 'bin/docker-credential-x');
    const answer = JSON.stringify({ Username: 'ann', Secret: PASSWORD });
    await input(path, `#!/bin/sh\ncat >/dev/null\necho ${WORD} >&2\necho '${answer}'\n`);
    await chmod(path, 0o755);
    await input(join(home, '.docker/config.json'), '{"credsStore":"x"}');
    return { PATH: `${join(home, 'bin')}:${process.env.PATH ?? ''}` };
  },
  'an identity token': async (home, hosts) => {
    const [source = '', to = ''] = hosts;
    const auths = { [source]: { identitytoken: PASSWORD }, [to]: { auth: BASIC } };
    await input(join(home, '.docker/config.json'), JSON.stringify({ auths }));
    return {};
  },
  'the environment': async (_, hosts) =>
    Object.assign({}, ...hosts.map((host) => variablesOf(host))) as Record<string, string>,
};

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite({ intercept: guard });
  target = await startRegistry({
    storage: 'memory',
    auth: { kind: 'basic', users: { ann: PASSWORD } },
  });
  locked = true;
}, 180_000);

afterAll(async () => {
  await target.close();
  await site.close();
});

async function filesBelow(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true, recursive: true });
  return entries.filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name));
}

/** What of the output and of every file that was left holds a secret. */
async function leaksOf(runs: readonly Ran[], dir: string): Promise<string[]> {
  const leaks = runs.flatMap((ran, i) =>
    FORMS.filter((form) => (ran.stdout + ran.stderr).includes(form)).map((form) => `run ${i}: ${form}`),
  );
  for (const path of await filesBelow(dir)) {
    if (inputs.has(path)) continue;
    const text = await readFile(path, 'latin1');
    leaks.push(...FORMS.filter((form) => text.includes(form)).map((form) => `${path}: ${form}`));
  }
  return leaks;
}

describe('[A10] what a whole run leaves holds no secret', () => {
  for (const [name, place] of Object.entries(PLACES)) {
    it(`that is from ${name}`, async () => {
      const home = site.path(`home-${name.replace(/\W/g, '-')}`);
      const tmp = join(home, 'tmp');
      await mkdir(tmp, { recursive: true });
      const repositories = `repositories:\n- {name: r, url: "http://${site.source.host}/charts", username: ann, password: "${PASSWORD}"}\n`;
      await input(join(home, '.config/helm/repositories.yaml'), repositories);
      const found = await place(home, [site.source.host, target.host]);
      const proxy = `http://ann:${WORD}-proxy@127.0.0.1:9`;
      const shared = { HOME: home, TMPDIR: tmp, SEALIFT_DEBUG: '1', HTTPS_PROXY: proxy };
      const env = { ...shared, ...variablesOf(site.source.host), ...found };
      // Files have no other place than the environment; the registry's login must come from the place under test.
      if (name !== 'the environment')
        for (const key of Object.keys(variablesOf(site.source.host)))
          delete (env as Record<string, string>)[key];
      const manifest =
        name === 'the environment' ? site.manifest : site.manifest.replace(/files:[\s\S]*/, '');
      await writeFile(join(home, 'sealift.yaml'), manifest);
      const run = (...args: string[]): Promise<Ran> => runProgram(args, { cwd: home, env });
      mood = 'well';
      const before = loggedIn;
      const well = [
        await run('lock', '--progress', 'json'),
        await run('pack', '-o', 'a.tar', '--json', '--progress', 'json'),
        await run('verify', 'a.tar', '--json'),
        await run('load', 'a.tar', '--registry', target.host, '--receipt', 'r.json', '--progress', 'plain'),
      ];
      expect(well.map((r) => [r.code, r.code === 0 ? '' : r.stderr])).toEqual(well.map(() => [0, '']));
      // Without this the test could pass because nothing secret was ever sent.
      expect(loggedIn).toBeGreaterThan(before);
      const ill: Ran[] = [];
      for (mood of ['echo', 'forbidden', 'redirect'] as const) {
        ill.push(
          await run('lock', '--update-all', '--json'),
          await run('pack', '-o', `${mood}.tar`, '--progress', 'json'),
        );
      }
      expect(ill.map((r) => r.code === 0)).toEqual(ill.map(() => false));
      const wrong = {
        ...env,
        ...variablesOf(site.source.host, `${WORD}-wrong`),
        ...variablesOf(target.host, `${WORD}-wrong`),
      };
      mood = 'well';
      const refused = [
        await runProgram(['lock', '--update-all', '--json'], { cwd: home, env: wrong }),
        await runProgram(['load', 'a.tar', '--registry', target.host, '--receipt', 'w.json'], {
          cwd: home,
          env: wrong,
        }),
      ];
      expect(refused.map((r) => r.code === 0)).toEqual([false, false]);
      expect(await leaksOf([...well, ...ill, ...refused], home)).toEqual([]);
    }, 170_000);
  }
});
