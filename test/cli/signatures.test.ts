import { spawnSync } from 'node:child_process';
import { cp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeKey } from '../../src/trust/secret-key.ts';
import { randomOf, SMALL_LIMITS } from '../trust/keys.ts';
import { documentOf, ensureBuilt, type Ran, ROOT, type RunOptions, runProgram } from './program.ts';
import { openSite, type Site } from './site.ts';

let site: Site;
const sealift = (args: readonly string[], more: RunOptions = {}): Promise<Ran> =>
  runProgram(args, { cwd: site.dir, ...more });

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite();
  await sealift(['lock']);
}, 180_000);
afterAll(() => site.close());

describe('signatures on the command line', () => {
  it('begin with a key, which is for its owner only and is never overwritten', async () => {
    const ran = await sealift(['keygen', '--no-password', '-o', 'release']);
    expect(ran).toMatchObject({ code: 0, stdout: '' });
    expect(ran.stderr).toMatch(/^made the key [0-9A-F]{16}\n/);
    expect(ran.stderr).toContain('WITHOUT a password');
    expect((await stat(site.path('release.key'))).mode & 0o777).toBe(0o600);
    const before = await readFile(site.path('release.key'));
    const again = await sealift(['keygen', '--no-password', '-o', 'release']);
    expect(again.code).toBe(1);
    expect(again.stderr).toContain('error[TARGET_CONFLICT]: ');
    expect(await readFile(site.path('release.key'))).toEqual(before);
  });

  it('begin with the name of a key and one word about its password', async () => {
    for (const more of [
      ['-o', ''],
      ['-o', 'keys/'],
      ['-o', 'none', '--password-stdin'],
    ]) {
      expect((await sealift(['keygen', '--no-password', ...more])).code, more.join(' ')).toBe(2);
    }
    expect((await sealift(['pack', '-o', 'none.tar', '--password-stdin'])).code).toBe(2);
    expect((await readdir(site.dir)).filter((name) => /^(?:none|keys)/.test(name))).toEqual([]);
  });

  it('are made while packing, and looked at by verify and load', async () => {
    const packed = await sealift(['pack', '-o', 'a.tar', '--sign', 'release.key', '--no-tool']);
    expect(packed.code).toBe(0);
    expect(packed.stderr).toMatch(/\n {2}signed with the key [0-9A-F]{16}\n/);
    const ran = await sealift(['verify', 'a.tar', '--key', 'release.pub', '--json']);
    expect(documentOf(ran)).toMatchObject({ ok: true, chain: 'signature', signature: { state: 'trusted' } });
    const said = await sealift(['verify', 'a.tar', '--key', 'release.pub']);
    expect(said.stderr).toContain('\nnext: sealift load a.tar --key release.pub --registry HOST:PORT\n');
    const unchecked = await sealift(['verify', 'a.tar']);
    expect(unchecked.stderr).toContain('is present, not checked');
    const loaded = await sealift(['load', 'a.tar', '--key', 'release.pub', '--files', 'files', '--json']);
    expect(documentOf(loaded)).toMatchObject({
      bundle: { signedBy: expect.stringMatching(/^[0-9A-F]{16}$/) },
    });
  });

  it('are refused with exit 5 and a word of their own', async () => {
    await sealift(['keygen', '--no-password', '-o', 'foreign']);
    const foreign = await sealift(['load', 'a.tar', '--key', 'foreign.pub', '--files', 'other']);
    expect(foreign.code).toBe(5);
    expect(foreign.stderr).toContain('error[SIGNATURE_KEY_UNKNOWN]: ');
    await sealift(['pack', '-o', 'unsigned.tar', '--no-tool']);
    const env = { SEALIFT_TRUST: 'release.pub' };
    const unsigned = await sealift(['verify', 'unsigned.tar'], { env });
    expect(unsigned.code).toBe(5);
    expect(unsigned.stderr).toContain('error[SIGNATURE_MISSING]: ');
  });

  it('are asked for by the site.yaml of the working folder, whose faults have a place', async () => {
    const text = 'apiVersion: sealift-site/v1\ntrust: {keys: [release.pub], require: signature}\n';
    await writeFile(site.path('site.yaml'), text);
    expect((await sealift(['load', 'unsigned.tar', '--files', 'other'])).code).toBe(5);
    const trusted = await sealift(['load', 'a.tar', '--files', 'files']);
    expect(trusted.code).toBe(0);
    expect(trusted.stderr).toContain(`note: what is trusted here says ${site.path('site.yaml')}\n`);
    await writeFile(site.path('bad.yaml'), text.replace('require', 'requires'));
    const bad = await sealift(['verify', 'a.tar', '--site', 'bad.yaml']);
    expect(bad.code).toBe(2);
    expect(bad.stderr).toMatch(/bad\.yaml:2:\d+ {2}trust: unknown key "requires"/);
    // A policy that cannot be read is not passed over.
    await rm(site.path('site.yaml'));
    await symlink('elsewhere.yaml', site.path('site.yaml'));
    const lost = await sealift(['load', 'unsigned.tar', '--files', 'other']);
    expect([lost.code, lost.stderr]).toEqual([2, expect.stringContaining('site.yaml: no such file')]);
    await rm(site.path('site.yaml'));
  });

  it('keep an older bundle away from a place that says what it has', async () => {
    const load = ['load', 'a.tar', '--files', 'files', '--receipt', 'receipt.json'];
    expect((await sealift(load)).code).toBe(0);
    const receipt = await readFile(site.path('receipt.json'), 'utf8');
    await writeFile(
      site.path('receipt.json'),
      receipt.replace('"version": "2026.11"', '"version": "2027.1"'),
    );
    const ran = await sealift(load);
    expect(ran.code).toBe(5);
    expect(ran.stderr).toContain('error[POLICY_DOWNGRADE]: ');
    expect((await sealift([...load, '--allow-downgrade'])).code).toBe(0);
  });

  it('take the password of a key from the environment or from standard input', async () => {
    const { signal } = new AbortController();
    const { file } = await makeKey(randomOf('cli'), 'geheim', { signal, limits: SMALL_LIMITS });
    await writeFile(site.path('locked.key'), file);
    const args = ['sign', 'unsigned.tar', '--key', 'locked.key'];
    const nobody = await sealift(args);
    expect(nobody.code).toBe(2);
    expect(nobody.stderr).toContain('SEALIFT_KEY_PASSWORD');
    const wrong = await sealift(args, { env: { SEALIFT_KEY_PASSWORD: 'falsch' } });
    expect(wrong.code).toBe(4);
    expect(wrong.stderr).toContain('error[KEY_PASSWORD_WRONG]: ');
    expect(wrong.stderr).not.toContain('falsch');
    const right = await sealift(args, { env: { SEALIFT_KEY_PASSWORD: 'geheim' } });
    expect(right.stderr).toMatch(/^signed unsigned\.tar: astrago 2026\.11, key /);
    const program = [join(ROOT, 'bin/sealift.js'), ...args, '--password-stdin'];
    const how = { cwd: site.dir, input: 'geheim\n', encoding: 'utf8' } as const;
    expect(spawnSync(process.execPath, program, how).stderr).toContain(
      'was signed already, nothing was written',
    );
  });

  it('may be of a lock alone', async () => {
    const ran = await sealift(['sign', 'versions.lock', '--key', 'release.key']);
    expect(ran.code).toBe(0);
    const args = ['verify', 'a.tar', '--lock', 'versions.lock', '--key', 'release.pub', '--json'];
    expect(documentOf(await sealift(args))).toMatchObject({ ok: true, chain: 'signed-lock' });
    const check = ['lock', '--check', '--key', 'release.pub'];
    const good = await sealift(check);
    expect([good.code, good.stderr]).toEqual([0, expect.stringMatching(/signature of the key \w{16}: good/)]);
    const foreign = await sealift(['lock', '--check', '--key', 'foreign.pub']);
    expect([foreign.code, foreign.stderr]).toEqual([5, expect.stringContaining('SIGNATURE_KEY_UNKNOWN')]);
    await rm(site.path('versions.lock.minisig'));
    const unsigned = await sealift(check);
    expect([unsigned.code, unsigned.stderr]).toEqual([5, expect.stringContaining('SIGNATURE_MISSING')]);
    expect((await sealift(['lock', '--key', 'release.pub'])).code).toBe(2);
  });

  it('end the same when the program is killed in the middle of any write, and run again', async () => {
    const [path, key] = [site.path('killed.tar'), 'release.key'];
    const unsigned = await readFile(site.path('a.tar'));
    await cp(site.path('a.tar'), path);
    const wanted = await readFile(path);
    // Another signature is there before: then each step is done.
    await sealift(['sign', 'killed.tar', '--key', 'foreign.key']);
    const before = await readFile(path);
    expect(before.equals(unsigned)).toBe(false);
    await writeFile(
      site.path('hook.cjs'),
      `const fs = require('node:fs');
      let left = Number(process.env.STEPS);
      const die = () => process.kill(process.pid, 'SIGKILL');
      for (const name of ['writeSync', 'ftruncateSync', 'fsyncSync']) {
        const real = fs[name];
        fs[name] = (fd, ...rest) => {
          if (fd > 2 && left-- === 0) {
            const [bytes, from, length, position] = rest;
            if (name === 'writeSync') real(fd, bytes, from, length >> 1, position);
            die();
          }
          return real(fd, ...rest);
        };
      }
      require('node:module').syncBuiltinESMExports();`,
    );
    let steps = 0;
    for (; steps < 50; steps += 1) {
      await writeFile(path, before);
      const env = { NODE_OPTIONS: `--require=${site.path('hook.cjs')}`, STEPS: String(steps) };
      const { code } = await sealift(['sign', 'killed.tar', '--key', key], { env });
      if (code === 0) break;
      expect(code).toBeNull();
      expect((await sealift(['sign', 'killed.tar', '--key', key])).code).toBe(0);
      expect((await readFile(path)).equals(wanted), `killed at step ${steps}`).toBe(true);
    }
    expect(steps).toBeGreaterThanOrEqual(7);
  });
});
