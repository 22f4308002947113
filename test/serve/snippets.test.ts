import { hostname } from 'node:os';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { addressOf, doubtsAbout, parseListen } from '../../src/ops/serve-address.ts';
import { type ServedFacts, snippetsOf } from '../../src/ops/serve-snippets.ts';
import { selfSigned } from '../io/certificate.ts';

const FACTS: ServedFacts = {
  url: 'http://10.0.0.5:5000',
  isPrivate: false,
  hosts: ['docker.io', 'registry.local:5000'],
  chart: undefined,
  project: undefined,
  file: undefined,
};

const textFor = (client: string, facts: Partial<ServedFacts> = {}): string =>
  snippetsOf({ ...FACTS, ...facts }).find((snippet) => snippet.client.startsWith(client))?.text ?? '';

describe('what clients are told', () => {
  it('has k3s and rke2 ask here for every host', () => {
    expect(parse(textFor('k3s'))).toEqual({
      mirrors: {
        'docker.io': { endpoint: ['http://10.0.0.5:5000'] },
        'registry.local:5000': { endpoint: ['http://10.0.0.5:5000'] },
      },
    });
    const url = 'https://bundles.local:5000';
    expect(parse(textFor('k3s', { url, isPrivate: true })).configs).toEqual({
      'bundles.local:5000': {
        auth: { username: 'USER', password: 'PASSWORD' },
        tls: { ca_file: '/path/of/ca.crt' },
      },
    });
    const hosts = Array.from({ length: 30 }, (_, i) => `r${i}.local`);
    const many = textFor('k3s', { hosts });
    expect(Object.keys(parse(many).mirrors)).toHaveLength(20);
    expect(many).toContain('# and 10 more');
  });

  it('shows where a login belongs, and nothing of one where there is none', () => {
    expect(textFor('containerd')).not.toMatch(/header|Basic/);
    const text = textFor('containerd', { isPrivate: true });
    expect(text).toContain('[host."http://10.0.0.5:5000".header]\n  authorization = "Basic BASE64"');
  });

  it('gives docker no mirror that it could not log in to', () => {
    expect(JSON.parse(textFor('docker'))).toEqual({
      'registry-mirrors': ['http://10.0.0.5:5000'],
      'insecure-registries': ['10.0.0.5:5000'],
    });
    expect(JSON.parse(textFor('docker', { url: 'http://127.0.0.1:5000' }))).toEqual({
      'registry-mirrors': ['http://127.0.0.1:5000'],
    });
    const url = 'https://bundles.local:5000';
    expect(textFor('docker', { url, isPrivate: true })).toBe('docker login bundles.local:5000');
  });
});

describe('the address', () => {
  const at = (host: string, ...names: readonly string[]): string =>
    addressOf(
      { host: host.includes(':') ? `[${host}]:5000` : `${host}:5000`, port: 5000 },
      { host, tls: names.length === 0 ? undefined : selfSigned(...names) },
    );

  it('is the name that was given, the address, or this machine', () => {
    expect(at('bundles.local')).toBe('http://bundles.local:5000');
    expect(at('10.0.0.5')).toBe('http://10.0.0.5:5000');
    expect(at('::1')).toBe('http://[::1]:5000');
    for (const all of ['', '::', '0.0.0.0']) expect(at(all)).toBe(`http://${hostname()}:5000`);
  });

  it('is one that the certificate is for', () => {
    expect(at('', hostname(), 'other.local')).toBe(`https://${hostname()}:5000`);
    expect(at('', '*.x.local', 'bundles.local')).toBe('https://bundles.local:5000');
  });

  it('is doubted where nobody would trust it, and where everybody could read', () => {
    const doubts = (listen: string, more: Partial<Parameters<typeof doubtsAbout>[0]> = {}): string =>
      doubtsAbout({
        listen: parseListen(listen),
        url: `https://${listen}`,
        tls: undefined,
        isPrivate: false,
        now: Date.parse('2026-11-01T00:00:00Z'),
        ...more,
      }).join('\n');
    for (const own of ['127.0.0.1:1', '127.1.2.3:1', '[::1]:1', 'localhost:1']) expect(doubts(own)).toBe('');
    for (const open of [':1', '0.0.0.0:1', '[::]:1', '10.0.0.5:1', '127.evil.example:1']) {
      expect([open, doubts(open)]).toEqual([open, expect.stringContaining('--auth')]);
      expect(doubts(open, { isPrivate: true })).toContain('--tls');
    }
    const tls = selfSigned('bundles.local');
    const own = { tls, isPrivate: true };
    expect(doubts('bundles.local:1', own)).toBe('');
    expect(doubts('127.0.0.1:1', own)).toBe('');
    expect(doubts('10.0.0.5:1', own)).toBe('the certificate is not for 10.0.0.5: clients will refuse it');
    expect(doubts('[::1]:1', own)).toContain('not for [::1]');
    expect(doubts('bundles.local:1', { ...own, now: Date.parse('2051-01-01') })).toContain('only until 2049');
    expect(doubts('bundles.local:1', { ...own, now: 0 })).toContain('only from 2020');
  });
});
