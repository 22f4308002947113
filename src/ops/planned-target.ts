import type { Digest } from '../core/digest.ts';
import { type Fault, SealiftError } from '../core/errors.ts';
import {
  type Entry,
  emptyTally,
  type Item,
  newEntry,
  type Target,
  type TargetRun,
} from '../target/target.ts';

/** A repository that is not there yet. */
export interface MissingRepository {
  readonly name: string;
  readonly format: string;
  /** What the server is told. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** @throws AUTH_REQUIRED, AUTH_DENIED, TARGET_FAILED */
  make(): Promise<void>;
}

/** A target before it is planned. */
export interface PlannedTarget {
  readonly target: Target;
  /** Its name in the site's file; absent for one that a flag names. */
  readonly site?: string;
  /** How clients are told to use it: lines for people. */
  readonly use?: readonly string[];
  /** Why nothing can be done there. */
  readonly fault?: Fault;
  /** What the load has to make first. */
  readonly missing?: MissingRepository;
}

/** What would go to a repository that a dry run does not make: everything. */
export function runOfMissing(items: readonly Item[], missing: MissingRepository): TargetRun {
  const told = new Set<Digest>();
  const entries: Entry[] = items.map((item) => {
    const entry = newEntry(item, `${missing.name}: ${item.name}`);
    for (const { descriptor } of item.graph.nodes.values()) {
      if (!told.has(descriptor.digest)) entry.writeBytes += descriptor.size;
      told.add(descriptor.digest);
    }
    return entry;
  });
  const nothing = async (): Promise<void> => {};
  return {
    entries,
    tally: emptyTally(),
    needs: async (isAbsent) => [...told].filter(isAbsent),
    writeBlobs: nothing,
    intake: async () => {
      throw new SealiftError('INTERNAL', `${missing.name} is not there yet`);
    },
    writeManifests: nothing,
    commit: nothing,
    close: nothing,
  };
}
