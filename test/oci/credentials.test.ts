import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import { credentialFiles } from '../../src/oci/auth-files.ts';
import { Credentials } from '../../src/oci/credentials.ts';
import { failureOf } from '../io/server.ts';
import { basicAuth, envOf, tempDir, writeFiles, writeHelper } from './bench.ts';

let home: string;
let env: Record<string, string>;

beforeEach(async () => {
  home = await tempDir();
  env = envOf(home);
});

function auths(entries: Readonly<Record<string, unknown>>): unknown {
  return { auths: entries };
}

function login(user: string, password = 'pw'): unknown {
  return { auth: basicAuth(user, password) };
}

const find = (host: string, repository = '') => new Credentials({ env }).find(host, repository);
const user = async (host: string, repository = ''): Promise<string | undefined> => {
  const found = await find(host, repository);
  return found?.kind === 'password' ? found.username : found?.kind;
};

describe('credential files', () => {
  it('[1.1-files] are asked in this order', () => {
    const all = {
      HOME: '/h',
      REGISTRY_AUTH_FILE: '/r.json',
      XDG_RUNTIME_DIR: '/run/u',
      XDG_CONFIG_HOME: '/c',
    };
    expect(credentialFiles(all)).toEqual([
      '/h/.docker/config.json',
      '/r.json',
      '/run/u/containers/auth.json',
      '/c/containers/auth.json',
      '/h/.dockercfg',
      '/c/helm/registry/config.json',
    ]);
    expect(credentialFiles({ ...all, DOCKER_CONFIG: '/d' })[0]).toBe('/d/config.json');
    expect(credentialFiles({ HOME: '/h' })).toEqual([
      '/h/.docker/config.json',
      '/h/.config/containers/auth.json',
      '/h/.dockercfg',
      '/h/.config/helm/registry/config.json',
    ]);
    expect(credentialFiles({ HOME: '/h', HELM_CONFIG_HOME: '/e' }).at(-1)).toBe('/e/registry/config.json');
    expect(credentialFiles({ HOME: '/h', HELM_REGISTRY_CONFIG: '/r' }).at(-1)).toBe('/r');
  });

  it('are not looked for in the current folder when a variable is empty', () => {
    const empty = {
      HOME: '/h',
      DOCKER_CONFIG: '',
      REGISTRY_AUTH_FILE: '',
      XDG_RUNTIME_DIR: '',
      XDG_CONFIG_HOME: '',
    };
    expect(credentialFiles(empty)).toEqual(credentialFiles({ HOME: '/h' }));
    for (const path of credentialFiles({ HOME: '' })) expect(path.startsWith('/')).toBe(true);
  });

  it('[1.1-files] the first that knows the host wins, one that does not is passed over', async () => {
    env = { ...env, REGISTRY_AUTH_FILE: join(home, 'r.json'), XDG_RUNTIME_DIR: join(home, 'run') };
    const places = [
      '.docker/config.json',
      'r.json',
      'run/containers/auth.json',
      '.config/containers/auth.json',
    ];
    for (const [i, place] of [...places].entries()) {
      await writeFiles(home, { [place]: auths({ [`only${i}.example`]: login(`only${i}`) }) });
    }
    for (const i of places.keys()) expect(await user(`only${i}.example`)).toBe(`only${i}`);
    for (const [i, place] of [...places].reverse().entries()) {
      await writeFiles(home, { [place]: auths({ 'all.example': login(`from ${place}`) }) });
      expect([i, await user('all.example')]).toEqual([i, `from ${place}`]);
    }
  });

  it('may all be missing: then nobody is logged in', async () => {
    expect(await find('registry.example')).toBeUndefined();
    env = { HOME: '/dev/null' };
    expect(await find('registry.example')).toBeUndefined();
  });

  it('that are no JSON are a fault that names the file and not what is in it', async () => {
    await writeFiles(home, { '.docker/config.json': '{"auths": {"x": {"auth": hunter2' });
    const failure = (await failureOf(find('x'))) as SealiftError;
    expect(failure).toMatchObject({ code: 'AUTH_REQUIRED', message: expect.stringContaining('config.json') });
    expect(failure.message + String(failure.cause)).not.toContain('hunter2');
  });

  for (const text of ['[]', 'null', '1', '{"auths":[]}', '{"auths":{"x":7}}', '{"auths":{"x":{"auth":7}}}']) {
    it(`of odd shapes hold nothing: ${text}`, async () => {
      await writeFiles(home, { '.docker/config.json': text });
      expect(await find('x')).toBeUndefined();
    });
  }
});

