import { type Finding, finding, someOf } from '../finding.ts';
import type { Lack } from './completeness.ts';
import { type ContainerdState, sharingOf } from './inspect.ts';
import { CRI_PINNED, LEASE_OF_LOAD } from './labels.ts';
import { KUBELET_NAMESPACE, type Stray } from './strays.ts';

/** What findings say about the target itself. */
export interface SiteWords {
  readonly namespace: string;
  /** Of the target in site.yaml, fit for a shell: what `site fix` is told. */
  readonly target: string;
}

/** Names and digests that the details of one finding list. */
const LISTED = 1000;

/** Whether kubelet reads this namespace. */
function isKubelets({ namespace }: SiteWords): boolean {
  return namespace === KUBELET_NAMESPACE;
}

const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;

/** CRI's own records name the config, and stand for a name that is told already. */
const isNamed = (name: string): boolean => !name.startsWith('sha256:');

function incomplete(lacks: readonly Lack[], { namespace }: SiteWords): Finding[] {
  const bad = lacks.filter((l) => isNamed(l.record.name));
  const broken = bad.filter((l) => l.manifests.length + l.layers.length > 0 || l.unreadable !== undefined);
  const found: Finding[] = [];
  if (broken.length > 0) {
    const names = broken.map((l) => l.record.name);
    const what = `${count(names.length, 'image')} of ${namespace} cannot be started, because content is not there`;
    found.push(
      finding('warning', 'IMAGES_INCOMPLETE', {
        message: `${what}: ${someOf(names)}`,
        fix: 'load a bundle that has them once more: `sealift load BUNDLE --only NAME` sends only what is not there',
        details: {
          images: broken.slice(0, LISTED).map(({ record, manifests, layers, unreadable }) => ({
            name: record.name,
            manifests,
            layers,
            ...(unreadable === undefined ? {} : { unreadable }),
          })),
        },
      }),
    );
  }
  const discarded = bad.filter((l) => l.discarded.length > 0);
  if (discarded.length > 0) {
    const names = discarded.map((l) => l.record.name);
    const message = `${count(names.length, 'image')} can run but not be copied from here, because containerd discarded layers after it unpacked them: ${someOf(names)}`;
    const fix = "discard_unpacked_layers = false in the CRI part of containerd's config.toml keeps them";
    found.push(
      finding('info', 'LAYERS_DISCARDED', { message, fix, details: { images: names.slice(0, LISTED) } }),
    );
  }
  const foreign = bad.filter((l) => l.isForeign).map((l) => l.record.name);
  if (foreign.length > 0) {
    const message = `${count(foreign.length, 'image')} have nothing for the platform of this machine: ${someOf(foreign)}`;
    found.push(
      finding('info', 'IMAGE_PLATFORM_MISSING', { message, details: { images: foreign.slice(0, LISTED) } }),
    );
  }
  return found;
}

/** Digests of the images that a container was made of. */
function usedDigests(state: ContainerdState): ReadonlySet<string> {
  const byName = new Map(state.records.map((record) => [record.name, record.target.digest]));
  return new Set((state.containers ?? []).flatMap(({ image }) => byName.get(image) ?? []));
}

/** What kubelet's image collection may take: it never takes pinned images nor those of a container (registry.md 3.5). */
function collectable(state: ContainerdState, place: SiteWords): Finding[] {
  const used = usedDigests(state);
  const [label, value] = CRI_PINNED;
  const pinned = new Set(
    state.records.filter((r) => r.labels.get(label) === value).map((r) => r.target.digest),
  );
  const free = state.records.filter(
    ({ name, target }) => isNamed(name) && !used.has(target.digest) && !pinned.has(target.digest),
  );
  // A name with a tag says more to a person than the one with the digest of the same image.
  const tagged = new Set(free.filter((r) => !r.name.includes('@')).map((r) => r.target.digest));
  const names = free.filter((r) => !r.name.includes('@') || !tagged.has(r.target.digest)).map((r) => r.name);
  if (names.length === 0) return [];
  const unknown = state.containers === undefined ? ' (which of them containers use is not told)' : '';
  return [
    finding('warning', 'IMAGES_UNPINNED', {
      message: `kubelet may delete ${count(names.length, 'image')} when the disk fills up: they are not pinned and no container uses them${unknown}: ${someOf(names)}`,
      fix: `sealift site fix --target ${place.target} --pin --yes`,
      details: { images: names.slice(0, LISTED) },
    }),
  ];
}

/** The image that every pod begins with. Without it no pod starts where there is no network. */
function sandbox(state: ContainerdState): Finding[] {
  const { sandboxImage, cri, namespace } = state;
  if (cri === 'absent') {
    const message =
      'this containerd has no CRI: no kubelet works with it, or a program of its own stands between';
    return [finding('info', 'CRI_ABSENT', { message })];
  }
  if (sandboxImage !== undefined) {
    const isThere = state.records.some(({ name }) => name === sandboxImage);
    if (isThere)
      return [finding('ok', 'SANDBOX_IMAGE', { message: `the sandbox image ${sandboxImage} is there` })];
    return [
      finding('warning', 'SANDBOX_IMAGE', {
        message: `the sandbox image ${sandboxImage}, with which every pod begins, is not in ${namespace}`,
        fix: `add ${sandboxImage} to the images of sealift.yaml, or name one that is there as sandbox_image in containerd's config.toml`,
      }),
    ];
  }
  const message = 'CRI does not tell its sandbox image (containerd 2)';
  if (state.records.some(({ name }) => /\/pause[:@]/.test(name))) {
    return [finding('info', 'SANDBOX_IMAGE', { message: `${message}; an image called pause is there` })];
  }
  return [
    finding('warning', 'SANDBOX_IMAGE', {
      message: `${message}, and none called pause is in ${namespace}: without it no pod starts`,
      fix: '`containerd config dump | grep -A2 pinned_images` shows its name: add it to the images of sealift.yaml',
    }),
  ];
}

