import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { digestOf } from '../../src/io/verify.ts';
import { envPrefix } from '../../src/oci/env-credentials.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { documentOf, ensureBuilt, ROOT, runProgram } from '../cli/program.ts';
import { openSite, type Site } from '../cli/site.ts';
import {
  EXAMPLES,
  example,
  githubScripts,
  gitlabScripts,
  jenkinsScripts,
  type Script,
  tektonScripts,
} from '../support/ci-examples.ts';
import { makeImage, pushImage } from '../support/fleet.ts';
import { peer, type RunResult, run } from '../support/peers.ts';

/**
 * Every shell command of manifests/ci/, run as its system runs it: real Git, curl, tar and the built program, a registry that
 * asks for a login, a web server in place of GitLab's. Only `gh` is a stand-in that notes how it was called.
 */

const USER = 'ci';
const PASSWORD = 'no secret';

/** What the web server was sent. */
interface Sent {
  readonly method: string;
  readonly path: string;
  readonly token: string;
  readonly body: Buffer;
}

let dir: string;
let site: Site;
let registry: RunningRegistry;
let web: Server;
let webUrl: string;
let toolSha: string;
const sent: Sent[] = [];

/** Git as nobody has set it up. */
const GIT = {
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'ci',
  GIT_AUTHOR_EMAIL: 'ci@example',
  GIT_COMMITTER_NAME: 'ci',
  GIT_COMMITTER_EMAIL: 'ci@example',
};

async function git(cwd: string, ...args: string[]): Promise<void> {
  await run('git', args, { cwd, env: GIT });
}

async function startWeb(tool: Buffer): Promise<void> {
  web = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const { method = '', url = '', headers } = request;
    if (method === 'GET') return response.end(tool);
    const token = String(headers['private-token'] ?? headers['job-token'] ?? '');
    sent.push({ method, path: url, token, body: Buffer.concat(parts) });
    return response.end('{}');
  });
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
  webUrl = `http://127.0.0.1:${(web.address() as AddressInfo).port}`;
}

/** The program in a tarball of the shape that `npm run dist` makes. */
async function makeTool(): Promise<Buffer> {
  const folder = join(dir, 'tool/sealift-0.0.0-linux-x64');
  await mkdir(folder, { recursive: true });
  const text = `#!/bin/sh\nexec "${process.execPath}" "${join(ROOT, 'bin/sealift.js')}" "$@"\n`;
  await writeFile(join(folder, 'sealift'), text);
  await chmod(join(folder, 'sealift'), 0o755);
  await run('tar', ['-czf', join(dir, 'tool.tar.gz'), '-C', join(dir, 'tool'), 'sealift-0.0.0-linux-x64']);
  return readFile(join(dir, 'tool.tar.gz'));
}

/** `origin.git` with the branch main, and the branch change on which one image moved. */
async function makeRepository(): Promise<void> {
  const repository = join(dir, 'repository');
  await mkdir(repository);
  await git(repository, 'init', '--quiet', '--initial-branch=main');
  await writeFile(join(repository, 'sealift.yaml'), site.manifest);
  expect((await runProgram(['lock'], { cwd: repository })).code).toBe(0);
  await git(repository, 'add', '.');
  await git(repository, 'commit', '--quiet', '-m', 'first');
  const [image] = site.images;
  if (image === undefined) throw new Error('a site has images');
  const fresh = makeImage({ seed: 9, layerSizes: [4096], baseSize: 8192 });
  await pushImage(site.source.host, fresh, { repository: image.name, tag: image.tag });
  await git(repository, 'checkout', '--quiet', '-b', 'change');
  expect((await runProgram(['lock', '--update', image.name], { cwd: repository })).code).toBe(0);
  await git(repository, 'commit', '--quiet', '-am', 'move an image');
  await git(dir, 'clone', '--quiet', '--bare', repository, 'origin.git');
}

beforeAll(async () => {
  await ensureBuilt();
  dir = await mkdtemp(join(tmpdir(), 'sealift-ci-'));
  site = await openSite();
  registry = await startRegistry({
    storage: 'memory',
    auth: { kind: 'bearer', users: { [USER]: PASSWORD } },
  });
  const tool = await makeTool();
  toolSha = digestOf(tool).slice('sha256:'.length);
  await startWeb(tool);
  await makeRepository();
}, 180_000);

afterAll(async () => {
  await site?.close();
  await registry?.close();
  await new Promise((resolve) => web?.close(resolve));
  await rm(dir, { recursive: true, force: true });
});