describe('entries', () => {
  it('[1.1-entry-password] of any user and password are read (property)', async () => {
    const name = fc
      .string({ minLength: 1, maxLength: 10 })
      .filter((n) => !n.includes(':') && !n.includes('\0'));
    const secret = fc.string({ maxLength: 20, unit: 'grapheme' }).filter((p) => !p.endsWith('\0'));
    await fc.assert(
      fc.asyncProperty(name, secret, async (username, password) => {
        await writeFiles(home, { '.docker/config.json': auths({ 'x.example': login(username, password) }) });
        expect(await find('x.example')).toEqual({ kind: 'password', username, password });
      }),
      { numRuns: 30 },
    );
  });

  it('[1.1-entry-password] may hold colons in the password, and zero bytes behind it as docker for Windows wrote them', async () => {
    const auth = Buffer.from('user:a:b:c\0\0').toString('base64');
    await writeFiles(home, { '.docker/config.json': auths({ 'x.example': { auth } }) });
    expect(await find('x.example')).toEqual({ kind: 'password', username: 'user', password: 'a:b:c' });
  });

  it('[1.1-entry-password, 1.1-entry-identity-token, 1.1-entry-registry-token] may have user and password apart, an identity token or a registry token', async () => {
    await writeFiles(home, {
      '.docker/config.json': auths({
        'plain.example': { username: 'u', password: 'p' },
        'identity.example': { ...(login('u', '') as object), identitytoken: 'refresh' },
        'registry.example': { registrytoken: 'ready' },
        'empty.example': { auth: '', username: '', password: '' },
        'half.example': { auth: Buffer.from('nocolon').toString('base64') },
      }),
    });
    expect(await find('plain.example')).toEqual({ kind: 'password', username: 'u', password: 'p' });
    expect(await find('identity.example')).toEqual({ kind: 'identity-token', token: 'refresh' });
    expect(await find('registry.example')).toEqual({ kind: 'registry-token', token: 'ready' });
    expect(await find('empty.example')).toBeUndefined();
    expect(await find('half.example')).toBeUndefined();
  });

  it('[1.1-keys-host] are found under all ways to write a host', async () => {
    const keys = [
      'https://a.example/v1/',
      'https://b.example/v2/',
      'http://c.example',
      'd.example/',
      'e.example:5000',
    ];
    const entries = keys.map((k, i) => [k, login(`user${i}`)]);
    await writeFiles(home, { '.docker/config.json': auths(Object.fromEntries(entries)) });
    const hosts = ['a.example', 'b.example', 'c.example', 'd.example', 'e.example:5000'];
    expect(await Promise.all(hosts.map((host) => user(host)))).toEqual(keys.map((_, i) => `user${i}`));
    expect(await user('e.example')).toBeUndefined();
    expect(await user('other.a.example')).toBeUndefined();
  });

  it('[1.1-keys-hub] of Docker Hub are under its own key', async () => {
    for (const key of [
      'https://index.docker.io/v1/',
      'index.docker.io',
      'docker.io',
      'registry-1.docker.io',
    ]) {
      await writeFiles(home, { '.docker/config.json': auths({ [key]: login('hub') }) });
      expect([key, await user('docker.io', 'library/nginx')]).toEqual([key, 'hub']);
      expect(await user('quay.io')).toBeUndefined();
    }
  });

  it('[1.1-keys-path] for a path win over those for the host, the longest first', async () => {
    await writeFiles(home, {
      '.docker/config.json': auths({
        'x.example': login('host'),
        'x.example/team': login('team'),
        'x.example/team/app': login('app'),
      }),
    });
    expect(await user('x.example', 'team/app')).toBe('app');
    expect(await user('x.example', 'team/app/sub')).toBe('app');
    expect(await user('x.example', 'team/other')).toBe('team');
    expect(await user('x.example', 'teamwork')).toBe('host');
    expect(await user('x.example')).toBe('host');
  });
});

