import { describe, expect, it } from 'vitest';
import { realmOf } from '../../src/oci/token.ts';
import { failureOf, testContext } from '../io/server.ts';
import { client, loggedIn } from './bench.ts';
import { ann, sendToken, smallRegistry, tokenQueries } from './small-registry.ts';

describe('realms (A7, A8)', () => {
  const realm = (text: string, origin: string): string => {
    const { url, repaired } = realmOf(
      { scheme: 'bearer', params: { realm: text } },
      { host: new URL(origin).host, origin: new URL(origin) },
    );
    return `${repaired ? 'repaired ' : ''}${url.href}`;
  };

  it('[A8] what Nexus gets wrong is built again from the registry', () => {
    const origin = 'http://nexus.local:5001';
    const right = 'repaired http://nexus.local:5001/v2/token';
    for (const broken of [
      'null://nexus.local:5001/v2/token',
      'http://nexus.local:5001:5001/v2/token',
      'https://nexus.local:99999/v2/token',
      '/v2/token',
      'file:///etc/passwd',
      '',
    ]) {
      expect(realm(broken, origin)).toBe(right);
    }
  });

  it('[A8] a plain http realm of the same https host becomes https', () => {
    expect(realm('http://nexus.local:5001/v2/token', 'https://nexus.local:5001')).toBe(
      'https://nexus.local:5001/v2/token',
    );
    expect(realm('http://nexus.local/v2/token', 'https://nexus.local')).toBe('https://nexus.local/v2/token');
  });

  it('[A8] a plain http realm of the same host without its port is built again from the registry', () => {
    expect(realm('http://nexus.local/v2/token', 'https://nexus.local:5001')).toBe(
      'repaired https://nexus.local:5001/v2/token',
    );
  });

  it('[A7-realm-http] a plain http realm elsewhere is refused for an https registry', () => {
    for (const bad of ['http://auth.example/token', 'http://registry.example:8080/token']) {
      expect(() => realm(bad, 'https://registry.example')).toThrow(/plain http/);
    }
  });

  it('[A7-realm-private] private addresses are refused, unless they are the registry', () => {
    const origin = 'https://registry.example';
    for (const host of [
      '10.0.0.1',
      '127.0.0.1:5000',
      '169.254.169.254',
      '172.16.0.1',
      '172.31.255.255',
      '192.168.1.1',
      '0.0.0.0',
      'localhost',
      '[::1]',
      '[::]',
      '[fd00::1]',
      '[fe80::1]',
      '[::ffff:10.0.0.1]',
      '0x7f.1',
      '2130706433',
    ]) {
      expect(() => realm(`https://${host}/token`, origin), host).toThrow(/private address/);
    }
    expect(realm('https://10.0.0.5/token', 'https://10.0.0.5:5000')).toBe('https://10.0.0.5/token');
    expect(realm('http://127.0.0.1:1/t', 'http://localhost:5000')).toBe('http://127.0.0.1:1/t');
  });

  it('[A7-realm-private] names and addresses that only look private are not', () => {
    const origin = 'https://registry.example';
    for (const host of [
      'fedora.example',
      'fd.example',
      'fcc.example',
      '10.example.com',
      '172.15.0.1',
      '172.32.0.1',
      '11.0.0.1',
      '[2001:db8::1]',
      'localhost.example',
    ]) {
      expect(realm(`https://${host}/token`, origin)).toBe(`https://${host}/token`);
    }
  });

  it('a user name inside is left out', () => {
    expect(realm('https://u:p@auth.example/token', 'https://registry.example')).toBe(
      'https://auth.example/token',
    );
  });

  it('[A8] a broken one works in a real exchange, and is told once', async () => {
    const server = await smallRegistry({
      challenge: 'Bearer realm="null://{host}/v2/token",service="svc"',
      accepts: (authorization) => authorization === 'Bearer T',
      token: sendToken({ token: 'T' }),
    });
    const { registry, context } = client(server.host);
    await registry.listTags('one');
    await registry.listTags('two');
    expect(tokenQueries(server)).toHaveLength(2);
    expect(context.events).toEqual([
      { type: 'note', message: expect.stringContaining(`using http://${server.host}/v2/token`) },
    ]);
  });

  it('[A8-basic] where there is no token server either, the password itself is sent', async () => {
    const server = await smallRegistry({
      challenge: 'Bearer realm="null://{host}/v2/token",service="svc"',
      accepts: (authorization) => authorization === `Basic ${ann.auth}`,
    });
    const { registry } = client(server.host, {
      context: testContext(await loggedIn({ [server.host]: ann })),
    });
    expect(await registry.listTags('one')).toEqual(['v1']);
    await registry.listTags('two');
    expect(tokenQueries(server)).toHaveLength(1);
    const nobody = client(server.host);
    expect(await failureOf(nobody.registry.listTags('one'))).toMatchObject({ code: 'REGISTRY_FAILED' });
  });
});
