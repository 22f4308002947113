import { type Finding, finding } from '../finding.ts';
import type { NexusStatus } from './nexus-admin.ts';
import type { WantedRepository } from './nexus-check.ts';

type Version = readonly [number, number, number];

/** Something that versions of Nexus are known for (registry.md 2.1, 2.8). */
interface Known {
  readonly level: 'info' | 'warning';
  readonly from: Version;
  /** The first version without it. */
  readonly until?: Version;
  readonly says: string;
  readonly fix: string;
}

const ALWAYS: Version = [0, 0, 0];

/** What matters to images; helm, raw and PyPI have no such story. */
const OF_IMAGES: readonly Known[] = [
  {
    level: 'warning',
    from: ALWAYS,
    until: [3, 71, 0],
    says: 'OCI content is not supported officially: the task "Docker - Delete unused manifests and images" may delete what was loaded',
    fix: 'update to 3.71 or later, or keep that task from this repository',
  },
  {
    level: 'warning',
    from: [3, 77, 0],
    until: [3, 77, 2],
    says: 'plain HTTP connectors tell a wrong token server ("null://…"): Sealift copes, containerd and docker may not',
    fix: 'update to 3.77.2 or later (nexus-public #565)',
  },
  {
    level: 'info',
    from: [3, 82, 0],
    says: 'where redeploying is disabled, two uploads of one layer at a time fail: Sealift sends each once, other clients beside it may be hit',
    fix: 'nothing to do for the load (nexus-public #967)',
  },
  {
    level: 'info',
    from: [3, 96, 0],
    until: [3, 97, 0],
    says: 'asking for a manifest by its digest (HEAD) may fail with HTTP 500: Sealift asks by GET then',
    fix: 'nothing to do for the load (nexus-public #1059)',
  },
];

function parse(text: string): Version | undefined {
  const found = /^(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?/.exec(text);
  return found === null ? undefined : [Number(found[1]), Number(found[2]), Number(found[3] ?? 0)];
}

/** Whether `a` is before `b`. */
function isBefore(a: Version, b: Version): boolean {
  for (const i of [0, 1, 2] as const) if (a[i] !== b[i]) return a[i] < b[i];
  return false;
}

/** What is known of this version and edition. */
export function versionFindings(status: NexusStatus, wanted: readonly WantedRepository[]): Finding[] {
  const version = status.version === undefined ? undefined : parse(status.version);
  if (version === undefined) return [];
  const hasImages = wanted.some(({ format }) => format === 'docker' || format === 'oci');
  const found = (hasImages ? OF_IMAGES : [])
    .filter(
      ({ from, until }) => !isBefore(version, from) && (until === undefined || isBefore(version, until)),
    )
    .map(({ level, says, fix }) =>
      finding(level, 'VERSION_BUG', { message: `Nexus ${status.version}: ${says}`, fix }),
    );
  if (status.edition?.toUpperCase() === 'COMMUNITY') {
    found.push(
      finding('info', 'LIMITS', {
        message:
          'the Community Edition limits components and requests a day; above them it takes no new components',
        fix: 'Administration, System, Usage shows how much is left',
      }),
    );
  }
  return found;
}