describe('credential helpers', () => {
  const answer = (name: string, secret: string): string =>
    `cat > "$HOME/asked"; echo '${JSON.stringify({ ServerURL: 'x', Username: name, Secret: secret })}'`;

  it('[1.1-helpers-order, 1.1-helpers-get] for a host beat the helper for all, which beats the entries', async () => {
    await writeHelper(home, 'one', answer('from-one', 'pw'));
    await writeHelper(home, 'all', answer('from-all', 'pw'));
    await writeFiles(home, {
      '.docker/config.json': {
        auths: { 'x.example': login('entry'), 'y.example': login('entry') },
        credHelpers: { 'x.example': 'one' },
        credsStore: 'all',
      },
    });
    expect(await user('x.example')).toBe('from-one');
    expect(await readFile(join(home, 'asked'), 'utf8')).toBe('x.example');
    expect(await user('y.example')).toBe('from-all');
  });

  it('[1.1-keys-hub] are asked for Docker Hub under the name that docker uses', async () => {
    await writeHelper(home, 'all', answer('hub', 'pw'));
    await writeFiles(home, { '.docker/config.json': { credsStore: 'all' } });
    expect(await user('docker.io')).toBe('hub');
    expect(await readFile(join(home, 'asked'), 'utf8')).toBe('https://index.docker.io/v1/');
  });

  it('[1.1-helpers-token] give an identity token under the user name <token>', async () => {
    await writeHelper(home, 'all', answer('<token>', 'refresh'));
    await writeFiles(home, { '.docker/config.json': { credsStore: 'all' } });
    expect(await find('x.example')).toEqual({ kind: 'identity-token', token: 'refresh' });
  });

  it('[1.1-helpers-absent] that know nothing leave it to the entries and the next file', async () => {
    await writeHelper(home, 'all', 'cat >/dev/null; echo "credentials not found in native keychain"; exit 1');
    await writeFiles(home, {
      '.docker/config.json': { credsStore: 'all', auths: { 'x.example': login('entry') } },
      '.config/containers/auth.json': auths({ 'y.example': login('podman') }),
    });
    expect(await user('x.example')).toBe('entry');
    expect(await user('y.example')).toBe('podman');
    expect(await user('z.example')).toBeUndefined();
  });

  it('that are missing are a fault that names them', async () => {
    await writeFiles(home, { '.docker/config.json': { credsStore: 'not-installed' } });
    expect(await failureOf(find('x.example'))).toMatchObject({
      code: 'AUTH_REQUIRED',
      message: expect.stringContaining('docker-credential-not-installed'),
    });
  });

  it('that do not answer in JSON are a fault that does not repeat them', async () => {
    await writeHelper(home, 'all', 'cat >/dev/null; echo hunter2');
    await writeFiles(home, { '.docker/config.json': { credsStore: 'all' } });
    const failure = (await failureOf(find('x.example'))) as SealiftError;
    expect(failure.code).toBe('AUTH_REQUIRED');
    expect(failure.message + String(failure.cause)).not.toContain('hunter2');
  });

  it('with a path for a name are not run', async () => {
    await writeFiles(home, {
      evil: '#!/bin/sh\ntouch "$HOME/ran"',
      '.docker/config.json': { credsStore: 'x/../../evil', credHelpers: { 'y.example': '; touch ran' } },
    });
    expect(await find('x.example')).toBeUndefined();
    expect(await find('y.example')).toBeUndefined();
    await expect(readFile(join(home, 'ran'))).rejects.toThrow();
  });

  it('end when the work is stopped', async () => {
    await writeHelper(home, 'all', 'sleep 20');
    await writeFiles(home, { '.docker/config.json': { credsStore: 'all' } });
    const stop = new AbortController();
    const work = new Credentials({ env, signal: stop.signal }).find('x.example', '');
    setTimeout(() => stop.abort(), 50);
    expect(await failureOf(work)).toMatchObject({ code: 'ABORTED' });
  }, 10_000);
});
