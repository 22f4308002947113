import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { documentOf, ensureBuilt, type Running, runProgram, startProgram } from './program.ts';
import { openSite, type Site } from './site.ts';

let site: Site;

beforeAll(async () => {
  await ensureBuilt();
  site = await openSite();
  await site.writeManifest(site.manifest.replace('files:', 'files:\n  - {path: big, name: big}'));
  await writeFile(site.path('big'), Buffer.alloc(40_000_000, 'x'));
  for (const words of [['lock'], ['pack', '-o', 'a.tar']]) {
    expect(await runProgram(words, { cwd: site.dir })).toMatchObject({ code: 0 });
  }
}, 180_000);

afterAll(() => site.close());

/** Starts `sealift serve` at a free port and waits until it says where. */
async function startServe(...flags: string[]): Promise<Running & { readonly url: string }> {
  const running = startProgram(['serve', 'a.tar', '--listen', '127.0.0.1:0', ...flags], { cwd: site.dir });
  const url = await new Promise<string>((resolve, reject) => {
    const look = (text: string): void => {
      const [found] = /http:\/\/127\.0\.0\.1:\d+/.exec(text) ?? [];
      if (found !== undefined) resolve(found);
    };
    running.child.stdout?.on('data', look);
    running.child.stderr?.on('data', look);
    void running.ended.then((ran) => reject(new Error(ran.stderr)));
  });
  return { ...running, url };
}

describe('sealift serve', () => {
  it('prints the snippets, logs to stderr, and ends with 0 at the first Ctrl-C', async () => {
    const { url, child, ended } = await startServe();
    expect(await (await fetch(`${url}/files/bin/tool`)).text()).toBe('#!/bin/sh\necho tool\n');
    child.kill('SIGINT');
    const ran = await ended;
    expect(ran.code).toBe(0);
    expect(ran.stdout).toContain(
      `astrago 2026.11: 2 images, 1 chart, 2 files at ${url} (read only; Ctrl-C ends it)`,
    );
    expect(ran.stdout).toContain(`[host."${url}"]`);
    const lines = ran.stderr.split('\n');
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ path: '/files/bin/tool', status: 200, bytes: 20 });
    expect(ran.stderr).toContain('stopping; press again to end at once\n');
    expect(ran.stderr).toContain('served 1 request of 1 client, 20 bytes\n');
  });

  it('ends at once with 130 at the second, whatever is still running', async () => {
    const { url, child, ended, stderr } = await startServe();
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.on('error', () => {});
    socket.write('GET /files/big HTTP/1.1\r\nHost: x\r\n\r\n');
    await new Promise((resolve) => socket.once('readable', resolve));
    child.stderr?.on('data', () => {
      if (stderr().includes('press again')) child.kill('SIGINT');
    });
    child.kill('SIGINT');
    expect((await ended).code).toBe(130);
    socket.destroy();
  });

  it('gives one document with --json, and the log to a file', async () => {
    const { url, child, ended } = await startServe('--json', '--access-log', 'access.log');
    await fetch(`${url}/nothing`);
    child.kill('SIGTERM');
    const ran = await ended;
    expect(documentOf(ran)).toMatchObject({ command: 'serve', requests: 1, refused: 1, cut: 0, damage: [] });
    expect(ran.stderr).not.toContain('"path"');
  });

  it('says what is wrong with its words', async () => {
    const none = await runProgram(['serve'], { cwd: site.dir });
    expect(none).toMatchObject({ code: 2 });
    expect(none.stderr).toContain('no bundle is named');
    const half = await runProgram(['serve', 'a.tar', '--tls', 'cert.pem'], { cwd: site.dir });
    expect(half.stderr).toContain('write --tls server.crt server.key');
    const files = await runProgram(['serve', '--tls', 'no.crt', 'no.key', 'a.tar'], { cwd: site.dir });
    expect(files).toMatchObject({ code: 2 });
    expect(files.stderr).toContain('no.crt');
    const { url, child, ended } = await startServe();
    const taken = await runProgram(['serve', 'a.tar', '--listen', new URL(url).host], { cwd: site.dir });
    expect(taken).toMatchObject({ code: 2, stdout: '' });
    expect(taken.stderr).toContain(`ss -ltnp 'sport = :${new URL(url).port}'`);
    child.kill('SIGINT');
    expect((await ended).code).toBe(0);
  });
});
