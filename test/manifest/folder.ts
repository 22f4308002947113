import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach } from 'vitest';
import type { SealiftError } from '../../src/core/errors.ts';
import { loadManifest } from '../../src/manifest/load.ts';

const folders: string[] = [];

afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
});

/** Makes a folder with files, gone after the test. */
export async function folderOf(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sealift-manifest-'));
  folders.push(folder);
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  return folder;
}

/** The first lines of every manifest: three, so that what follows starts in line 4. */
export const HEAD = 'apiVersion: sealift/v1\nname: test\nversion: "1"\n';

export type Loaded = Awaited<ReturnType<typeof loadManifest>>;

/** Loads HEAD and `body` as sealift.yaml, with more files beside it. */
export async function load(
  body: string,
  files: Readonly<Record<string, string | Uint8Array>> = {},
): Promise<Loaded> {
  return loadRaw(HEAD + body, files);
}

export async function loadRaw(
  text: string | Uint8Array,
  files: Readonly<Record<string, string | Uint8Array>> = {},
): Promise<Loaded> {
  const folder = await folderOf({ 'sealift.yaml': text, ...files });
  return loadManifest(join(folder, 'sealift.yaml'));
}

export async function errorOf(work: Promise<unknown>): Promise<SealiftError> {
  try {
    await work;
  } catch (error) {
    return error as SealiftError;
  }
  throw new Error('the manifest was accepted');
}

/** `line:column message` of every fault; the file's name only where it is not sealift.yaml. */
export async function faultsOf(work: Promise<unknown>): Promise<string[]> {
  const error = await errorOf(work);
  return error.faults.map((f) => {
    const name = f.position?.file.replace(/^.*\/sealift-manifest-[^/]*\//, '');
    const file = name === 'sealift.yaml' ? '' : `${name}:`;
    return `${file}${f.position?.line}:${f.position?.column} ${f.message.replaceAll(/\/\S*\/sealift-manifest-[^/]*\//g, '')}`;
  });
}
