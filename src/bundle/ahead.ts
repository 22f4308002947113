import { stat } from 'node:fs/promises';
import { threadsFor } from '../io/cores.ts';
import { type Medium, openMedium } from './medium.ts';
import { type Sweep, type SweptRange, startSweep } from './sweep.ts';
import { beginsAsBundle, type Place } from './volumes.ts';

/** A bundle that is being hashed while nothing of it is known yet but its headers. */
export interface Ahead {
  /** Ends the sweep when it is closed. */
  readonly medium: Medium;
  readonly sweep: Sweep;
}

/** What is computed of each entry: BLAKE3, and SHA-256 too where it is asked for. */
interface Wanted {
  readonly sha256: boolean;
}

const threadsOf = (bytes: number, { sha256 }: Wanted): number =>
  threadsFor(bytes, sha256 ? 'sha256' : 'blake3');

/** Begins to hash every entry, in the order of the entries, on as many threads as that is worth. */
export function sweepMedium(medium: Medium, options: Wanted): Sweep {
  const { entries } = medium;
  const at = (index: number): SweptRange | undefined => {
    const entry = entries.at(index);
    // Volumes that lack are not read as zeros.
    return medium.files?.isAbsent(entry.offset, entry.size) === true ? undefined : medium.range(entry);
  };
  const ranges = { length: entries.length, at };
  return startSweep(ranges, { ...options, blake3: true, threads: threadsOf(entries.bytes(), options) });
}

/** Whether there is a bundle in one file for which threads are worth their start. */
async function isLargeBundle(place: Place, options: Wanted): Promise<boolean> {
  try {
    const path = typeof place === 'string' ? place : place.files.get(1);
    if (path === undefined) return false;
    const found = await stat(path);
    const volumes = typeof place === 'string' ? 1 : place.files.size;
    if (!found.isFile() || threadsOf(volumes * found.size, options) === 1) return false;
    return await beginsAsBundle(path);
  } catch {
    // Whoever reads it next says what is wrong with it.
    return false;
  }
}

/** Begins to hash a large bundle; undefined for everything else. Imports little, so that it runs early. */
export async function sweepAhead(place: Place, options: Wanted): Promise<Ahead | undefined> {
  if (!(await isLargeBundle(place, options))) return undefined;
  const medium = await openMedium(place);
  const sweep = sweepMedium(medium, options);
  const close = async (): Promise<void> => {
    await sweep.close();
    await medium.close();
  };
  return { sweep, medium: { ...medium, close } };
}
