import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { parseNetrc } from '../../src/oci/netrc.ts';
import { siteCredentials } from '../../src/site/credentials.ts';
import type { CredentialsChoice } from '../../src/site/load.ts';
import { failureOf, testContext } from '../io/server.ts';
import { tempDir } from '../oci/bench.ts';

const login = (username: string, password: string): unknown => ({ kind: 'password', username, password });
const basic = (text: string): string => Buffer.from(text).toString('base64');

describe('a netrc file', () => {
  it('is read as curl reads it: quotes, comments, macros, one line or many', () => {
    const text = `# machine no login no password no
machine a.local login ann password "x y\\"z" # not this
macdef init
machine b.local login mac password ro

machine B.local
  login bob
  account any
  password #hash
machine c.local login only
default login d password e`;
    expect([...parseNetrc(text)]).toEqual([
      ['a.local', { username: 'ann', password: 'x y"z' }],
      ['b.local', { username: 'bob', password: '#hash' }],
      ['default', { username: 'd', password: 'e' }],
    ]);
  });

  it('holds nothing where it is no netrc file', () => {
    for (const text of ['', 'machine', 'password x login y machine', '{"auths": {"a": {"auth": "x"}}}']) {
      expect(parseNetrc(text).size).toBe(0);
    }
  });
});

describe('the logins of a target', () => {
  let home: string;
  let env: Record<string, string>;
  let context: ReturnType<typeof testContext>;

  beforeEach(async () => {
    home = await tempDir();
    env = { HOME: home };
    context = testContext(env);
  });

  const main = new URL('https://nexus.local/');
  const connector = new URL('https://nexus.local:5000/');

  const find = (
    choice: CredentialsChoice | undefined,
    more: { readonly host?: string; readonly addresses?: readonly URL[]; readonly ask?: boolean } = {},
  ): Promise<unknown> => {
    const { host = 'nexus.local', addresses = [main, connector] } = more;
    const ask = async (name: string): Promise<{ username: string; password: string }> => ({
      username: name,
      password: 'typed',
    });
    const tools = { context, ask: more.ask === true ? ask : undefined };
    return siteCredentials({ name: 'nexus', choice, addresses }, tools).find(host, '');
  };

  async function docker(path: string, host: string, text: string): Promise<void> {
    await writeFile(path, JSON.stringify({ auths: { [host]: { auth: basic(text) } } }));
  }

  it('are from two variables where the file says so, but those of the host come first', async () => {
    env.NEXUS_USERNAME = 'ann';
    expect(await failureOf(find({ kind: 'env', prefix: 'NEXUS' }))).toMatchObject({
      code: 'AUTH_REQUIRED',
      message: 'nexus: NEXUS_PASSWORD is not set',
    });
    env.NEXUS_PASSWORD = 'p';
    expect(await find({ kind: 'env', prefix: 'NEXUS' })).toEqual(login('ann', 'p'));
    env.SEALIFT_CREDENTIALS_NEXUS_LOCAL_USERNAME = 'own';
    env.SEALIFT_CREDENTIALS_NEXUS_LOCAL_PASSWORD = 'q';
    expect(await find({ kind: 'env', prefix: 'NEXUS' })).toEqual(login('own', 'q'));
  });

  it('are from a netrc or docker file that the file names, and no other', async () => {
    await writeFile(join(home, '.netrc'), 'default login wrong password wrong');
    const path = join(home, 'named');
    const choice = { kind: 'file', path } as const;
    expect(await failureOf(find(choice))).toMatchObject({ message: expect.stringContaining('there is no') });
    await writeFile(path, 'machine nexus.local login ann password p', { mode: 0o600 });
    expect(await find(choice)).toEqual(login('ann', 'p'));
    expect(context.events).toEqual([]);
    await docker(path, 'nexus.local:5000', 'bob:q');
    expect(await find(choice, { host: 'nexus.local:5000' })).toEqual(login('bob', 'q'));
    await docker(path, 'other', 'bob:q');
    expect(await failureOf(find(choice))).toMatchObject({ code: 'AUTH_REQUIRED' });
  });

  it('are asked for once, where there is somebody to ask', async () => {
    expect(await failureOf(find({ kind: 'prompt' }))).toMatchObject({ code: 'AUTH_REQUIRED' });
    expect(await find({ kind: 'prompt' }, { ask: true })).toEqual(login('nexus', 'typed'));
  });

  it('are those of docker, then those of netrc, where the file says nothing; nobody has to have one', async () => {
    expect(await find(undefined)).toBeUndefined();
    await writeFile(join(home, '.netrc'), 'machine nexus.local login net password rc');
    await chmod(join(home, '.netrc'), 0o644);
    expect(await find(undefined)).toEqual(login('net', 'rc'));
    expect(context.events).toEqual([{ type: 'note', message: expect.stringContaining('chmod 600') }]);
    env.DOCKER_CONFIG = home;
    await docker(join(home, 'config.json'), 'nexus.local', 'ann:p');
    expect(await find(undefined)).toEqual(login('ann', 'p'));
    env.NETRC = join(home, 'none');
    await docker(join(home, 'config.json'), 'other', 'ann:p');
    expect(await find(undefined)).toBeUndefined();
  });

  it('count for other addresses of the same host name, but never from https to http', async () => {
    env.DOCKER_CONFIG = home;
    await docker(join(home, 'config.json'), 'nexus.local:5000', 'ann:p');
    expect(await find(undefined)).toEqual(login('ann', 'p'));
    const plain = [new URL('http://nexus.local/'), connector];
    expect(await find(undefined, { addresses: plain })).toBeUndefined();
    const elsewhere = [main, new URL('https://docker.local:5000')];
    await docker(join(home, 'config.json'), 'docker.local:5000', 'ann:p');
    expect(await find(undefined, { addresses: elsewhere })).toBeUndefined();
  });
});
