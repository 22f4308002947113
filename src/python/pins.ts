import type { PythonTarget } from '../core/python-target.ts';

/** What a marker can tell apart: version and machine, not the C library. */
function environmentOf({ python, platform }: PythonTarget): string {
  return `${python} ${platform.machine}`;
}

function anyOf(variable: string, values: readonly string[]): string {
  const all = values.map((value) => `${variable} == "${value}"`);
  return all.length === 1 ? all.join('') : `(${all.join(' or ')})`;
}

/**
 * The marker that is true on `some` of `all` targets and on no other of them (PEP 508); undefined where that is all.
 * @param some not empty
 */
export function markerFor(some: readonly PythonTarget[], all: readonly PythonTarget[]): string | undefined {
  const environments = (targets: readonly PythonTarget[]): Set<string> => new Set(targets.map(environmentOf));
  const wanted = environments(some);
  if (wanted.size === environments(all).size) return undefined;
  const pythonsOf = (list: readonly PythonTarget[]): string[] => [...new Set(list.map((t) => t.python))];
  const machines = [...new Set(some.map((t) => t.platform.machine))];
  const byMachine = machines.map((machine) => ({
    machine,
    pythons: pythonsOf(some.filter((t) => t.platform.machine === machine)),
    every: pythonsOf(all.filter((t) => t.platform.machine === machine)),
  }));
  const allMachines = new Set(all.map((t) => t.platform.machine)).size;
  const [first] = byMachine;
  const isEven =
    machines.length === allMachines && byMachine.every((m) => m.pythons.join() === first?.pythons.join());
  if (isEven && first !== undefined)
    return anyOf('python_version', first.pythons).replace(/^\((.*)\)$/, '$1');
  const parts = byMachine.map(({ machine, pythons, every }) => {
    const on = `platform_machine == "${machine}"`;
    return pythons.length === every.length ? on : `${on} and ${anyOf('python_version', pythons)}`;
  });
  return parts.join(' or ');
}

/** A project's version, and the targets that want it. */
export interface PinnedTargets<T> {
  readonly pin: T;
  readonly targets: readonly PythonTarget[];
}

/** Unites the pins of all targets: each name and version once, with the targets that want it. */
export function unitePins<T extends { readonly name: string; readonly version: string }>(
  pins: readonly (readonly T[])[],
  targets: readonly PythonTarget[],
): PinnedTargets<T>[] {
  const united = new Map<string, { pin: T; targets: PythonTarget[] }>();
  for (const [i, target] of targets.entries()) {
    for (const pin of pins[i] ?? []) {
      const key = `${pin.name} ${pin.version}`;
      const known = united.get(key);
      if (known === undefined) united.set(key, { pin, targets: [target] });
      else known.targets.push(target);
    }
  }
  return [...united.values()];
}

/** Pins of one project that no marker can tell apart: the same Python on the same machine wants both. */
export function clashingPins<T extends { readonly name: string; readonly version: string }>(
  united: readonly PinnedTargets<T>[],
): { readonly name: string; readonly versions: readonly string[]; readonly environment: string }[] {
  const seen = new Map<string, { name: string; versions: Set<string>; environment: string }>();
  for (const { pin, targets } of united) {
    for (const target of targets) {
      const environment = environmentOf(target);
      const key = `${pin.name} ${environment}`;
      const known = seen.get(key) ?? { name: pin.name, versions: new Set(), environment };
      known.versions.add(pin.version);
      seen.set(key, known);
    }
  }
  return [...seen.values()]
    .filter(({ versions }) => versions.size > 1)
    .map((clash) => ({ ...clash, versions: [...clash.versions] }));
}
