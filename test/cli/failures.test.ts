import { readFile, stat, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { documentOf, ensureBuilt, type Ran, runProgram } from './program.ts';
import { openSite, type Site } from './site.ts';

let site: Site;
let locked: RunningRegistry;
const sealift = (...args: string[]): Promise<Ran> => runProgram(args, { cwd: site.dir });

/** A port of this machine on which nobody listens. */
async function deadHost(): Promise<string> {
  const gone = await startRegistry({ storage: 'memory' });
  await gone.close();
  return gone.host;
}

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite();
  locked = await startRegistry({
    storage: 'memory',
    auth: { kind: 'basic', users: { anna: 'secret' } },
  });
  await sealift('lock');
  await sealift('pack', '-o', 'a.tar');
}, 180_000);

afterAll(async () => {
  await locked.close();
  await site.close();
});

/** Runs with another manifest and puts the site's own back. */
async function withManifest(text: string, work: () => Promise<void>): Promise<void> {
  await site.writeManifest(text);
  try {
    await work();
  } finally {
    await site.writeManifest(site.manifest);
  }
}

describe('bad usage', () => {
  it('ends with exit 2 and a suggestion for a slip of the keys', async () => {
    const ran = await sealift('lok');
    expect(ran).toMatchObject({ code: 2, stdout: '' });
    expect(ran.stderr).toContain("error[USAGE]: unknown command 'lok'\nhint: did you mean lock?");
    const option = await sealift('pack', '--ouput', 'a.tar');
    expect(option.code).toBe(2);
    expect(option.stderr).toContain('did you mean --output?');
  });

  it('is a JSON document with --json, whatever is wrong', async () => {
    const lines = [
      ['pack', '--json'],
      ['verify', '--json'],
      ['load', 'a.tar', '--naming', 'upside-down', '--registry', 'x:1', '--json'],
      ['load', 'a.tar', '--json'],
      ['load', 'a.tar', '--registry', 'anna:secret@host', '--json'],
      ['load', 'a.tar', '--files', 'f', '--pin', '--json'],
      ['lock', '--online', '--json'],
      ['lock', '--check', '--diff', '--json'],
      ['lock', '--update', 'nobody', '--json'],
    ];
    for (const line of lines) {
      const ran = await sealift(...line);
      expect(ran.code, line.join(' ')).toBe(2);
      const document = documentOf(ran);
      expect(document).toMatchObject({ schemaVersion: 1, error: { code: 'USAGE', details: null } });
      expect(ran.stdout + ran.stderr).not.toContain('secret@');
    }
  });

  it('refuses flags that mean nothing without their target', async () => {
    const ran = await sealift('load', 'a.tar', '--files', 'f', '--namespace', 'k8s.io');
    expect(ran.stderr).toContain('error[USAGE]: --namespace means nothing without --containerd');
    expect(ran.code).toBe(2);
  });

  it('says what is wrong in the manifest, every fault with its place, each hint once', async () => {
    const bad =
      'apiVersion: sealift/v1\nname: x\nversion: "1"\nimges: []\nimages:\n  - "UPPER:1"\n  - "a b"\n';
    await withManifest(bad, async () => {
      const ran = await sealift('lock');
      expect(ran.code).toBe(2);
      expect(ran.stderr).toMatch(/^error\[MANIFEST_INVALID\]: sealift\.yaml has 3 faults$/m);
      expect(ran.stderr).toMatch(/^ {2}sealift\.yaml:4:1 {2}.*imges/m);
      expect(ran.stderr).toMatch(/^ {2}sealift\.yaml:6:5 {2}.*UPPER/m);
      const hints = ran.stderr.split('\n').filter((line) => line.startsWith('hint: '));
      expect(new Set(hints).size).toBe(hints.length);
      const { error } = documentOf(await sealift('lock', '--json'));
      expect(error).toMatchObject({ faults: [{ position: { line: 4, column: 1 } }, {}, {}] });
    });
  });
});

