import { mkdir, writeFile } from 'node:fs/promises';

/** Writes `site.yaml` with these targets, each the inside of a YAML map, into a new folder. @returns its path */
export async function writeSite(dir: string, targets: readonly string[]): Promise<string> {
  await mkdir(dir);
  const path = `${dir}/site.yaml`;
  const lines = targets.map((target) => `  - {${target}}\n`);
  await writeFile(path, `apiVersion: sealift-site/v1\ntargets:\n${lines.join('')}`);
  return path;
}
