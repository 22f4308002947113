import { describe, expect, it } from 'vitest';
import { pipSettings } from '../../src/python/pip-conf.ts';

describe('the settings of pip', () => {
  it('name the index, never a login, and trust plain HTTP only where that is needed', () => {
    const { file, env } = pipSettings(new URL('http://me:secret@devpi.local:3141/root/prod/+simple'));
    expect(file).toBe(
      '[global]\nindex-url = http://devpi.local:3141/root/prod/+simple/\ntrusted-host = devpi.local:3141\n',
    );
    expect(env).toEqual({
      PIP_INDEX_URL: 'http://devpi.local:3141/root/prod/+simple/',
      PIP_TRUSTED_HOST: 'devpi.local:3141',
    });
    const safe = pipSettings(new URL('https://nexus.local/repository/p/simple/'));
    expect(safe.file).toBe('[global]\nindex-url = https://nexus.local/repository/p/simple/\n');
    expect(pipSettings(new URL('http://127.0.0.1:1/simple/')).file).not.toContain('trusted');
  });
});