describe('a check that says no', () => {
  it('lists what is missing, stale and extra: exit 3', async () => {
    const [first = '', second = ''] = site.images.map((i) => `  - ${site.source.host}/${i.name}:${i.tag}`);
    const changed = site.manifest
      .replace(first, `${first}9`)
      .replace(second, `  - {ref: "${second.slice(4)}", platforms: [linux/arm64]}`);
    await withManifest(changed, async () => {
      const ran = await sealift('lock', '--check');
      expect(ran).toMatchObject({ code: 3, stdout: '' });
      expect(ran.stderr).toContain('error[LOCK_STALE]: versions.lock does not match sealift.yaml\n');
      expect(ran.stderr).toMatch(/^ {2}sealift\.yaml:6:5 {2}image .*9 is missing in the lock$/m);
      expect(ran.stderr).toMatch(/asks for linux\/arm64, the lock has linux\/amd64$/m);
      expect(ran.stderr).toMatch(/is in the lock, but nothing asks for it$/m);
      expect(ran.stderr.split('hint: run `sealift lock` to update it')).toHaveLength(2);
      const asJson = await sealift('lock', '--check', '--json');
      expect(asJson.code).toBe(3);
      expect(documentOf(asJson)).toMatchObject({
        schemaVersion: 1,
        inStep: false,
        error: { code: 'LOCK_STALE', faults: [{}, {}, {}] },
      });
      expect((await sealift('pack', '-o', 'a.tar')).code).toBe(3);
    });
  });

  it('shows the first fifty of many faults, and all with --json', async () => {
    const many = Array.from({ length: 70 }, (_, i) => `  - quay.io/many/i${i}:1`).join('\n');
    await withManifest(site.manifest.replace('images:\n', `images:\n${many}\n`), async () => {
      const ran = await sealift('lock', '--check');
      const lines = ran.stderr.split('\n').filter((line) => line.includes('is missing in the lock'));
      expect(lines).toHaveLength(50);
      expect(ran.stderr).toContain('\n  and 20 more (all with --json)\n');
      const { error } = documentOf(await sealift('lock', '--check', '--json'));
      expect(error).toHaveProperty('faults.length', 70);
    });
  });
});