/** One CI system that runs scripts in its folders. */
interface System {
  /** The folder of a job. */
  folder(job: string): string;
  readonly home: string;
  run(script: Script): Promise<RunResult>;
}

/**
 * @param options.own each job gets a fresh checkout of its own
 * @param options.env what the system, its settings and the event set; `options.comment` the number of a comment that is there
 */
async function openSystem(
  name: string,
  options: {
    readonly own: boolean;
    readonly env: Readonly<Record<string, string>>;
    readonly comment?: string;
  },
): Promise<System> {
  const home = join(dir, name);
  const bin = join(home, 'bin');
  await mkdir(bin, { recursive: true });
  // It finds the comment whose number lies in a file.
  const gh = `#!/bin/sh\nprintf '%s\\n' "$*" >> "${home}/gh.log"\n[ "$2" != --paginate ] || cat "${home}/comment"\n`;
  await writeFile(join(bin, 'gh'), gh);
  await writeFile(join(home, 'comment'), options.comment ?? '');
  await chmod(join(bin, 'gh'), 0o755);
  const pathFile = join(home, 'path');
  const summary = join(home, 'summary.md');
  const outputs = join(home, 'outputs');
  await Promise.all([pathFile, summary, outputs].map((path) => writeFile(path, '')));
  const folder = (job: string): string => join(home, options.own ? job : 'workspace');
  return {
    home,
    folder,
    run: async ({ job, text, shell, env }) => {
      const cwd = folder(job);
      const [program = '', ...args] = shell;
      await git(dir, 'clone', '--quiet', '--branch=change', 'origin.git', cwd).catch(async (error) => {
        // It is there from the script before.
        if (!(await readdir(cwd)).includes('.git')) throw error;
      });
      const added = (await readFile(pathFile, 'utf8')).split('\n').filter((line) => line.startsWith(cwd));
      const place = /^place=(.+)$/m.exec(await readFile(outputs, 'utf8'))?.[1];
      const all = {
        ...env,
        ...GIT,
        ...options.env,
        GITHUB_PATH: pathFile,
        GITHUB_STEP_SUMMARY: summary,
        GITHUB_OUTPUT: outputs,
        ...(place === undefined ? {} : { PLACE: place }),
        HOME: home,
        PATH: [...added, bin, process.env.PATH ?? ''].join(':'),
      };
      const open = Object.entries(all).filter(([, value]) => /\$\{\{|\$\((?:params|workspaces)/.test(value));
      expect(open, `${job} needs values that this test does not give`).toEqual([]);
      return run(program, [...args, text], { cwd, env: all, check: false });
    },
  };
}

function common(): Record<string, string> {
  return { SEALIFT_URL: `${webUrl}/sealift.tar.gz`, SEALIFT_SHA256: toolSha, BUNDLE: 'astrago' };
}

/** The login for the registry, as variables of an environment. */
function login(): Record<string, string> {
  const prefix = envPrefix(registry.host);
  return { [`${prefix}_USERNAME`]: USER, [`${prefix}_PASSWORD`]: PASSWORD };
}

/** A runner may be used again by others: no login stays in its home. */
async function expectNoLogin({ home }: System): Promise<void> {
  expect(await readdir(home)).not.toContain('.docker');
  expect(await readdir(home)).toContain('bin');
}

async function runAll(system: System, scripts: readonly Script[]): Promise<void> {
  expect(scripts.length).toBeGreaterThan(0);
  for (const script of scripts) {
    const ran = await system.run(script);
    expect(ran.code, `${script.job}: ${script.text}\n${ran.stderr}${ran.stdout}`).toBe(0);
  }
}

const digests = new Set<unknown>();

/** Fetches what was published and has it checked against the lock of the repository. */
async function expectPublished(system: System, repository: string, tag = 'nightly'): Promise<void> {
  const out = join(system.home, 'pulled.tar');
  const env = { HOME: system.home, ...login() };
  const place = `oci://${registry.host}/${repository}:${tag}`;
  const pulled = await runProgram(['pull', place, '-o', out, '--json'], { env });
  expect(pulled.code, pulled.stderr).toBe(0);
  digests.add(documentOf(pulled).digest);
  const lock = join(dir, 'repository/versions.lock');
  const verified = await runProgram(['verify', out, '--lock', lock], { env });
  expect(verified.code, verified.stderr).toBe(0);
}

function expectComment(text: string): void {
  expect(text).toContain('<!-- sealift diff -->');
  expect(text).toContain('**1 changed, 0 added, 0 removed**');
  expect(text).toContain(`\`${site.source.host}/${site.images[0]?.name}\``);
}

describe('the commands of the examples', () => {
  it('do their work on GitHub Actions', async () => {
    const system = await openSystem('github', {
      own: true,
      env: {
        ...common(),
        ...login(),
        BASE: 'main',
        GH_TOKEN: 'x',
        GITHUB_REPOSITORY: 'Team/Astrago',
        PULL_REQUEST: '7',
        REGISTRY: registry.host,
        REPOSITORY: 'Team/Astrago/bundle',
        SEALIFT_CREDENTIALS_GHCR_IO_USERNAME: '',
        SEALIFT_CREDENTIALS_GHCR_IO_PASSWORD: '',
        TAG: 'v1',
      },
    });
    await runAll(system, await githubScripts());
    expectComment(await readFile(join(system.home, 'summary.md'), 'utf8'));
    const calls = (await readFile(join(system.home, 'gh.log'), 'utf8')).trim().split('\n');
    const release = 'release create v1 --repo Team/Astrago --verify-tag --generate-notes';
    const bundle = 'astrago-2026.11.tar';
    expect(calls).toEqual([
      expect.stringMatching(/^api --paginate repos\/Team\/Astrago\/issues\/7\/comments --jq /),
      'pr comment 7 --body-file comment.md',
      `${release} out/${bundle} out/sealift.tar.gz out/sealift.tar.gz.sha256`,
    ]);
    await expectPublished(system, 'team/astrago/bundle', 'v1');
    await expectNoLogin(system);
    const out = join(system.folder('release'), 'out');
    await run('sha256sum', ['-c', '--strict', 'sealift.tar.gz.sha256'], { cwd: out });
    expect(await runProgram(['verify', join(out, bundle)])).toMatchObject({ code: 0 });
  });

  it('do their work on GitLab CI', async () => {
    const system = await openSystem('gitlab', {
      own: true,
      env: {
        ...common(),
        CI_API_V4_URL: `${webUrl}/api/v4`,
        CI_PROJECT_ID: '12',
        CI_MERGE_REQUEST_IID: '7',
        CI_MERGE_REQUEST_TARGET_BRANCH_NAME: 'main',
        COMMENT_TOKEN: 'comment-token',
        CI_JOB_TOKEN: 'job-token',
        CI_COMMIT_TAG: 'v1',
        CI_REGISTRY: registry.host,
        CI_REGISTRY_IMAGE: `${registry.host}/group/astrago`,
        CI_REGISTRY_USER: USER,
        CI_REGISTRY_PASSWORD: PASSWORD,
      },
    });
    await runAll(system, await gitlabScripts());
    const [note, ...all] = sent;
    expect(note).toMatchObject({
      method: 'POST',
      path: '/api/v4/projects/12/merge_requests/7/notes',
      token: 'comment-token',
    });
    expectComment(new URLSearchParams(note?.body.toString()).get('body') ?? '');
    const home = '/api/v4/projects/12/packages/generic/astrago/v1';
    const files = all.filter(({ path }) => !/\/sealift-[^/]*$/.test(path));
    expect(files.map(({ method, path, token }) => [method, path, token])).toEqual([
      ['PUT', `${home}/astrago.tar`, 'job-token'],
      ['PUT', `${home}/versions.lock`, 'job-token'],
    ]);
    await expectPublished(system, 'group/astrago/bundle', 'v1');
    await expectNoLogin(system);
    expect(await readdir(system.folder('bundle'))).not.toContain('.docker');
    expect(files[0]?.body.equals(await readFile(join(system.home, 'pulled.tar')))).toBe(true);
  });

  it('keep what they made each night only as an artifact, where GitLab would keep every upload', async () => {
    const system = await openSystem('gitlab-nightly', {
      own: true,
      env: {
        ...common(),
        CI_REGISTRY: registry.host,
        CI_REGISTRY_IMAGE: `${registry.host}/nightly/astrago`,
        CI_REGISTRY_USER: USER,
        CI_REGISTRY_PASSWORD: PASSWORD,
      },
    });
    const before = sent.length;
    const nightly = (await gitlabScripts()).filter(({ job }) => job === 'bundle');
    await runAll(system, nightly);
    expect(sent).toHaveLength(before);
    await expectPublished(system, 'nightly/astrago/bundle');
  });

  it('do their work on Jenkins', async () => {
    const system = await openSystem('jenkins', {
      own: false,
      env: {
        ...common(),
        ...login(),
        CHANGE_TARGET: 'main',
        REGISTRY: registry.host,
      },
    });
    await runAll(system, await jenkinsScripts());
    expectComment(await readFile(join(system.folder(''), 'comment.md'), 'utf8'));
    await expectPublished(system, 'bundles/astrago');
    await expectNoLogin(system);
  });

  it('do their work on Tekton', async () => {
    const config = join(dir, 'dockerconfig');
    const auth = Buffer.from(`${USER}:${PASSWORD}`).toString('base64');
    await mkdir(config);
    await writeFile(join(config, 'config.json'), JSON.stringify({ auths: { [registry.host]: { auth } } }));
    const result = join(dir, 'result');
    const system = await openSystem('tekton', {
      own: false,
      env: {
        ...common(),
        BASE: 'main',
        PLACE: `oci://${registry.host}/tekton/astrago:nightly`,
        DOCKER_CONFIG: config,
        GIT_CONFIG_VALUE_0: join(dir, 'tekton/workspace'),
        RESULT: result,
      },
    });
    const [install, ...rest] = await tektonScripts();
    if (install === undefined) throw new Error('the first script installs');
    await runAll(system, [install]);
    // What git-clone left belongs to its own user.
    if (process.getuid?.() === 0) await run('chown', ['-R', '65532', system.folder('')]);
    await runAll(system, rest);
    expectComment(await readFile(join(system.folder(''), 'comment.md'), 'utf8'));
    const place = await readFile(result, 'utf8');
    expect(place).toMatch(/^oci:\/\/127\.0\.0\.1:\d+\/tekton\/astrago@sha256:[0-9a-f]{64}$/);
    const out = join(system.home, 'pulled.tar');
    const pulled = await runProgram(['pull', place, '-o', out, '--json'], { env: { DOCKER_CONFIG: config } });
    digests.add(documentOf(pulled).digest);
  });

  it('made one and the same artifact on all of them', () => {
    expect([...digests]).toEqual([expect.stringMatching(/^sha256:/)]);
  });

  it('end with exit code 3 where the lock does not fit, after the comment was written', async () => {
    const system = await openSystem('stale', {
      own: false,
      env: {
        ...common(),
        BASE: 'main',
        GITHUB_REPOSITORY: 'Team/Astrago',
        PULL_REQUEST: '7',
        GH_TOKEN: 'x',
      },
      comment: '11\n4711\n',
    });
    const check = (await githubScripts()).filter(({ job }) => job === 'check');
    const [install, ...rest] = check;
    if (install === undefined) throw new Error('the first step installs');
    expect((await system.run(install)).code).toBe(0);
    const manifest = site.manifest.replace(/charts:\n.*\n/, '');
    await writeFile(join(system.folder('check'), 'sealift.yaml'), manifest);
    const codes: number[] = [];
    for (const script of rest) codes.push((await system.run(script)).code);
    expect(codes).toEqual([0, 0, 3]);
    const calls = (await readFile(join(system.home, 'gh.log'), 'utf8')).trim().split('\n');
    expect(calls[1]).toBe(
      'api --silent --method PATCH repos/Team/Astrago/issues/comments/4711 --field body=@comment.md',
    );
    expectComment(await readFile(join(system.home, 'summary.md'), 'utf8'));
  });

  it('do not start a program whose SHA-256 is another', async () => {
    const system = await openSystem('other', {
      own: false,
      env: { ...common(), SEALIFT_SHA256: '0'.repeat(64) },
    });
    for (const scripts of [githubScripts, gitlabScripts, jenkinsScripts, tektonScripts]) {
      const [install] = await scripts();
      if (install === undefined) throw new Error('the first script installs');
      const ran = await system.run(install);
      expect(ran.code, ran.stderr).not.toBe(0);
      expect(await readdir(system.folder(''))).not.toContain('.sealift');
    }
  });
});

describe("Tekton's own validation", () => {
  const check = async (text: string): Promise<RunResult> => {
    const path = join(dir, 'tekton.yaml');
    await writeFile(path, text);
    return run(peer('tekton-check'), [path], { check: false });
  };

  it('finds nothing wrong in the example, and would', async () => {
    const fine = await run(peer('tekton-check'), [join(EXAMPLES, 'tekton.yaml')]);
    expect(fine.stdout.trim().split('\n')).toEqual(['Task', 'Task', 'Task', 'Task', 'Pipeline']);
    const text = await example('tekton.yaml');
    for (const [right, wrong, says] of [
      ['workingDir:', 'workdir:', 'workdir'],
      ['$(params.base)', '$(params.bas)', 'params.bas'],
      ['runAfter: [install]', 'runAfter: [instal]', 'instal'],
    ] as const) {
      const ran = await check(text.replace(right, wrong));
      expect(ran.code).toBe(1);
      expect(ran.stderr).toContain(says);
    }
  });
});