/** What can be said about the images of the namespace. */
export function imageFindings(about: {
  readonly state: ContainerdState;
  readonly lacks: readonly Lack[];
  readonly place: SiteWords;
}): Finding[] {
  const { state, lacks, place } = about;
  const ofKubelet = isKubelets(place) ? [...collectable(state, place), ...sandbox(state)] : [];
  return [...incomplete(lacks, place), ...ofKubelet];
}

/** What can be said about images in other namespaces, or under short names here. */
export function strayFindings(
  strays: readonly Stray[],
  about: { readonly place: SiteWords; readonly state: ContainerdState },
): Finding[] {
  const { place, state } = about;
  if (!isKubelets(place)) return [];
  const found: Finding[] = [];
  const fix = `sealift site fix --target ${place.target} --yes`;
  const details = (of: readonly Stray[]): Finding['details'] => ({
    images: of.slice(0, LISTED).map(({ name, namespace, said }) => ({ name, namespace, said })),
  });
  const free = strays.filter((s) => s.taken === undefined);
  const elsewhere = free.filter((s) => s.namespace !== place.namespace);
  if (elsewhere.length > 0) {
    const where = [...new Set(elsewhere.map((s) => s.namespace))].join(' and ');
    const names = elsewhere.map((s) => s.name);
    const message = `${count(names.length, 'image')} in the namespace ${where}, where kubelet does not look: ${someOf(names)}`;
    found.push(finding('warning', 'IMAGES_WRONG_NAMESPACE', { message, fix, details: details(elsewhere) }));
    if (sharingOf(state) === 'isolated') found.push(isolated(where));
  }
  const short = free.filter((s) => s.namespace === place.namespace);
  if (short.length > 0) {
    const names = short.map((s) => `${s.said} (${s.name})`);
    const message = `${count(names.length, 'image')} under a name that kubelet does not look for: ${someOf(names)}`;
    found.push(finding('warning', 'NAMES_NOT_CANONICAL', { message, fix, details: details(short) }));
  }
  const taken = strays.filter((s) => s.taken !== undefined);
  if (taken.length > 0) {
    const message = `${count(taken.length, 'image')} of other namespaces have another content here under the same name, and stay as they are: ${someOf(taken.map((s) => s.name))}`;
    found.push(finding('info', 'IMAGES_WRONG_NAMESPACE', { message, details: details(taken) }));
  }
  return found;
}

function isolated(where: string): Finding {
  return finding('info', 'CONTENT_ISOLATED', {
    message:
      'containerd keeps the content of namespaces apart (content_sharing_policy = "isolated"): references alone cannot be copied',
    fix: `\`ctr namespaces label ${where.split(' ')[0]} containerd.io/namespace.shareable=true\` lets others see the content of that namespace (containerd 2)`,
  });
}

/** What stopped loads and other clients left behind. It ends by itself. */
export function cleanFindings(
  state: ContainerdState,
  about: { readonly place: SiteWords; readonly now: number },
): Finding[] {
  const found: Finding[] = [];
  const { namespace } = about.place;
  const mine = state.leases.filter((lease) => lease.labels.has(LEASE_OF_LOAD[0]));
  for (const [leases, whose] of [
    [mine, 'stopped or running loads of Sealift'],
    [state.leases.filter((lease) => !mine.includes(lease)), 'other clients'],
  ] as const) {
    if (leases.length === 0) continue;
    const digests = new Set(leases.flatMap((lease) => lease.digests));
    const bytes = [...digests].reduce((sum, digest) => sum + (state.content.get(digest)?.size ?? 0), 0);
    const message = `${count(leases.length, 'lease')} of ${whose} keep ${count(digests.size, 'blob')} (${bytes} bytes) in ${namespace}`;
    const ids = leases.map(({ id }) => id);
    const fix = `they end by themselves (Sealift's within 24 hours, and the next load goes on from there); \`ctr -n ${namespace} leases delete ${ids[0]}\` ends one now`;
    found.push(
      finding('info', 'LEASES_LEFT', {
        message,
        fix,
        details: {
          leases: leases.map(({ id, created, labels }) => ({
            id,
            ageSeconds: created === 0 ? null : Math.max(0, Math.round(about.now / 1000) - created),
            expires: labels.get('containerd.io/gc.expire') ?? null,
          })),
        },
      }),
    );
  }
  if (state.ingests.length > 0) {
    const bytes = state.ingests.reduce((sum, { offset }) => sum + offset, 0);
    const message = `${count(state.ingests.length, 'blob')} were begun and not finished in ${namespace} (${bytes} bytes)`;
    const fix = `somebody is writing them, or was stopped: the next load goes on there; \`ctr -n ${namespace} content active\` shows them`;
    found.push(finding('info', 'UPLOADS_LEFT', { message, fix }));
  }
  return found;
}
