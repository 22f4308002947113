import type { Item, Target } from '../target/target.ts';

/** Things of one kind that no target of a load takes. */
export interface ForNone {
  readonly kind: Item['kind'];
  readonly count: number;
}

const KINDS = ['image', 'chart', 'file', 'package'] as const;

/** What no target takes, by kind. */
export function forNone(items: readonly Item[], targets: readonly Pick<Target, 'accepts'>[]): ForNone[] {
  const left = items.filter((item) => !targets.some((target) => target.accepts(item)));
  return KINDS.flatMap((kind) => {
    const count = left.filter((item) => item.kind === kind).length;
    return count === 0 ? [] : [{ kind, count }];
  });
}
