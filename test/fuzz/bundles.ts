/** Bundles of which something is wrong, each in its own way. */
import type { Packed } from '../bundle/site.ts';
import { joined, type Part, partsOf } from '../bundle/tar-parts.ts';
import { changeBytes } from './bytes.ts';
import { type Chance, NAMES, NUMBERS } from './chance.ts';
import { changeDocument, changeJson, hostileValue } from './json.ts';
import {
  copyOf,
  lockText,
  type Model,
  manifestsOf,
  modelOf,
  partsOfModel,
  plainLock,
  replaceBlob,
} from './model.ts';
import { changeParts, tarOfParts } from './tars.ts';

/** A bundle to begin with, in three forms. */
export interface Origin {
  readonly bytes: Buffer;
  readonly parts: readonly Part[];
  readonly model: Model;
}

export function originOf(packed: Packed): Origin {
  return { bytes: packed.bytes, parts: partsOf(packed), model: modelOf(packed) };
}

/** A line of a lock with something else in it. */
function changeLine(line: string, chance: Chance): string {
  const key = /^\s*(?:- )?[\w"]+:/.exec(line)?.[0] ?? '';
  const makers: (() => string)[] = [
    () => `${key} ${JSON.stringify(chance.of(NAMES))}`,
    () => `${key} ${chance.of(NUMBERS)}`,
    () =>
      `${key} ${chance.of(['null', 'true', '[]', '{}', '*a', '&a 1', '!!js x', '|', '>', "'x'", '"', '"\\', '{a: 1}', '~'])}`,
    () => `  ${line}`,
    () => line.trimStart(),
    () => `\t${line}`,
    () => `${line} # x`,
    () => `${line}\r`,
    () => changeBytes(Buffer.from(line), chance).toString('latin1'),
    () => `${line.split(':', 1)[0]}: "${'x'.repeat(chance.of([300, 5000, 70_000]))}"`,
    () =>
      line.replace(/[0-9a-f]{64}/, (hex) =>
        chance.of([hex.toUpperCase(), hex.slice(1), `${hex}0`, '0'.repeat(64)]),
      ),
    () => line.replace(/\d+$/, (n) => String(Number(n) + chance.of([-1, 1, 512]))),
    () =>
      `${chance.of(['__proto__', 'constructor', '"\\u0000"', '? a', '- - - a', '---', '...', '%YAML 1.2'])}: ${key}`,
  ];
  return chance.of(makers)();
}

function changeLockText(bytes: Buffer, chance: Chance): Buffer {
  const lines = bytes.toString().split('\n');
  for (let left = 1 + chance.below(3); left > 0; left -= 1) {
    const at = chance.below(lines.length);
    const line = lines[at] ?? '';
    switch (chance.of(['change', 'change', 'change', 'remove', 'twice', 'move', 'many'] as const)) {
      case 'change':
        lines[at] = changeLine(line, chance);
        break;
      case 'remove':
        lines.splice(at, 1);
        break;
      case 'twice':
        lines.splice(at, 0, line);
        break;
      case 'move':
        lines.splice(chance.below(lines.length), 0, ...lines.splice(at, 1 + chance.below(6)));
        break;
      case 'many':
        lines.splice(at, 0, ...Array.from({ length: 300 }, () => line));
    }
  }
  return Buffer.from(lines.join('\n'));
}

/** The lock's own facts changed and written as a lock is written, where that can be. */
function changeLockFacts(bytes: Buffer, chance: Chance): Buffer {
  try {
    return lockText(changeJson(plainLock(bytes), chance));
  } catch (error) {
    // Not every value has a place in a lock's text.
    if (error instanceof Error) return changeLockText(bytes, chance);
    throw error;
  }
}

/** Changes content; all lists and digests above it are made anew. */
function changeModel(model: Model, chance: Chance): Model {
  const made = copyOf(model);
  const digest = chance.of([...(chance.once(5) ? made.blobs.keys() : manifestsOf(made))]);
  const bytes = made.blobs.get(digest)?.bytes ?? Buffer.alloc(0);
  const makers: (() => void)[] = [
    () => replaceBlob(made, digest, changeDocument(bytes, chance)),
    () => replaceBlob(made, digest, changeDocument(bytes, chance)),
    () => replaceBlob(made, digest, changeDocument(bytes, chance)),
    () => replaceBlob(made, digest, changeBytes(bytes, chance)),
    () => replaceBlob(made, digest, made.blobs.get(chance.of([...made.blobs.keys()]))?.bytes ?? bytes),
    () => {
      made.lock = changeLockFacts(made.lock, chance);
    },
    () => {
      made.lock = changeLockText(made.lock, chance);
    },
    () => {
      made.index = changeDocument(made.index, chance);
    },
    () => {
      made.info = changeInfo(made.info, chance);
    },
    () => {
      made.blobs.delete(digest);
    },
    () => {
      made.blobs.set(digest, { bytes, rank: chance.below(3) });
    },
  ];
  chance.of(makers)();
  return made;
}

/** `sealift.json` with one hostile value, its form kept where it can be. */
function changeInfo(info: Buffer, chance: Chance): Buffer {
  if (chance.once(3)) return changeDocument(info, chance);
  const lines = info.toString().split('\n');
  const at = 1 + chance.below(Math.max(1, lines.length - 3));
  const value = hostileValue(chance);
  lines[at] = (lines[at] ?? '').replace(
    /: .*?(,?)$/,
    (_, comma: string) => `: ${JSON.stringify(value)}${comma}`,
  );
  return Buffer.from(lines.join('\n'));
}

/** Entries of two bundles in one. */
function mixed(a: readonly Part[], b: readonly Part[], chance: Chance): Part[] {
  if (chance.once(2))
    return a.map((part) => (chance.once(4) ? (b.find((p) => p.name === part.name) ?? part) : part));
  const at = chance.below(Math.min(a.length, b.length));
  return [...a.slice(0, at), ...b.slice(at)];
}

/** A tar that is a bundle no more, or another one. */
export function hostileBundle(origins: readonly Origin[], chance: Chance): Buffer {
  const { bytes, parts, model } = chance.of(origins);
  switch (chance.of(['bytes', 'parts', 'parts', 'model', 'model', 'model', 'both', 'mixed'] as const)) {
    case 'bytes':
      return changeBytes(chance.once(3) ? changeBytes(bytes, chance) : bytes, chance);
    case 'parts':
      return tarOfParts(changeParts(parts, chance), chance);
    case 'model':
      return joined(partsOfModel(changeModel(model, chance)));
    case 'both':
      return tarOfParts(changeParts(partsOfModel(changeModel(model, chance)), chance), chance);
    case 'mixed':
      return joined(mixed(parts, chance.of(origins).parts, chance));
  }
}

/** The entries of a bundle whose content is another one. */
export function hostileContent({ model }: Origin, chance: Chance): Part[] {
  return partsOfModel(changeModel(model, chance));
}
