import { type Fault, fault } from '../core/errors.ts';
import { spaceOf } from '../io/files.ts';
import type { SpaceNeed } from '../target/space.ts';
import type { Target, TargetRun } from '../target/target.ts';

/** A planned target. */
interface Planned {
  readonly target: Target;
  readonly run?: TargetRun;
  readonly fault?: Fault;
}

interface Disk<T> {
  readonly folder: string;
  readonly free: number;
  readonly needs: SpaceNeed[];
  readonly targets: T[];
}

/** Who writes to which file system; two folders may be on one. */
async function disksOf<T extends Planned>(planned: readonly T[]): Promise<Disk<T>[]> {
  const disks = new Map<number, Disk<T>>();
  for (const one of planned) {
    const need = one.fault === undefined ? one.run?.space?.() : undefined;
    if (need === undefined || need.atMost === 0) continue;
    const { device, free } = await spaceOf(need.folder);
    const disk = disks.get(device) ?? { folder: need.folder, free, needs: [], targets: [] };
    disk.needs.push(need);
    disk.targets.push(one);
    disks.set(device, disk);
  }
  return [...disks.values()];
}

/**
 * Looks whether what is planned has room, for each file system that is written to: all that is written there counts
 * together. Registries cannot be asked; containerd's target warns by itself.
 * @returns each target whose disk has too little room, with the fault DISK_FULL that says how much is missing
 */
export async function tooLittleSpace<T extends Planned>(planned: readonly T[]): Promise<[T, Fault][]> {
  const found: [T, Fault][] = [];
  for (const { folder, free, needs, targets } of await disksOf(planned)) {
    if (needs.reduce((sum, need) => sum + need.atMost, 0) <= free) continue;
    let need = 0;
    for (const each of needs) need += await each.exact();
    if (need <= free) continue;
    const message = `${folder}: ${need} bytes are needed, ${free} are free: ${need - free} too few`;
    const hint = 'free some space there, or give a folder on another disk; nothing was written';
    const full = fault('DISK_FULL', message, { hint, details: { need, free } });
    for (const one of targets) found.push([one, full]);
  }
  return found;
}
