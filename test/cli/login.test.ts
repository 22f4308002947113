import { spawn } from 'node:child_process';
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { startServer } from '../io/server.ts';
import { documentOf, ensureBuilt, type Ran, ROOT, runProgram } from './program.ts';

const PASSWORD = 'hunter2: "quoted"';
let bearer: RunningRegistry;
let basic: RunningRegistry;
let home: string;

beforeAll(async () => {
  await ensureBuilt();
  const users = { ann: PASSWORD };
  bearer = await startRegistry({ storage: 'memory', auth: { kind: 'bearer', users } });
  basic = await startRegistry({ storage: 'memory', auth: { kind: 'basic', users } });
}, 180_000);

afterAll(async () => {
  await bearer.close();
  await basic.close();
});

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'sealift-login-'));
  onTestFinished(() => rm(home, { recursive: true, force: true }));
});

const configPath = (): string => join(home, '.docker/config.json');

async function writeConfig(value: unknown): Promise<void> {
  await mkdir(dirname(configPath()), { recursive: true });
  await writeFile(configPath(), typeof value === 'string' ? value : JSON.stringify(value, null, '\t'));
}

async function config(): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(configPath(), 'utf8'));
}

const environment = (): Record<string, string> => ({
  HOME: home,
  PATH: `${join(home, 'bin')}:${process.env.PATH ?? ''}`,
});

/** Runs with a text on standard input. */
function piped(args: readonly string[], input: string): Promise<Ran> {
  const child = spawn(process.execPath, [join(ROOT, 'bin/sealift.js'), ...args], { env: environment() });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (text) => {
    stdout += text;
  });
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, stdout, stderr })));
}

const login = (host: string, ...more: string[]): Promise<Ran> =>
  piped(['login', host, '-u', 'ann', '--password-stdin', ...more], `${PASSWORD}\n`);
const logout = (host: string, ...more: string[]): Promise<Ran> =>
  runProgram(['logout', host, ...more], { env: environment() });

const entry = { auth: Buffer.from(`ann:${PASSWORD}`).toString('base64') };

/** A helper that keeps everything in `<home>/store`, and what it was given in `<home>/said`. */
async function writeStore(name: string): Promise<void> {
  const path = join(home, 'bin', `docker-credential-${name}`);
  await mkdir(dirname(path), { recursive: true });
  const lines = [
    '#!/bin/sh',
    'given=$(cat); echo "$1 $given" >> "$HOME/said"',
    'case "$1" in',
    '  store) echo "$given" > "$HOME/store" ;;',
    '  get) if [ -f "$HOME/store" ]; then cat "$HOME/store"; else echo credentials not found in native keychain; exit 1; fi ;;',
    '  erase) rm "$HOME/store" ;;',
    'esac',
    '',
  ];
  await writeFile(path, lines.join('\n'));
  await chmod(path, 0o755);
}

