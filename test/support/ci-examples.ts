/** The shell commands that stand in manifests/ci/, with the environment that each one is given. */
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parse, parseAllDocuments } from 'yaml';

export const EXAMPLES = resolve(import.meta.dirname, '../../manifests/ci');

/** One script of a CI system. */
export interface Script {
  /** The job or task that it stands in: scripts of one job run in one folder. */
  readonly job: string;
  readonly text: string;
  /** As the system starts its shell. */
  readonly shell: readonly string[];
  /** Names that the system sets for it, with the value where the file has one. */
  readonly env: Readonly<Record<string, string>>;
}

type Json = Readonly<Record<string, unknown>>;

function objectOf(value: unknown): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return {};
  return { ...value };
}

function listOf(value: unknown): readonly Json[] {
  return Array.isArray(value) ? value.map(objectOf) : [];
}

function texts(value: unknown): Record<string, string> {
  return Object.fromEntries(Object.entries(objectOf(value)).map(([name, text]) => [name, String(text)]));
}

export function example(name: string): Promise<string> {
  return readFile(join(EXAMPLES, name), 'utf8');
}

/** `run` of each step. GitHub starts `shell: bash` so. */
export async function githubScripts(): Promise<Script[]> {
  const file = objectOf(parse(await example('github-actions.yml')));
  const shell = ['bash', '--noprofile', '--norc', '-eo', 'pipefail', '-c'];
  return Object.entries(objectOf(file.jobs)).flatMap(([job, body]) => {
    const { steps, env } = objectOf(body);
    return listOf(steps).flatMap((step): Script[] => {
      if (typeof step.run !== 'string') return [];
      return [{ job, text: step.run, shell, env: { ...texts(file.env), ...texts(env), ...texts(step.env) } }];
    });
  });
}

/** GitLab runs `before_script` and `script` of a job in one shell, `after_script` in another one. */
export async function gitlabScripts(): Promise<Script[]> {
  const { default: common, variables, ...rest } = objectOf(parse(await example('gitlab-ci.yml')));
  const lines = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);
  const before = lines(objectOf(common).before_script);
  return Object.entries(rest).flatMap(([job, body]): Script[] => {
    const script = lines(objectOf(body).script);
    if (script.length === 0) return [];
    const after = lines(objectOf(body).after_script);
    return [[...before, ...script], after]
      .filter((part) => part.length > 0)
      .map((part) => ({
        job,
        text: part.join('\n'),
        shell: ['bash', '-eo', 'pipefail', '-c'],
        env: texts(variables),
      }));
  });
}

/** `sh '…'` and `sh '''…'''` of a Jenkinsfile; the shell is Jenkins' own default. */
export async function jenkinsScripts(): Promise<Script[]> {
  const text = await example('Jenkinsfile');
  const block = /environment \{([\s\S]*?)\n {2}\}/.exec(text)?.[1] ?? '';
  const env = Object.fromEntries(
    [...block.matchAll(/^\s*(\w+) = '([^']*)'$/gm)].map((m) => [m[1] ?? '', m[2] ?? '']),
  );
  const scripts: Script[] = [];
  let job = '';
  for (const [, stage, long, short] of text.matchAll(
    /stage\('([^']+)'\)|\bsh (?:'''([\s\S]*?)'''|'([^'\n]*)')/g,
  )) {
    if (stage !== undefined) job = stage;
    else scripts.push({ job, text: long ?? short ?? '', shell: ['/bin/sh', '-xec'], env });
  }
  return scripts;
}

/** The resources of the Tekton example. */
export async function tektonResources(): Promise<Json[]> {
  return parseAllDocuments(await example('tekton.yaml')).map((document) => objectOf(document.toJS()));
}

/** `script` of each step; all steps of a task share the workspace. */
export async function tektonScripts(): Promise<Script[]> {
  return (await tektonResources()).flatMap(({ metadata, spec }) =>
    listOf(objectOf(spec).steps).map((step) => ({
      job: String(objectOf(metadata).name),
      text: String(step.script),
      shell: ['/bin/sh', '-c'],
      env: Object.fromEntries(listOf(step.env).map(({ name, value }) => [String(name), String(value)])),
    })),
  );
}
