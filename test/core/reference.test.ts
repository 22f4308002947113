import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { formatReference, imageName, isHost, isTag, parseReference } from '../../src/core/reference.ts';

const HEX = 'ab'.repeat(32);
const DIGEST = `sha256:${HEX}`;

/** The full form of a reference, or what it is refused with. */
function full(text: string): string {
  try {
    return formatReference(parseReference(text));
  } catch (error) {
    return error instanceof SealiftError ? error.code : String(error);
  }
}

describe('a reference', () => {
  it('[1.2-library] of one part is below library/ on Docker Hub, and only there', () => {
    expect(full('nginx')).toBe('docker.io/library/nginx:latest');
    expect(full('docker.io/nginx:1.27')).toBe('docker.io/library/nginx:1.27');
    expect(full('index.docker.io/nginx')).toBe('docker.io/library/nginx:latest');
    expect(full('registry-1.docker.io/nginx')).toBe('docker.io/library/nginx:latest');
    expect(full('grafana/loki:3')).toBe('docker.io/grafana/loki:3');
    expect(full('quay.io/nginx')).toBe('quay.io/nginx:latest');
  });

  it('[1.2-host-part] has a host only where its first part has a dot or a colon, or is localhost', () => {
    expect(full('localhost/app')).toBe('localhost/app:latest');
    expect(full('localhost')).toBe('docker.io/library/localhost:latest');
    expect(full('registry:5000/app')).toBe('registry:5000/app:latest');
    expect(full('registry/app')).toBe('docker.io/registry/app:latest');
    expect(full('a.b/app')).toBe('a.b/app:latest');
    expect(full('a.b')).toBe('docker.io/library/a.b:latest');
    expect(full('app:5000')).toBe('docker.io/library/app:5000');
    expect(full('[::1]:5000/team/app:1')).toBe('[::1]:5000/team/app:1');
    expect(full('10.0.0.1/x/y/z')).toBe('10.0.0.1/x/y/z:latest');
  });

  it('[1.2-tag] has a tag of 1 to 128 characters', () => {
    for (const tag of ['1', '_', 'v1.2.3', 'A-b_C.d', 'x'.repeat(128), '1.2.3_4']) {
      expect(full(`app:${tag}`)).toBe(`docker.io/library/app:${tag}`);
    }
    for (const tag of ['', '.1', '-1', 'x'.repeat(129), 'a b', 'a+b', 'ä', 'a:b', 'a\n']) {
      expect([tag, isTag(tag)]).toEqual([tag, false]);
      expect([tag, full(`quay.io/app:${tag}`)]).toEqual([tag, 'REFERENCE_INVALID']);
    }
  });

  it('[1.2-digest] has a digest of sha256 and 64 hex digits in lower case', () => {
    expect(full(`app@${DIGEST}`)).toBe(`docker.io/library/app@${DIGEST}`);
    const wrong = [
      HEX,
      `sha256:${HEX.toUpperCase()}`,
      `sha256:${HEX}0`,
      `sha256:${HEX.slice(1)}`,
      'sha256:',
      'x:y',
      '',
    ];
    for (const digest of wrong) {
      expect([digest, full(`app@${digest}`)]).toEqual([digest, 'REFERENCE_INVALID']);
    }
    expect(full(`app@${DIGEST}@${DIGEST}`)).toBe('REFERENCE_INVALID');
  });

  it('[1.2-sha512] with sha512 is refused with words that say which is wanted', () => {
    const sha512 = `sha512:${'ab'.repeat(64)}`;
    expect(() => parseReference(`app@${sha512}`)).toThrow(/"sha512:abab.*not a sha256 digest/);
  });

  it('[1.2-tag-and-digest] keeps tag and digest apart, and is known by its tag', () => {
    const ref = parseReference(`quay.io/app:v1@${DIGEST}`);
    expect(ref).toEqual({ host: 'quay.io', repository: 'app', tag: 'v1', digest: DIGEST });
    expect(imageName(ref)).toBe('quay.io/app:v1');
    expect(imageName(parseReference(`quay.io/app@${DIGEST}`))).toBe(`quay.io/app@${DIGEST}`);
  });

  it('[1.2-length] has a name of at most 255 characters with its host', () => {
    const rest = 'quay.io/'.length;
    expect(full(`quay.io/${'x'.repeat(255 - rest)}`)).toMatch(/^quay\.io\/x+:latest$/);
    expect(full(`quay.io/${'x'.repeat(256 - rest)}`)).toBe('REFERENCE_INVALID');
    expect(full('x'.repeat(255 - 'docker.io/library/'.length))).toMatch(/:latest$/);
    expect(full('x'.repeat(256 - 'docker.io/library/'.length))).toBe('REFERENCE_INVALID');
  });

  it('that no server can have is refused, as a fault of the reference', () => {
    const hosts = [
      'registry.example:99999',
      'registry.example:',
      '1.2.3.4.5',
      '999.1.1.1',
      '[1:2]',
      '[::1',
      '-a.b',
      'a_b.c',
    ];
    for (const host of hosts) {
      expect([host, isHost(host)]).toEqual([host, false]);
      expect([host, full(`${host}/app:1`)]).toEqual([host, 'REFERENCE_INVALID']);
    }
    for (const text of [
      '',
      '/',
      'quay.io/',
      'quay.io//a',
      'quay.io/a/',
      'quay.io/../a',
      'quay.io/A',
      'a b',
      'http://quay.io/a',
    ]) {
      expect([text, full(text)]).toEqual([text, 'REFERENCE_INVALID']);
    }
  });

  it('reads its full form as itself, and only ever fails with REFERENCE_INVALID (property)', () => {
    const part = fc.stringMatching(/^[a-z0-9]{1,6}(?:[_-][a-z0-9]{1,3})?$/);
    const host = fc.constantFrom('', 'quay.io/', 'localhost/', 'r:5000/', '[::1]:5000/', 'docker.io/');
    const tag = fc.constantFrom('', ':v1', ':_x.y-z');
    const digest = fc.constantFrom('', `@${DIGEST}`);
    const good = fc
      .tuple(host, fc.array(part, { minLength: 1, maxLength: 3 }), tag, digest)
      .map(([h, parts, t, d]) => `${h}${parts.join('/')}${t}${d}`);
    fc.assert(
      fc.property(good, (text) => {
        const ref = parseReference(text);
        expect(parseReference(formatReference(ref))).toEqual(ref);
      }),
    );
    const noise = fc.string({ unit: fc.constantFrom(...'aA0.:/@_-[] \n%é'), maxLength: 20 });
    fc.assert(
      fc.property(noise, (text) => {
        const form = full(text);
        if (form !== 'REFERENCE_INVALID') expect(full(form)).toBe(form);
      }),
    );
  });
});
