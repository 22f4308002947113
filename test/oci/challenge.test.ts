import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseChallenges } from '../../src/oci/challenge.ts';

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const word = fc.stringMatching(/^[a-z][a-z0-9]{0,10}$/);
const text = fc.string({ unit: 'binary-ascii', maxLength: 20 }).filter((t) => !/[\r\n]/.test(t));

function write(
  challenges: readonly { scheme: string; params: readonly (readonly [string, string])[] }[],
): string {
  return challenges
    .map(({ scheme, params }) => {
      const list = params.map(([k, v]) =>
        TOKEN.test(v) ? `${k}=${v}` : `${k}="${v.replace(/["\\]/g, '\\$&')}"`,
      );
      return params.length === 0 ? scheme : `${scheme} ${list.join(', ')}`;
    })
    .join(', ');
}

describe('challenges (A1)', () => {
  it('[A1] are read as they were written, several in one header (property)', () => {
    const params = fc.uniqueArray(fc.tuple(word, text), { selector: ([k]) => k, maxLength: 4 });
    const challenge = fc.record({ scheme: word, params });
    fc.assert(
      fc.property(fc.array(challenge, { maxLength: 4 }), (challenges) => {
        const expected = challenges.map(({ scheme, params: p }) => ({
          scheme,
          params: Object.fromEntries(p),
        }));
        expect(parseChallenges(write(challenges))).toEqual(expected);
      }),
    );
  });

  const cases: Record<string, [string, unknown]> = {
    'Docker Hub': [
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push"',
      [
        {
          scheme: 'bearer',
          params: {
            realm: 'https://auth.docker.io/token',
            service: 'registry.docker.io',
            scope: 'repository:library/nginx:pull,push',
          },
        },
      ],
    ],
    'Negotiate without and with a token, then Basic': [
      'Negotiate, NTLM TlRMTVNTUAAB==, Basic realm="Sonatype Nexus Repository Manager"',
      [
        { scheme: 'negotiate', params: {} },
        { scheme: 'ntlm', params: {} },
        { scheme: 'basic', params: { realm: 'Sonatype Nexus Repository Manager' } },
      ],
    ],
    'names in any case, spaces around =': [
      'BEARER Realm = "https://x/t" ,  SERVICE=s',
      [{ scheme: 'bearer', params: { realm: 'https://x/t', service: 's' } }],
    ],
    'a quote with commas, an escaped quote and another scheme inside': [
      'Basic realm="a, Bearer realm=\\"b\\"", charset="UTF-8"',
      [{ scheme: 'basic', params: { realm: 'a, Bearer realm="b"', charset: 'UTF-8' } }],
    ],
    'a parameter that comes twice counts once': [
      'Bearer realm="https://good/",realm="https://bad/"',
      [{ scheme: 'bearer', params: { realm: 'https://good/' } }],
    ],
    'a quote that never ends': [
      'Basic realm="x", Bearer realm="https://x',
      [
        { scheme: 'basic', params: { realm: 'x' } },
        { scheme: 'bearer', params: {} },
      ],
    ],
    nothing: ['', []],
    'only commas': [' , ,, ', []],
    'not a header at all': ['<html>', []],
  };
  for (const [name, [header, expected]] of Object.entries(cases)) {
    it(`are read: ${name}`, () => expect(parseChallenges(header)).toEqual(expected));
  }

  it('never fail and never take long, whatever is sent', () => {
    fc.assert(fc.property(fc.string({ maxLength: 300 }), (header) => parseChallenges(header).length <= 300));
    const long = 15_000;
    for (const header of [
      'a'.repeat(long),
      '"'.repeat(long),
      'a="'.repeat(long / 3),
      'a ,'.repeat(long / 3),
    ]) {
      expect(parseChallenges(header).length).toBeLessThanOrEqual(long);
    }
  });

  it('cannot touch what all objects have', () => {
    parseChallenges('Bearer __proto__="x", constructor="y"');
    expect(({} as Record<string, unknown>).x).toBeUndefined();
    expect(Object.getPrototypeOf({})).toBe(Object.prototype);
  });
});