describe('sealift login', () => {
  it('checks the login, writes it to a file for its owner only, and says that it is not hidden', async () => {
    for (const registry of [bearer, basic]) {
      const ran = await login(registry.host);
      expect(ran).toMatchObject({ code: 0, stdout: '' });
      expect(ran.stderr).toContain(`logged in to ${registry.host} as ann; the login is in ${configPath()}`);
      expect(ran.stderr).toContain('warning[AUTH_STORED_PLAIN]');
      expect(ran.stderr).not.toContain('hunter2');
    }
    expect(await config()).toEqual({ auths: { [bearer.host]: entry, [basic.host]: entry } });
    expect((await stat(configPath())).mode & 0o777).toBe(0o600);
    expect((await stat(dirname(configPath()))).mode & 0o777).toBe(0o700);
    expect(await readdir(dirname(configPath()))).toEqual(['config.json']);
  });

  it('is one document with --json, without the password', async () => {
    const ran = await login(bearer.host, '--json');
    expect(documentOf(ran)).toMatchObject({
      schemaVersion: 1,
      command: 'login',
      host: bearer.host,
      username: 'ann',
      file: configPath(),
      helper: null,
      checked: true,
      warnings: [{ code: 'AUTH_STORED_PLAIN' }],
    });
    expect(ran.stdout + ran.stderr).not.toContain('hunter2');
  });

  it('keeps nothing that the registry refuses: exit 4', async () => {
    await writeConfig({ auths: { [bearer.host]: entry } });
    for (const registry of [bearer, basic]) {
      const ran = await piped(['login', registry.host, '-u', 'ann', '--password-stdin'], 'wrong-hunter2');
      expect(ran.code).toBe(4);
      expect(ran.stderr).toContain(`error[AUTH_DENIED]: ${registry.host}: refused the login of "ann"`);
      expect(ran.stderr).not.toContain('hunter2');
    }
    expect(await config()).toEqual({ auths: { [bearer.host]: entry } });
  });

  it('says when nothing that is a registry answers', async () => {
    const page = await startServer((_, response) => response.end('<html>Nexus</html>'));
    const ran = await login(page.host);
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain('answered HTTP 200 with a web page: this is not a registry');
    await expect(readFile(configPath())).rejects.toThrow();
  });

  it('says when the registry lets everybody in, and finds out a wrong password where it can', async () => {
    const open = await startServer((_, response) => response.end('{}'));
    const ran = await login(open.host, '--json');
    expect(documentOf(ran)).toMatchObject({ checked: false });
    const picky = await startServer((request, response) => {
      const isWrong = request.headers.authorization !== undefined;
      response.writeHead(isWrong ? 401 : 200, { 'www-authenticate': 'Basic realm="x"' }).end('{}');
    });
    expect((await login(picky.host)).code).toBe(4);
  });

  it('leaves everything else in the file as it was, byte by byte', async () => {
    const text = `{\n  "auths": {\n    "other.example": {"auth": "b3RoZXI6cHc=", "email": "a@b"}\n  },\n  "HttpHeaders": {"X": "1"},\n  "big": 12345678901234567890,\n  "psFormat": "table {{.ID}}"\n}\n`;
    await writeConfig(text);
    await chmod(configPath(), 0o644);
    await login(bearer.host);
    const line = `,\n    ${JSON.stringify(bearer.host)}: {\n      "auth": ${JSON.stringify(entry.auth)}\n    }\n  },\n  "Http`;
    expect(await readFile(configPath(), 'utf8')).toBe(text.replace('\n  },\n  "Http', line));
    expect((await stat(configPath())).mode & 0o777).toBe(0o600);
    await logout(bearer.host);
    expect(await readFile(configPath(), 'utf8')).toBe(text);
  });

  it('refuses a broken configuration and leaves it', async () => {
    for (const text of ['{"auths": hunter2', '[]', '{"auths":[]}']) {
      await writeConfig(text);
      const ran = await login(bearer.host);
      expect(ran.code).toBe(4);
      expect(ran.stderr).not.toContain('hunter2');
      expect(await readFile(configPath(), 'utf8')).toBe(text);
    }
  });

  it('writes the file that a link means', async () => {
    await mkdir(join(home, 'dotfiles'));
    await mkdir(join(home, '.docker'));
    await symlink('../dotfiles/docker.json', configPath());
    expect((await login(bearer.host)).code).toBe(0);
    expect((await lstat(configPath())).isSymbolicLink()).toBe(true);
    expect(await readFile(join(home, 'dotfiles/docker.json'), 'utf8')).toContain(entry.auth);
  });

  it('loses no entry when several run at once', async () => {
    const open = await startServer((_, response) => response.end('{}'));
    const ran = await Promise.all([login(bearer.host), login(basic.host), login(open.host)]);
    expect(ran.map((r) => r.code)).toEqual([0, 0, 0]);
    const { auths } = await config();
    expect(Object.keys(auths as object).sort()).toEqual([bearer.host, basic.host, open.host].sort());
  });

  it('gives the password to the helper that the configuration names, and takes it out of the file', async () => {
    await writeStore('mem');
    await writeConfig({ auths: { [bearer.host]: entry }, credsStore: 'mem' });
    const ran = await login(bearer.host);
    expect(ran.stderr).toContain('the login is in docker-credential-mem');
    expect(ran.stderr).not.toContain('AUTH_STORED_PLAIN');
    expect(await config()).toEqual({ auths: { [bearer.host]: {} }, credsStore: 'mem' });
    expect(JSON.parse(await readFile(join(home, 'store'), 'utf8'))).toEqual({
      ServerURL: bearer.host,
      Username: 'ann',
      Secret: PASSWORD,
    });
    expect((await logout(bearer.host)).stderr).toContain('removed from docker-credential-mem');
    expect(await config()).toEqual({ auths: {}, credsStore: 'mem' });
    await expect(readFile(join(home, 'store'))).rejects.toThrow();
  });

  it('keeps nothing when the helper fails, and does not repeat what it says', async () => {
    await mkdir(join(home, 'bin'), { recursive: true });
    await writeFile(join(home, 'bin/docker-credential-bad'), '#!/bin/sh\ncat >&2; exit 1\n', { mode: 0o755 });
    await writeConfig({ credHelpers: { [bearer.host]: 'bad' } });
    const ran = await login(bearer.host);
    expect(ran.code).toBe(4);
    expect(ran.stderr).toContain('docker-credential-bad store failed with exit code 1');
    expect(ran.stderr).not.toContain('hunter2');
    expect(await config()).toEqual({ credHelpers: { [bearer.host]: 'bad' } });
  });

  it('takes no password on the command line, and no host that is none', async () => {
    for (const args of [
      ['ann:hunter2@host', '--password-stdin', '-u', 'ann'],
      ['https://ann:hunter2@host', '--password-stdin', '-u', 'ann'],
      ['host.example/team', '--password-stdin', '-u', 'ann'],
      ['host.example', '--password', 'hunter2'],
      ['host.example', '-u', 'ann'],
    ]) {
      const ran = await piped(['login', ...args], 'x');
      expect([args, ran.code]).toEqual([args, 2]);
      expect(ran.stderr).not.toContain('hunter2');
    }
  });
});

