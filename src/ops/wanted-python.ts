import { parseDistribution } from '../core/distribution.ts';
import { digestStream } from '../io/verify.ts';
import type { WantedPython } from '../lock/check-python.ts';
import type { ManifestPython } from '../manifest/python.ts';
import { type RequirementFiles, readRequirementFiles } from '../python/requirement-files.ts';
import { listFiles, openLocal } from '../source/file.ts';

/** Wheels and source archives on this disk: those that are named, and those in folders that are named. */
async function localFiles(root: string, files: RequirementFiles): Promise<WantedPython['local']> {
  const paths = new Set(files.archives);
  for (const folder of files.folders) {
    for (const { below, path } of await listFiles(root, folder)) {
      if (!below.includes('/') && parseDistribution(below) !== undefined) paths.add(path);
    }
  }
  const found: WantedPython['local'][number][] = [];
  for (const path of paths) {
    const { digest } = await digestStream(openLocal(path, { root }));
    found.push({ path, sha256: digest });
  }
  return found;
}

/** What the manifest asks for, with its requirements files read and the wheels that lie beside them hashed. */
export async function readWantedPython(
  python: ManifestPython,
  root: string,
): Promise<{ readonly wanted: WantedPython; readonly files: RequirementFiles }> {
  const files = await readRequirementFiles(root, python);
  const { packages, pythons, platforms, indexes, sdists, position } = python;
  const local = files.faults.length > 0 ? [] : await localFiles(root, files);
  const { requirements, constraints } = files;
  return {
    files,
    wanted: { requirements, constraints, packages, pythons, platforms, indexes, sdists, local, position },
  };
}
