import { KIB } from '../core/limits.ts';

/** What a target will write on a disk of this machine. */
export interface SpaceNeed {
  /** On its file system; it need not be there yet. */
  readonly folder: string;
  /** Bytes that are surely enough, known without any reading. */
  readonly atMost: number;
  /** Bytes that are needed; asked for only where `atMost` are not free. */
  exact(): Promise<number>;
}

/** Disks give out whole blocks, mostly of this size; a file's name and its folder take a block too, now and then. */
const BLOCK = 4 * KIB;

/** Bytes that a file takes up on a disk. */
export function onDisk(size: number): number {
  return Math.ceil(size / BLOCK) * BLOCK;
}