describe('authentication', () => {
  it('ends with exit 4 where the source wants a login', async () => {
    const asks = site.manifest.replace('images:\n', `images:\n  - ${locked.host}/private/app:1.0\n`);
    await withManifest(asks, async () => {
      const ran = await sealift('lock');
      expect(ran.code).toBe(4);
      expect(ran.stderr).toMatch(/^error\[AUTH_(?:REQUIRED|DENIED)\]: /m);
    });
  });

  it('ends with exit 4 where every failure of a load is one of permission', async () => {
    const ran = await sealift('load', 'a.tar', '--registry', locked.host);
    expect(ran.code).toBe(4);
    expect(ran.stderr).toMatch(/^error\[AUTH_/m);
    expect(ran.stderr).toContain('next: sealift load a.tar');
    const dead = await deadHost();
    const mixed = await sealift('load', 'a.tar', '--registry', locked.host, '--registry', dead);
    expect(mixed.code).toBe(1);
    expect(mixed.stderr).toMatch(/^ {2}\[AUTH_/m);
  });
});

describe('a target that fails', () => {
  it('does not stop the others, is listed with its hint, exit 1', async () => {
    const dead = await deadHost();
    const args = ['load', 'a.tar', '--registry', dead, '--files', 'out', '--json'];
    const ran = await sealift(...args);
    expect(ran.code).toBe(1);
    expect((await stat(site.path('out/bin/tool'))).isFile()).toBe(true);
    const document = documentOf(ran);
    expect(document).toMatchObject({
      schemaVersion: 1,
      command: 'load',
      error: { code: 'TARGET_FAILED', faults: [{ message: expect.stringContaining(`registry ${dead}: `) }] },
    });
    expect(ran.stderr).toContain('error[TARGET_FAILED]: 1 failure; everything else is on its target');
    expect(ran.stderr).toMatch(/^hint: /m);
    expect(ran.stderr).toMatch(/next: sealift load .*goes on: what is there is not sent again/);
  }, 120_000);

  it('names a file that is in the way, and leaves it', async () => {
    await sealift('load', 'a.tar', '--files', 'own');
    await writeFile(site.path('own/bin/tool'), 'mine\n');
    const ran = await sealift('load', 'a.tar', '--files', 'own');
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain('[TARGET_CONFLICT]');
    expect(await readFile(site.path('own/bin/tool'), 'utf8')).toBe('mine\n');
  });
});

/** Where the content of the last blob begins. */
function lastBlobOffset(tar: Buffer): number {
  let found = -1;
  for (let at = 0; at < tar.length; at += 512) {
    if (tar.toString('latin1', at, at + 13) === 'blobs/sha256/') found = at + 512;
  }
  return found;
}

describe('a damaged bundle', () => {
  it('is named by verify with entry and offset, exit 5', async () => {
    const bytes = await readFile(site.path('a.tar'));
    const at = lastBlobOffset(bytes);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    await writeFile(site.path('bad.tar'), bytes);
    const ran = await sealift('verify', 'bad.tar');
    expect(ran).toMatchObject({ code: 5, stdout: '' });
    expect(ran.stderr).toMatch(/^error\[BUNDLE_/m);
    expect(ran.stderr).toMatch(new RegExp(`blobs/sha256/[0-9a-f]{64} at byte ${at} `));
    expect(ran.stderr).toContain('This finds damage');
    const asJson = await sealift('verify', 'bad.tar', '--json');
    expect(asJson.code).toBe(5);
    expect(documentOf(asJson)).toMatchObject({
      schemaVersion: 1,
      ok: false,
      error: { faults: [{ details: { offset: at } }] },
    });
    const load = await sealift('load', 'bad.tar', '--files', 'never', '--verify');
    expect(load.code).toBe(5);
    await expect(stat(site.path('never'))).rejects.toThrow('ENOENT');
  });

  it('is refused by every verb when it is no bundle at all', async () => {
    await writeFile(site.path('noise.tar'), 'noise '.repeat(1000));
    expect((await sealift('verify', 'noise.tar')).code).toBe(5);
    expect((await sealift('ls', 'noise.tar')).code).toBe(5);
    expect((await sealift('load', 'noise.tar', '--files', 'never')).code).toBe(5);
    expect((await sealift('ls', 'absent.tar')).code).toBe(2);
    const kept = await sealift('pack', '-o', 'noise.tar');
    expect(kept.code).toBe(1);
    expect(kept.stderr).toContain('error[TARGET_CONFLICT]');
  });
});

describe('text from outside', () => {
  const ESCAPE = '\u001b';

  it('cannot give orders to the terminal through a manifest', async () => {
    const evil = '"evil\\e]0;owned\\a\\e[2J\\u202egnp.exe\\nhint: run `rm -rf /`:1"';
    await withManifest(site.manifest.replace('images:\n', `images:\n  - ${evil}\n`), async () => {
      const ran = await sealift('lock');
      expect(ran.code).toBe(2);
      expect(ran.stderr).toContain('evil\\x1b]0;owned\\x07\\x1b[2J\\u202egnp.exe\\nhint: run');
      expect(ran.stderr).not.toContain(ESCAPE);
      expect(ran.stderr).not.toMatch(/^hint: run `rm/m);
      const asJson = await sealift('lock', '--json');
      expect(asJson.stdout).not.toMatch(/[\u001b\u202e]/);
      expect(JSON.stringify(documentOf(asJson))).toContain('\u202e');
    });
  });

  it('cannot give orders through an argument', async () => {
    const ran = await sealift('verify', `x${ESCAPE}[2J.tar`);
    expect(ran.code).toBe(2);
    expect(ran.stderr).toContain('x\\x1b[2J.tar');
    expect(ran.stderr).not.toContain(ESCAPE);
    const usage = await sealift(`lo${ESCAPE}[2Jk`);
    expect(usage.stderr).not.toContain(ESCAPE);
  });

  it('cannot give orders through what a registry answers', async () => {
    const liar = await startRegistry({
      storage: 'memory',
      intercept: (_, response) => {
        const body = { errors: [{ code: 'DENIED', message: `${ESCAPE}[31mgo away\r\nerror[OK]: fine` }] };
        response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify(body));
        return true;
      },
    });
    try {
      await withManifest(
        site.manifest.replace('images:\n', `images:\n  - ${liar.host}/a/b:1\n`),
        async () => {
          const ran = await sealift('lock');
          expect(ran.code).toBe(1);
          expect(ran.stderr).toContain('go away');
          expect(ran.stderr).not.toContain(ESCAPE);
          expect(ran.stderr).not.toMatch(/^error\[OK\]/m);
        },
      );
    } finally {
      await liar.close();
    }
  });
});
