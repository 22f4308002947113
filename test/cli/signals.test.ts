import { spawn, spawnSync } from 'node:child_process';
import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { documentOf, ensureBuilt, ROOT, runProgram, startProgram } from './program.ts';
import { openSite, type Site } from './site.ts';

let site: Site;
/** While true the source answers no blob; `asked` settles when it was asked for one. */
let hangs = false;
let asked: () => void = () => {};

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite({
    intercept: (request) => {
      if (!hangs || request.method !== 'GET' || request.url?.includes('/blobs/') !== true) return false;
      asked();
      return new Promise<boolean>(() => {});
    },
  });
  await runProgram(['lock'], { cwd: site.dir });
}, 180_000);

afterAll(() => site.close());

async function stopPack(signal: 'SIGINT' | 'SIGTERM', ...flags: string[]): ReturnType<typeof runProgram> {
  hangs = true;
  const waiting = new Promise<void>((resolve) => {
    asked = resolve;
  });
  const running = startProgram(['pack', '-o', 'a.tar', ...flags], { cwd: site.dir });
  await waiting;
  running.child.kill(signal);
  const ran = await running.ended;
  hangs = false;
  return ran;
}

describe('stopping', () => {
  it('ends the work with exit 130 at the first signal, and the next run goes on', async () => {
    const ran = await stopPack('SIGINT');
    expect(ran.code).toBe(130);
    expect(ran.stderr).toContain('stopping; press again to end at once\n');
    expect(ran.stderr).toContain('error[ABORTED]: stopped\nhint: run the same command again to go on\n');
    const terminated = await stopPack('SIGTERM', '--json');
    expect(terminated.code).toBe(130);
    expect(documentOf(terminated)).toMatchObject({ schemaVersion: 1, error: { code: 'ABORTED' } });
    expect((await runProgram(['pack', '-o', 'a.tar'], { cwd: site.dir })).code).toBe(0);
  });

  it('ends the process at the second signal, whatever the work does', async () => {
    const context = join(ROOT, 'dist/cli/context.js');
    const script = `
      const { createSession } = await import(${JSON.stringify(context)});
      const session = createSession({ emit() {}, onStop: () => console.log('stop'), onEnd: () => console.log('end') });
      setInterval(() => {}, 1000);
      for (let i = 0; i < 100; i++) session.context.signal.addEventListener('abort', () => {});
      const linked = AbortSignal.any([session.context.signal]);
      for (let i = 0; i < 100; i++) linked.addEventListener('abort', () => {});
      console.log('ready');`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    let warned = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      warned += text;
    });
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said === 'ready\n' || said === 'ready\nstop\n') child.kill('SIGINT');
    });
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect({ code, said, warned }).toEqual({ code: 130, said: 'ready\nstop\nend\n', warned: '' });
  });
});

describe('what surrounds the program', () => {
  it('may close stdout early', async () => {
    await runProgram(['pack', '-o', 'b.tar'], { cwd: site.dir });
    const running = startProgram(['ls', 'b.tar'], { cwd: site.dir });
    running.child.stdout?.destroy();
    const ran = await running.ended;
    expect(ran.code).toBe(0);
    expect(ran.stderr).not.toContain('EPIPE');
    expect(ran.stderr).toContain('next: sealift verify b.tar');
  });

  it('gets progress as JSON lines, and nothing else, on stderr', async () => {
    const ran = await runProgram(['pack', '-o', 'c.tar', '--progress', 'json'], { cwd: site.dir });
    expect(ran.code).toBe(0);
    const events = ran.stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    const types = new Set(events.map((e) => e.type));
    expect([...types]).toEqual(
      expect.arrayContaining(['phase', 'total', 'start', 'progress', 'end', 'note']),
    );
    const failed = await runProgram(['verify', 'absent.tar', '--progress=json'], { cwd: site.dir });
    const last = failed.stderr.trimEnd().split('\n').at(-1) ?? '';
    expect(JSON.parse(last)).toMatchObject({ type: 'error', error: { code: 'BUNDLE_NOT_FOUND' } });
  });

  it('gets plain lines where there is no terminal, and none with --progress none', async () => {
    const plain = await runProgram(['pack', '-o', 'd.tar'], { cwd: site.dir });
    expect(plain.stderr).toMatch(/^manifests: 2 images\nblobs\n/);
    const none = await runProgram(['pack', '-o', 'e.tar', '--progress', 'none'], { cwd: site.dir });
    expect(none.stderr).toMatch(/^packed e\.tar: /);
    expect(plain.stderr + none.stderr).not.toContain('\u001b');
  });

  it('may be a folder where nobody built it: a hint and no stack', async () => {
    await cp(join(ROOT, 'bin'), site.path('unbuilt/bin'), { recursive: true });
    await writeFile(site.path('unbuilt/package.json'), '{"type":"module"}');
    const ran = spawnSync(process.execPath, [site.path('unbuilt/bin/sealift.js')], { encoding: 'utf8' });
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(/^error\[NOT_BUILT\]: .*\nhint: run `npm ci`.*\n$/);
  });

  it('sees a stack only with SEALIFT_DEBUG=1', async () => {
    const quiet = await runProgram(['verify', 'absent.tar'], { cwd: site.dir });
    expect(quiet.stderr).not.toContain(' at ');
    const debug = await runProgram(['verify', 'absent.tar'], { cwd: site.dir, env: { SEALIFT_DEBUG: '1' } });
    expect(debug.stderr).toMatch(/^ {6}at .*openMedium/m);
  });
});
