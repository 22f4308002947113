import { execFileSync } from 'node:child_process';
import { open as openFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../src/core/limits.ts';
import { accessLine } from '../../src/serve/access-log.ts';
import { makeSite, type Site } from '../support/bundles.ts';
import { ask, serveBundles } from './bundle-site.ts';

let site: Site;
let tar: string;

beforeAll(async () => {
  site = await makeSite();
  await site.put('one/small', 'small');
  tar = await site.bundle('one', 'files: [{path: small, name: small}]\n');
});

afterAll(() => site.close());

describe('the access log', () => {
  it('has one line of JSON for each request, whatever the client sends, and nothing secret', async () => {
    const serving = await serveBundles([tar]);
    const agent = 'evil"\u00e9\u001b]0;x\u0007'.replace(/[\u0000-\u001f]/g, ' ');
    await ask(serving.url, {
      path: '/files/%0a%22%e2%80%ae?token=hunter2',
      headers: { 'user-agent': agent, authorization: 'Basic aHVudGVyMjpodW50ZXIy' },
    });
    await ask(serving.url, { path: '/files/small' });
    await ask(serving.url, { path: '/files/small', method: 'HEAD' });
    const result = await serving.close();
    const lines = serving.lines.map((line) => JSON.parse(line));
    expect(serving.lines.join('')).toMatch(/^[\x20-\x7e]*$/);
    expect(serving.lines.join('')).not.toContain('hunter2');
    expect(lines).toMatchObject([
      { method: 'GET', path: '/files/%0a%22%e2%80%ae', status: 404, userAgent: 'evil"\u00e9 ]0;x' },
      {
        time: '2026-11-01T00:00:00.000Z',
        client: '127.0.0.1',
        method: 'GET',
        path: '/files/small',
        status: 200,
        bytes: 5,
        ms: 0,
      },
      { method: 'HEAD', status: 200, bytes: 0 },
    ]);
    expect(result).toMatchObject({
      requests: 3,
      bytes: expect.any(Number),
      clients: 1,
      refused: 1,
      failed: 0,
      cut: 0,
    });
  });

  it('escapes everything that is not printable ASCII', () => {
    const access = { time: 0, client: '::1', method: 'GET', status: 200, bytes: 1, ms: 2, userAgent: '' };
    const path = '/\n\r\u2028\u202e\u007f\u{1f600}"\\';
    const line = accessLine({ ...access, path, error: 'x\ny' });
    expect(line).toMatch(/^[\x20-\x7e]+$/);
    expect(JSON.parse(line)).toMatchObject({ path, error: 'x\ny', time: '1970-01-01T00:00:00.000Z' });
    expect(accessLine({ ...access, path: 'a'.repeat(9_999) }).length).toBeLessThan(2_300);
  });

  it('goes to a file, behind what is there', async () => {
    const accessLog = await site.put('access.log', 'before\n');
    const serving = await serveBundles([tar], { accessLog });
    await ask(serving.url, { path: '/files/small' });
    await serving.close();
    const [before, line = '', ...more] = (await readFile(accessLog, 'utf8')).split('\n');
    expect([before, JSON.parse(line).path, more]).toEqual(['before', '/files/small', ['']]);
    await expect(serveBundles([tar], { accessLog: join(site.dir, 'no/such/folder') })).rejects.toMatchObject({
      code: 'FILE_UNREADABLE',
    });
  });
});

describe('an access log that does not go on', () => {
  it('costs lines, never an answer', async () => {
    const path = join(site.dir, 'fifo');
    execFileSync('mkfifo', [path]);
    const fifo = await openFile(path, 'r+');
    const serving = await serveBundles([tar], { accessLog: { fd: fifo.fd } });
    const asked = async (): Promise<void> => {
      const headers = { 'user-agent': 'x'.repeat(2_000) };
      expect(await (await fetch(`${serving.url}/files/small`, { headers })).text()).toBe('small');
    };
    const most = 1.2 * (LIMITS.logWaiting / 2_000);
    for (let i = 0; i < most; i += 20) await Promise.all(Array.from({ length: 20 }, asked));
    // Now somebody reads.
    const end = serving.close();
    const reader = fifo.createReadStream({ autoClose: false }).resume();
    const { logLinesLost, requests } = await end;
    reader.destroy();
    // What the reader still waits for.
    await fifo.write('\n');
    await fifo.close();
    expect(logLinesLost).toBeGreaterThan(0);
    expect(logLinesLost).toBeLessThan(requests);
    const refusing = await serveBundles([tar], { accessLog: () => false });
    await ask(refusing.url, { path: '/files/small' });
    expect(await refusing.close()).toMatchObject({ requests: 1, logLinesLost: 1 });
  });
});