describe('sealift logout', () => {
  it('removes a host under all ways to write it, and no other', async () => {
    const other = { 'other.example': entry, 'x.example:5000': entry, 'x.example/team': entry };
    await writeConfig({ auths: { 'https://x.example/v1/': entry, 'x.example': entry, ...other } });
    const ran = await logout('https://x.example');
    expect(ran.stderr).toContain('logged out of x.example');
    expect(await config()).toEqual({ auths: other });
  });

  it('knows Docker Hub by the key that docker uses', async () => {
    await writeConfig({ auths: { 'https://index.docker.io/v1/': entry, 'quay.io': entry } });
    expect((await logout('docker.io')).code).toBe(0);
    expect(await config()).toEqual({ auths: { 'quay.io': entry } });
  });

  it('of what is not there says so and is no failure', async () => {
    const ran = await logout('x.example');
    expect(ran).toMatchObject({ code: 0, stdout: '' });
    expect(ran.stderr).toBe('there was no login for x.example\n');
    expect(await readdir(home)).toEqual([]);
    const asJson = await logout('x.example', '--json');
    expect(documentOf(asJson)).toMatchObject({ command: 'logout', removed: false, remaining: null });
  });

  it('tells of a login that another file still has', async () => {
    await writeConfig({ auths: { 'x.example': entry } });
    await mkdir(join(home, '.config/containers'), { recursive: true });
    const podman = join(home, '.config/containers/auth.json');
    await writeFile(podman, JSON.stringify({ auths: { 'x.example': entry } }));
    const ran = await logout('x.example');
    expect(ran.stderr).toContain(`a login for x.example is still in ${podman}`);
  });
});
