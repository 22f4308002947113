/** Plans and loads against the fake containerd, for the tests of the containerd target. */
import type { Descriptor } from '../../src/core/descriptor.ts';
import { containerdTargets } from '../../src/target/containerd/target.ts';
import type { Item, TargetRun } from '../../src/target/target.ts';
import type { Fake } from './containerd-fake.ts';
import type { Store, TestContext } from './containerd-fixture.ts';

export interface Bench {
  readonly fake: Fake;
  readonly store: Store;
  readonly context: TestContext;
}

export interface LoadOptions {
  readonly namespace?: string;
  readonly pin?: boolean;
}

export async function planOn(
  { fake, store, context }: Bench,
  items: readonly Item[],
  { namespace = 'k8s.io', pin = false }: LoadOptions = {},
): Promise<TargetRun> {
  const [target] = containerdTargets({ socket: fake.socket, namespaces: [namespace], pin });
  if (target === undefined) throw new Error('no target');
  return target.plan(items, { context, source: store.reader });
}

/** All stages, and the end in any case. */
export async function loadOn(
  bench: Bench,
  items: readonly Item[],
  options: LoadOptions = {},
): Promise<TargetRun> {
  const run = await planOn(bench, items, options);
  try {
    await run.writeBlobs();
    await run.writeManifests();
    await run.commit();
  } finally {
    await run.close();
  }
  return run;
}

/** Each entry's fault, or its state where it has none. */
export const stateOf = (run: TargetRun): unknown => run.entries.map((e) => e.fault ?? e.state);

export function firstLayer(item: Item): Descriptor {
  const layer = [...item.graph.nodes.values()].find((n) => n.kind === 'blob');
  if (layer === undefined) throw new Error('no layer');
  return layer.descriptor;
}

/** The name of the ingest of an item's first layer. */
export const refOf = (item: Item): string => `layer-${firstLayer(item).digest}`;

/** A text field of a request, without `sha256:`. */
export function textIn(values: readonly unknown[] | undefined): string {
  const value = values?.[0];
  return (value instanceof Uint8Array ? Buffer.from(value).toString() : '').replace('sha256:', '');
}
