import { type Fault, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { type Finding, finding, findingOf, someOf, type TargetReport } from '../target/finding.ts';
import { onDisk } from '../target/space.ts';
import { type LoadedEntry, type LoadedTarget, load } from './load.ts';
import type { SiteCheckOptions } from './site-check.ts';

/** What a load of a bundle would write, by the name of the target in the site's file. */
export type SitePlan = ReadonlyMap<string, readonly LoadedTarget[]>;

/**
 * Plans the load of a bundle into the targets of a site; writes nothing.
 * @throws faults of the bundle and of the site's file
 */
export async function sitePlan(
  options: SiteCheckOptions & { readonly bundle: string },
  context: Context,
): Promise<SitePlan> {
  const { targets } = await load({ ...options, dryRun: true, allowDowngrade: true }, context);
  const plan = new Map<string, LoadedTarget[]>();
  for (const target of targets) {
    if (target.site === null) continue;
    plan.set(target.site, [...(plan.get(target.site) ?? []), target]);
  }
  return plan;
}

function faultFinding(fault: Fault): Finding {
  return findingOf(
    new SealiftError(fault.code, fault.message, fault.hint === undefined ? {} : { hint: fault.hint }),
  );
}

/** What would go wrong with single items, one finding for each code. */
function entryFindings(entries: readonly LoadedEntry[]): Finding[] {
  const byCode = new Map<Fault['code'], LoadedEntry[]>();
  for (const entry of entries) {
    const { fault } = entry;
    if (fault !== null) byCode.set(fault.code, [...(byCode.get(fault.code) ?? []), entry]);
  }
  return [...byCode].map(([code, failed]) => {
    const names = failed.map((entry) => entry.name);
    const what = `${names.length === 1 ? '1 item' : `${names.length} items`} would fail: ${someOf(names)}`;
    const hint = failed[0]?.fault?.hint;
    return finding('warning', code, {
      message: failed.length === 1 ? (failed[0]?.fault?.message ?? what) : what,
      ...(hint === undefined ? {} : { fix: hint }),
      details: {
        items: failed.slice(0, 1000).map((entry) => ({ name: entry.name, as: entry.as, found: entry.found })),
      },
    });
  });
}

/** What the plan says about one target: its own faults, items that would fail, and the space. */
export function planFindings(
  plan: SitePlan,
  about: { readonly name: string; readonly report: TargetReport },
): Finding[] {
  const targets = plan.get(about.name) ?? [];
  const { findings, room } = about.report;
  const known = new Set(findings.filter((f) => f.level === 'fault').map((f) => f.message));
  const hasFault = known.size > 0;
  const faults = targets.flatMap(({ fault }) => (fault === null ? [] : [fault]));
  // What the check found says more than what the plan stumbled over.
  const told = hasFault ? [] : [...new Map(faults.map((f) => [f.message, faultFinding(f)])).values()];
  const entries = targets.flatMap((target) => target.entries);
  const write = entries.filter((entry) => entry.state === 'write');
  const need = write.reduce((sum, entry) => sum + onDisk(entry.writeBytes), 0);
  const there = entries.filter((entry) => entry.state === 'present').length;
  const what = `the bundle would write ${write.length} items (${need} bytes); ${there} are there`;
  const isFull = faults.some(({ code }) => code === 'DISK_FULL');
  const space: Finding[] = [];
  if (targets.length === 0) {
    space.push(finding('info', 'SPACE', { message: 'nothing in the bundle is for this target' }));
  } else if (room !== undefined && need > room.free && !isFull) {
    const message = `${what}; ${room.free} are free at ${room.where}: ${need - room.free} too few`;
    const fix = 'make room there, or load part of it with --only';
    space.push(finding('fault', 'DISK_FULL', { message, fix, details: { need, free: room.free } }));
  } else if (!isFull) {
    const free =
      room === undefined ? 'the space there is not told' : `${room.free} are free at ${room.where}`;
    space.push(
      finding('ok', 'SPACE', { message: `${what}; ${free}`, details: { need, free: room?.free ?? null } }),
    );
  }
  return [...told, ...entryFindings(entries), ...space];
}
