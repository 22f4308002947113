import type { Digest } from '../core/digest.ts';
import { type Fault, faultOf, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { Addition, Item } from './target.ts';

/** What a load added to a target, as its receipt says. */
export interface AddedItem {
  readonly kind: Item['kind'];
  readonly name: string;
  readonly as: string;
  /** What must be there under its names: anything else is somebody else's. */
  readonly content: Digest;
  readonly added: Addition;
}

/** What happens, or happened, to it. */
export interface Removal {
  readonly item: AddedItem;
  /**
   * `remove`: would be taken back. `removed`: was. `gone`: is not there any more. `changed`: something else is there, and
   * stays. `kept`: a later load counts on it. `failed`: see `fault`.
   */
  state: 'remove' | 'removed' | 'gone' | 'changed' | 'kept' | 'failed';
  fault?: Fault;
  readonly notes: string[];
}

export interface RemoveOptions {
  readonly context: Context;
  /** Ask only. */
  readonly dryRun: boolean;
  /** Content that later loads count on, under whatever name; default none. */
  readonly counted?: ReadonlySet<Digest>;
}

/** One item's work; what goes wrong with it is its own failure. Being stopped, bugs and a target that is gone are thrown on. */
export async function removing(
  item: AddedItem,
  work: (removal: Removal) => Promise<Removal['state']>,
): Promise<Removal> {
  const removal: Removal = { item, state: 'remove', notes: [] };
  try {
    removal.state = await work(removal);
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError) || error.code === 'TARGET_UNREACHABLE')
      throw error;
    removal.state = 'failed';
    removal.fault = faultOf(error);
  }
  return removal;
}
