import { join } from 'node:path';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { Credentials } from '../../src/oci/credentials.ts';
import { envLogin, envPrefix } from '../../src/oci/env-credentials.ts';
import { failureOf } from '../io/server.ts';
import { basicAuth, envOf, tempDir, writeFiles, writeHelper } from './bench.ts';

let home: string;
let env: Record<string, string>;

beforeEach(async () => {
  home = await tempDir();
  env = envOf(home);
});

const login = (user: string): { auth: string } => ({ auth: basicAuth(user, 'pw') });
const user = async (host: string, repository = ''): Promise<string | undefined> => {
  const found = await new Credentials({ env }).find(host, repository);
  return found?.kind === 'password' ? found.username : found?.kind;
};

describe('a login from the environment', () => {
  it('beats every file and is for that host and port only', async () => {
    await writeFiles(home, { '.docker/config.json': { auths: { 'nexus.local:5000': login('file') } } });
    env = {
      ...env,
      SEALIFT_CREDENTIALS_NEXUS_LOCAL_5000_USERNAME: 'env',
      SEALIFT_CREDENTIALS_NEXUS_LOCAL_5000_PASSWORD: 'pw',
    };
    expect(await user('nexus.local:5000', 'team/app')).toBe('env');
    expect(await user('NEXUS.local:5000')).toBe('env');
    for (const host of ['nexus.local', 'nexus-local:5000', 'nexus.local:5001']) {
      expect([host, await user(host)]).toEqual([host, undefined]);
    }
  });

  it('needs both halves', () => {
    const half = { SEALIFT_CREDENTIALS_X_EXAMPLE_USERNAME: 'u', SEALIFT_CREDENTIALS_X_EXAMPLE_PASSWORD: '' };
    expect(envLogin(half, 'x.example')).toBeUndefined();
    expect(envLogin({ ...half, SEALIFT_CREDENTIALS_X_EXAMPLE_PASSWORD: 'p' }, 'x.example')).toEqual({
      username: 'u',
      password: 'p',
    });
  });

  it('has a name that no other host has (property)', () => {
    const label = fc.stringMatching(/^[a-z0-9](?:[a-z0-9_-]{0,4}[a-z0-9])?$/);
    const port = fc.option(fc.integer({ min: 1, max: 65_535 }), { nil: undefined });
    const host = fc
      .tuple(fc.array(label, { minLength: 1, maxLength: 4 }), port)
      // `a.5000` is no host name: a name that ends in a number is an address.
      .filter(([labels]) => !/^\d+$/.test(labels.at(-1) ?? ''))
      .map(([labels, p]) => labels.join('.') + (p === undefined ? '' : `:${p}`));
    fc.assert(
      fc.property(host, host, (a, b) => {
        expect(envPrefix(a)).toMatch(/^SEALIFT_CREDENTIALS_[A-Z0-9_]+$/);
        expect(envPrefix(a) === envPrefix(b)).toBe(a === b);
      }),
    );
    expect(envPrefix('a-b.example')).not.toBe(envPrefix('a.b.example'));
    expect(envPrefix('[::1]:5000')).toBeUndefined();
  });

  it('may be a whole docker configuration, asked before the files', async () => {
    await writeFiles(home, { '.docker/config.json': { auths: { 'x.example': login('file') } } });
    env = { ...env, DOCKER_AUTH_CONFIG: JSON.stringify({ auths: { 'x.example': login('variable') } }) };
    expect(await user('x.example')).toBe('variable');
    env = { ...env, DOCKER_AUTH_CONFIG: '' };
    expect(await user('x.example')).toBe('file');
    env = { ...env, DOCKER_AUTH_CONFIG: '{hunter2' };
    expect(await failureOf(user('x.example'))).toMatchObject({
      code: 'AUTH_REQUIRED',
      message: 'DOCKER_AUTH_CONFIG: not JSON',
    });
  });
});

