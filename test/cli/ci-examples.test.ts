import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { convertWorkflowTemplate, NoOperationTraceWriter, parseWorkflow } from '@actions/workflow-parser';
import { describe, expect, it, onTestFinished } from 'vitest';
import { envPrefix } from '../../src/oci/env-credentials.ts';
import {
  EXAMPLES,
  example,
  githubScripts,
  gitlabScripts,
  jenkinsScripts,
  tektonScripts,
} from '../support/ci-examples.ts';
import { ROOT } from './program.ts';

/** What GitHub's own parser says of a workflow. */
async function githubErrors(content: string): Promise<string[]> {
  const { context, value } = parseWorkflow({ name: 'sealift.yml', content }, new NoOperationTraceWriter());
  if (value === undefined) return context.errors.getErrors().map((error) => error.message);
  await convertWorkflowTemplate(context, value);
  return context.errors.getErrors().map((error) => error.message);
}

/** What GitLab's own schema says, which gitlab-ci-local carries and checks; the names of the jobs when it is content. */
async function gitlabJobs(content: string): Promise<string[] | string> {
  const dir = await mkdtemp(join(tmpdir(), 'sealift-gitlab-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  await writeFile(join(dir, '.gitlab-ci.yml'), content);
  const program = join(ROOT, 'node_modules/gitlab-ci-local/dist/index.js');
  // It is written for Node 22, of which it uses one function when it starts.
  const missing = 'Set.prototype.union ??= function (other) { return new Set([...this, ...other]); };';
  const args = ['--import', `data:text/javascript,${encodeURIComponent(missing)}`, program, '--list-json'];
  const env = { PATH: process.env.PATH ?? '', HOME: dir, GCL_SHELL_EXECUTOR_NO_IMAGE: 'true' };
  const ran = await promisify(execFile)(process.execPath, args, { cwd: dir, env }).catch(
    (error: { readonly stderr: string }) => error,
  );
  if (!('stdout' in ran) || ran instanceof Error) return ran.stderr;
  const jobs: readonly { readonly name: string }[] = JSON.parse(ran.stdout);
  return jobs.map((job) => job.name);
}

/** A Jenkinsfile without comments and texts, which may hold anything. */
function bare(text: string): string {
  return text.replace(/'''[\s\S]*?'''|'[^'\n]*'|\/\/[^\n]*/g, (found) =>
    found.startsWith('//') ? '' : "''",
  );
}

describe('the examples for CI systems', () => {
  it('are all named in this test, and in docs/ci.md', async () => {
    const names = (await readdir(EXAMPLES)).sort();
    expect(names).toEqual(['Jenkinsfile', 'github-actions.yml', 'gitlab-ci.yml', 'tekton.yaml']);
    const text = await readFile(join(ROOT, 'docs/ci.md'), 'utf8');
    for (const name of names) expect(text).toContain(`manifests/ci/${name}`);
  });

  it('GitHub Actions: its own parser finds nothing wrong, and would', async () => {
    const text = await example('github-actions.yml');
    expect(await githubErrors(text)).toEqual([]);
    expect(await githubErrors(text.replace('runs-on:', 'run-on:'))).not.toEqual([]);
    expect(await githubErrors(text.replace('github.base_ref', 'gitub.base_ref'))).not.toEqual([]);
  });

  it("GitLab CI: GitLab's own schema finds nothing wrong, and would", async () => {
    const text = await example('gitlab-ci.yml');
    expect(await gitlabJobs(text)).toEqual(['lock', 'drift', 'bundle']);
    expect(await gitlabJobs(text.replace('artifacts:', 'artefacts:'))).toContain("'artefacts'");
  });

  it('Jenkins: a declarative pipeline with sections that are known, each stage with steps', async () => {
    const text = bare(await example('Jenkinsfile'));
    let depth = 0;
    const tops: string[] = [];
    for (const line of text.split('\n')) {
      const word = /^\s*(\w+)\b/.exec(line)?.[1];
      if (depth === 1 && word !== undefined) tops.push(word);
      depth += line.split('{').length - line.split('}').length;
      expect(depth).toBeGreaterThanOrEqual(0);
    }
    expect(depth).toBe(0);
    expect(text.trimStart().startsWith('pipeline {')).toBe(true);
    expect(tops).toEqual(['agent', 'triggers', 'options', 'environment', 'stages']);
    const stages = text.split(/\bstage\(''\) \{/).slice(1);
    expect(stages).toHaveLength(4);
    for (const stage of stages) expect(stage.match(/\bsteps \{/g)).toHaveLength(1);
  });

  it('name the login of their registry as it is looked for', async () => {
    const prefix = envPrefix('ghcr.io');
    for (const script of (await githubScripts()).filter(({ text }) => /sealift pu(?:sh|ll)/.test(text))) {
      expect(Object.keys(script.env)).toEqual(
        expect.arrayContaining([`${prefix}_USERNAME`, `${prefix}_PASSWORD`]),
      );
    }
    const [, host = ''] = /REGISTRY = '([^']+)'/.exec(await example('Jenkinsfile')) ?? [];
    expect(await example('Jenkinsfile')).toContain(`'${envPrefix(host)}_PASSWORD'`);
  });

  it('put no value of a pull request into a script: it comes by the environment', async () => {
    const github = await githubScripts();
    const gitlab = await gitlabScripts();
    const jenkins = await jenkinsScripts();
    const tekton = await tektonScripts();
    expect([github, gitlab, jenkins, tekton].map((s) => s.length)).toEqual([12, 4, 6, 6]);
    for (const { text } of github) expect(text).not.toContain('${{');
    // Neither reaches what comes from a fork.
    expect(await example('github-actions.yml')).not.toMatch(/vars\.|pull_request_target/);
    // Groovy reads escapes in these texts, and replaces nothing in them.
    for (const { text } of jenkins) expect(text).not.toContain('\\');
    expect(await example('Jenkinsfile')).not.toMatch(/\bsh "/);
    for (const { text } of tekton) expect(text).not.toMatch(/\$\((?:params|workspaces|results|context)\./);
  });
});
