/** Two real programs at the same bundle or target: the second says who is there, a killed one blocks nobody. */
import { copyFile, mkdir, symlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { openSite, packSite, type Site } from '../bundle/site.ts';
import { documentOf, ensureBuilt, type Ran, runProgram, startProgram } from '../cli/program.ts';

/** A server's gate: while it is shut, requests wait, and the first one tells. */
function gate(): {
  shut: () => Promise<void>;
  open: () => void;
  readonly intercept: () => Promise<boolean>;
} {
  let waiting = Promise.resolve();
  let open = (): void => {};
  let reached = (): void => {};
  return {
    shut: () => {
      waiting = new Promise((resolve) => {
        open = resolve;
      });
      return new Promise((resolve) => {
        reached = resolve;
      });
    },
    open: () => open(),
    intercept: async () => {
      reached();
      await waiting;
      return false;
    },
  };
}

let site: Site;
let target: RunningRegistry | undefined;

beforeAll(ensureBuilt, 180_000);
afterEach(async () => {
  await target?.close();
  target = undefined;
  await site.close();
});

function said(code: string, ran: Ran, pid: number | undefined): void {
  expect(ran.code, ran.stderr).toBe(1);
  expect(ran.stderr).toContain(`error[${code}]`);
  expect(ran.stderr).toContain(`process ${pid} of user`);
  expect(ran.stderr).toContain(`on ${hostname()}, since 20`);
}

describe('two packs of one bundle', () => {
  const door = gate();
  const packAgain = (out: string): Promise<Ran> =>
    runProgram(['pack', '-f', site.manifestPath, '-o', out, '--progress', 'none'], { cwd: site.dir });

  it('end the second one with the process, user, host and time of the first', async () => {
    let blobs = 0;
    site = await openSite({
      registry: {
        intercept: (request) =>
          request.url?.includes('/blobs/') === true && request.method === 'GET' && ++blobs > 0
            ? door.intercept()
            : false,
      },
    });
    const reached = door.shut();
    const args = ['pack', '-f', site.manifestPath, '-o', 'b.tar', '--progress', 'none'];
    const first = startProgram(args, { cwd: site.dir });
    await reached;
    said('PACK_BUSY', await packAgain('b.tar'), first.child.pid);
    first.child.kill('SIGKILL');
    await first.ended;
    door.open();
    expect((await packAgain('b.tar')).code).toBe(0);
    expect(blobs).toBeGreaterThan(0);
  });
});

describe('two loads into one target', () => {
  const door = gate();

  /** A load that holds a registry and a folder and waits for the registry's answer. */
  async function loadInTheMiddle(): Promise<ReturnType<typeof startProgram>> {
    site = await openSite();
    await packSite(site, 'b.tar');
    await copyFile(site.path('b.tar'), site.path('other.tar'));
    target = await startRegistry({ storage: 'memory', intercept: door.intercept });
    const reached = door.shut();
    const first = load('b.tar', '--registry', target.url, '--files', 'out/files');
    await reached;
    return first;
  }
  const load = (...args: string[]): ReturnType<typeof startProgram> =>
    startProgram(['load', ...args, '--progress', 'none'], { cwd: site.dir });

  it('end the second one with all that are held, whatever way leads there', async () => {
    const first = await loadInTheMiddle();
    await mkdir(site.path('out'));
    await mkdir(site.path('link'));
    await symlink(site.path('out'), site.path('link/out'));
    const both = ['--registry', target?.url ?? '', '--files', 'link/out/files'];
    const second = await load('other.tar', ...both).ended;
    said('TARGET_BUSY', second, first.child.pid);
    expect(second.stderr).toContain('registry 127.0.0.1');
    expect(second.stderr).toContain('link/out/files');
    first.child.kill('SIGKILL');
    await first.ended;
    door.open();
  });

  it('are both right when the targets differ, and a dry run holds nothing and is not kept away', async () => {
    const first = await loadInTheMiddle();
    expect((await load('b.tar', '--files', 'elsewhere').ended).code).toBe(0);
    expect((await load('b.tar', '--files', 'out/files', '--dry-run').ended).code).toBe(0);
    door.open();
    expect((await first.ended).code).toBe(0);
    expect((await load('b.tar', '--files', 'out/files').ended).code).toBe(0);
  });

  it('do not block after a kill, and what is told of the holder holds no argument of it', async () => {
    const first = await loadInTheMiddle();
    const second = await load('b.tar', '--files', 'out/files', '--json').ended;
    const text = JSON.stringify(documentOf(second));
    expect(text).toContain('"command":"sealift load"');
    expect(text).not.toContain('--registry');
    first.child.kill('SIGKILL');
    await first.ended;
    door.open();
    expect((await load('b.tar', '--files', 'out/files').ended).code).toBe(0);
  });
});