describe("old files and helm's", () => {
  it('[1.1-files] are asked last: .dockercfg without auths, then the registry file of helm', async () => {
    await writeFiles(home, {
      '.dockercfg': { 'https://old.example/v1/': login('old') },
      '.config/helm/registry/config.json': {
        auths: { 'old.example': login('helm'), 'helm.example': login('helm') },
      },
    });
    expect(await user('old.example')).toBe('old');
    expect(await user('helm.example')).toBe('helm');
  });

  it('that are empty hold nothing', async () => {
    await writeFiles(home, { '.docker/config.json': ' \n' });
    env = { ...env, REGISTRY_AUTH_FILE: '/dev/null' };
    expect(await user('x.example')).toBeUndefined();
  });

  it('that are larger than any configuration are refused', async () => {
    await writeFiles(home, { '.docker/config.json': `{"auths":{}}${' '.repeat(9_000_000)}` });
    expect(await failureOf(user('x.example'))).toMatchObject({ code: 'CONTENT_TOO_LARGE' });
  });
});

describe('entries', () => {
  it('[1.1-keys-host] that mean one host: the exact one first, then one that holds something', async () => {
    const files = (auths: unknown): Promise<void> => writeFiles(home, { '.docker/config.json': { auths } });
    await files({ 'https://x.example/v1/': login('old'), 'x.example': login('new') });
    expect(await user('x.example')).toBe('new');
    await files({ 'x.example': {}, 'https://x.example/v1/': login('old') });
    expect(await user('x.example')).toBe('old');
    await files({ 'https://X.Example': login('capitals') });
    expect(await user('x.example')).toBe('capitals');
    expect(await user('X.EXAMPLE')).toBe('capitals');
  });
});

describe('credential helpers', () => {
  const answer = `cat > "$HOME/asked"; echo x >> "$HOME/runs"; echo '{"Username":"u","Secret":"s"}'`;

  it('[1.1-helpers-order] that are named as nothing for a host leave it to the entries', async () => {
    await writeHelper(home, 'all', answer);
    await writeFiles(home, {
      '.docker/config.json': {
        credsStore: 'all',
        credHelpers: { 'x.example': '' },
        auths: { 'x.example': login('entry') },
      },
    });
    expect(await user('x.example')).toBe('entry');
    expect(await user('y.example')).toBe('u');
  });

  it('[1.1-helpers-get] are run once for a host, however many repositories it has', async () => {
    await writeHelper(home, 'all', answer);
    await writeFiles(home, { '.docker/config.json': { credsStore: 'all' } });
    const credentials = new Credentials({ env });
    const names = Array.from({ length: 20 }, (_, i) => `app${i}`);
    await Promise.all(names.map((name) => credentials.find('x.example', name)));
    const { readFile } = await import('node:fs/promises');
    expect(await readFile(join(home, 'runs'), 'utf8')).toBe('x\n');
  });

  it('[1.1-keys-hub] are asked for Docker Hub under the name that podman uses, too', async () => {
    await writeHelper(
      home,
      'all',
      `read -r server; [ "$server" = docker.io ] || { echo credentials not found in native keychain; exit 1; }; echo '{"Username":"u","Secret":"s"}'`,
    );
    await writeFiles(home, { '.docker/config.json': { credsStore: 'all' } });
    expect(await user('docker.io')).toBe('u');
  });

  it('comes from a program that does not learn the password of the key that signs', async () => {
    env = { ...env, SEALIFT_KEY_PASSWORD: 'hunter2', OTHER: 'seen' };
    await writeFiles(home, { '.docker/config.json': { credsStore: 'all' } });
    const said = '{"Username":"%s%s","Secret":"x"}';
    await writeHelper(home, 'all', `cat >/dev/null; printf '${said}' "$SEALIFT_KEY_PASSWORD" "$OTHER"`);
    expect(await user('x.example')).toBe('seen');
  });

  it('[1.1-helpers-absent] that know nothing are silent; other failures are told, without what they say', async () => {
    await writeFiles(home, { '.docker/config.json': { credsStore: 'all' } });
    const notes: string[] = [];
    const find = () => new Credentials({ env, onNote: (m) => notes.push(m) }).find('x.example', '');
    await writeHelper(home, 'all', 'cat >/dev/null; echo "credentials not found in native keychain"; exit 1');
    expect(await find()).toBeUndefined();
    expect(notes).toEqual([]);
    await writeHelper(home, 'all', 'cat >/dev/null; echo "hunter2 is locked" >&2; exit 3');
    expect(await find()).toBeUndefined();
    expect(notes).toEqual([
      'docker-credential-all failed for x.example (exit 3): going on without a login from it',
    ]);
  });
});
