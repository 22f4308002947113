import { join, posix } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { type Fault, fault, faultOf, isAbort, type Position } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { kindOf, readFileLimited } from '../io/files.ts';
import { digestOf } from '../io/verify.ts';
import { parseRequirements, type Requirement } from './requirements.ts';

/** A file as it was when it was read. Its path is relative to the manifest, with `/`. */
export interface ReadFile {
  readonly path: string;
  readonly sha256: Digest;
}

/** Everything that requirements and constraints files say, those that they include among them. */
export interface RequirementFiles {
  readonly requirements: readonly ReadFile[];
  readonly constraints: readonly ReadFile[];
  /** By project: the hashes that its files may have. */
  readonly hashes: ReadonlyMap<string, ReadonlySet<Digest>>;
  /** Wheels and source archives on this disk, and folders with such; relative to the manifest. */
  readonly archives: readonly string[];
  readonly folders: readonly string[];
  /** Indexes that they name, in order: what replaces the default first. */
  readonly indexes: readonly { readonly url: string; readonly isExtra: boolean }[];
  readonly faults: readonly Fault[];
}

type Kind = 'requirements' | 'constraints';

interface Asked {
  readonly path: string;
  readonly as: Kind;
  readonly position: Position | undefined;
}

/** What is gathered while files are read one after the other. */
class Gathering {
  readonly files = { requirements: new Map<string, ReadFile>(), constraints: new Map<string, ReadFile>() };
  readonly hashes = new Map<string, Set<Digest>>();
  readonly archives = new Set<string>();
  readonly folders = new Set<string>();
  readonly indexes: { readonly url: string; readonly isExtra: boolean }[] = [];
  readonly faults: Fault[] = [];
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** @returns the files that it includes */
  async read({ path, as, position }: Asked): Promise<Asked[]> {
    const bytes = await readFileLimited(join(this.#root, path), {
      limit: LIMITS.manifestText,
      missing: 'FILE_NOT_FOUND',
      hint: 'paths are relative to the folder of sealift.yaml, in a requirements file to its own',
    }).catch((error: unknown) => {
      if (isAbort(error)) throw error;
      this.faults.push({ ...faultOf(error), ...(position === undefined ? {} : { position }) });
    });
    if (bytes === undefined) return [];
    this.files[as].set(path, { path, sha256: digestOf(bytes) });
    const { requirements, faults } = parseRequirements(bytes.toString('utf8'), path);
    this.faults.push(...faults);
    const included: Asked[] = [];
    for (const requirement of requirements) {
      if (requirement.kind === 'include') {
        const below = posix.join(posix.dirname(path), requirement.path);
        included.push({ path: below, as: as === 'constraints' ? as : requirement.as, position });
      } else await this.add(requirement, path);
    }
    return included;
  }

  async add(requirement: Exclude<Requirement, { kind: 'include' }>, file: string): Promise<void> {
    if (requirement.kind === 'project') {
      const { name, hashes } = requirement;
      if (hashes.length === 0) return;
      const known = this.hashes.get(name) ?? new Set();
      for (const hash of hashes) known.add(hash);
      this.hashes.set(name, known);
    } else if (requirement.kind === 'index') this.indexes.push(requirement);
    else if (requirement.kind === 'path') this.archives.add(posix.normalize(requirement.path));
    else {
      // pip looks beside the file first, then where it was started.
      const beside = posix.join(posix.dirname(file), requirement.path);
      const isBeside = (await kindOf(join(this.#root, beside))) === 'folder';
      this.folders.add(isBeside ? beside : posix.normalize(requirement.path));
    }
  }
}

/**
 * Reads requirements and constraints files, all that they include, and the requirements that stand in the manifest.
 * @returns faults: files that are not there, lines whose content cannot be carried
 */
export async function readRequirementFiles(
  root: string,
  asked: {
    readonly requirements: readonly string[];
    readonly constraints: readonly string[];
    readonly packages: readonly string[];
    readonly packagePositions: readonly Position[];
    readonly position: Position;
  },
): Promise<RequirementFiles> {
  const found = new Gathering(root);
  const { position } = asked;
  const queue: Asked[] = [
    ...asked.requirements.map((path) => ({ path, as: 'requirements' as const, position })),
    ...asked.constraints.map((path) => ({ path, as: 'constraints' as const, position })),
  ];
  const seen = new Set<string>();
  for (const one of queue) {
    const key = `${one.as} ${one.path}`;
    if (seen.has(key)) continue;
    seen.add(key);
    if (seen.size > LIMITS.requirementFiles) {
      const message = `more than ${LIMITS.requirementFiles} requirements files`;
      found.faults.push(fault('CONTENT_TOO_LARGE', message, { position }));
      break;
    }
    queue.push(...(await found.read(one)));
  }
  for (const [i, text] of asked.packages.entries()) {
    const { requirements, faults } = parseRequirements(text, 'sealift.yaml');
    const at = asked.packagePositions[i] ?? position;
    found.faults.push(...faults.map((f) => ({ ...f, position: at })));
    for (const one of requirements) if (one.kind !== 'include') await found.add(one, 'sealift.yaml');
  }
  const { files, hashes, archives, folders, indexes, faults } = found;
  return {
    requirements: [...files.requirements.values()],
    constraints: [...files.constraints.values()],
    hashes,
    archives: [...archives],
    folders: [...folders],
    indexes,
    faults,
  };
}
