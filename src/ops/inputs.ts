import { realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type Place, placesOf } from '../bundle/volumes.ts';
import { SealiftError } from '../core/errors.ts';

/** Where a name stands, its folder without links. What is written appears by a rename: a link of that name is replaced. */
async function standsAt(path: string): Promise<string> {
  const folder = await realpath(dirname(path)).catch(() => dirname(path));
  return join(folder, basename(path));
}

function filesOf(place: Place): readonly string[] {
  return typeof place === 'string' ? [place] : [...place.files.values()];
}

/**
 * Refuses to write a file where a bundle lies that is read, one of its volumes, or inside its folder: what is given is never
 * changed.
 * @param about.path absolute
 * @param about.inputs absolute paths as they were given
 * @param about.what how the path is called
 * @throws USAGE
 */
export async function refuseInput(about: {
  readonly path: string;
  readonly inputs: readonly (string | Place)[];
  readonly what: string;
}): Promise<void> {
  const { path, inputs, what } = about;
  const at = await standsAt(path);
  for (const input of inputs) {
    const places = typeof input === 'string' ? await placesOf([input]) : [input];
    for (const file of places.flatMap(filesOf)) {
      const names = [await standsAt(file), await realpath(file).catch(() => file)];
      if (!names.some((name) => at === name || at.startsWith(`${name}/`))) continue;
      throw new SealiftError('USAGE', `${what}: ${path} is the bundle that is read, or inside it`, {
        hint: 'name a new file: a bundle that is given is never changed',
      });
    }
  }
}
