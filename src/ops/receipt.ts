import { rm } from 'node:fs/promises';
import { SealiftError } from '../core/errors.ts';
import { besidePath, kindOf, writeFileAtomic } from '../io/files.ts';

/** The receipt is written last: a place where it cannot be is told before anything is loaded. */
export async function refuseUnwritable(path: string, bundle: string): Promise<void> {
  const kind = await kindOf(path);
  if (path === bundle || (kind !== undefined && kind !== 'file')) {
    const what = path === bundle ? 'the bundle' : 'a folder';
    throw new SealiftError('USAGE', `--receipt: ${path} is ${what}`, {
      hint: 'name a new file for the receipt',
    });
  }
  const probe = besidePath(path);
  await writeFileAtomic(probe, '');
  await rm(probe, { force: true });
}

/** Writes what a load did, as JSON. */
export async function writeReceipt(path: string, result: object): Promise<void> {
  await writeFileAtomic(
    path,
    `${JSON.stringify({ schemaVersion: 1, kind: 'receipt', ...result }, null, 2)}\n`,
  );
}
