import type { PythonLock } from '../lock/schema.ts';
import { compareBytes } from '../lock/write.ts';

/**
 * The locked packages as a requirements file for `pip install --require-hashes -r`: each project in its one version, where
 * it is wanted, with the SHA-256 of each of its files. Projects and hashes are sorted; the same lock gives the same text. A
 * project of which no file is carried has no line: none of the lock's targets wants it.
 * Shapes: the requirements file format of pip, `name==version ; marker \` with `--hash=sha256:<hex>` on lines of their own.
 */
export function requirementsText(python: Pick<PythonLock, 'pins' | 'files'>): string {
  const hashes = new Map<string, Set<string>>();
  for (const { name, version, sha256 } of python.files) {
    const key = `${name}==${version}`;
    hashes.set(key, (hashes.get(key) ?? new Set()).add(`--hash=${sha256}`));
  }
  const entries = python.pins.flatMap(({ name, version, marker }) => {
    const found = hashes.get(`${name}==${version}`);
    if (found === undefined) return [];
    const head = `${name}==${version}${marker === undefined ? '' : ` ; ${marker}`}`;
    return [[head, ...[...found].sort(compareBytes)].join(' \\\n    ')];
  });
  return entries
    .sort(compareBytes)
    .map((entry) => `${entry}\n`)
    .join('');
}
