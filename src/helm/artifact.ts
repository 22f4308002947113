import type { Descriptor } from '../core/descriptor.ts';
import type { Digest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { MEDIA } from '../core/media.ts';
import { digestOf } from '../io/verify.ts';
import type { ParsedManifest } from '../oci/manifest.ts';
import type { ChartMetadata } from './chartfile.ts';
import { asList, asMap, asText, fieldOf } from './plain-yaml.ts';

const OCI = 'org.opencontainers.image';
/** What a chart's own annotations may not replace (Helm: immutableOciAnnotations). */
const FIXED: readonly string[] = [`${OCI}.title`, `${OCI}.version`];

interface Blob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** A chart as an OCI artifact: bytes of config and manifest, and what points at them. */
export interface ChartArtifact {
  readonly config: Buffer;
  readonly configDescriptor: Descriptor;
  readonly manifest: Buffer;
  /** Of the manifest. */
  readonly descriptor: Descriptor;
  /** In the manifest's order. */
  readonly layers: readonly Descriptor[];
}

/** JSON with the keys of every map in order. */
function sortedJson(value: unknown): Buffer {
  const text = JSON.stringify(value, (_key, item: unknown) => {
    const map = asMap(item);
    if (map === undefined) return item;
    return Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
  });
  return Buffer.from(text);
}

/** `name (email), name`, as Helm writes org.opencontainers.image.authors. */
function authorsOf(maintainers: unknown): string {
  return (asList(maintainers) ?? [])
    .map((item) => {
      const map = asMap(item) ?? {};
      const email = asText(fieldOf(map, 'email')) ?? '';
      return `${asText(fieldOf(map, 'name')) ?? ''}${email === '' ? '' : ` (${email})`}`;
    })
    .join(', ');
}

/** The annotations that Helm gives the manifest of a chart (helm.md 1.4), without `created`. */
function annotationsOf(chart: ChartMetadata): Record<string, string> {
  const text = (key: string): string => asText(fieldOf(chart.document, key)) ?? '';
  const all: [string, string][] = [
    [`${OCI}.title`, chart.name],
    [`${OCI}.version`, chart.version],
    [`${OCI}.description`, text('description')],
    [`${OCI}.url`, text('home')],
    [`${OCI}.source`, asText(asList(chart.document.sources)?.[0]) ?? ''],
    [`${OCI}.authors`, authorsOf(chart.document.maintainers)],
  ];
  const own = Object.entries(chart.annotations).filter(([key]) => !FIXED.includes(key));
  return Object.fromEntries([...all.filter(([, value]) => value.trim() !== ''), ...own]);
}

/**
 * The written rule for a chart that did not come from a registry: the same Chart.yaml and archive give the same bytes.
 * Config: the fields of Chart.yaml as JSON. Manifest: OCI, layers in order of their digests as Helm writes them, no
 * `created`. In both the keys are sorted at every depth.
 * @param chart with the dependencies of requirements.yaml for an old chart, as `readChartArchive` gives it
 */
export function chartArtifact(
  chart: ChartMetadata,
  blobs: { readonly archive: Blob; readonly provenance?: Blob },
): ChartArtifact {
  const config = sortedJson(chart.document);
  const configDescriptor: Descriptor = {
    mediaType: MEDIA.helmConfig,
    digest: digestOf(config),
    size: config.length,
  };
  const layerOf = (mediaType: string, { digest, size }: Blob): Descriptor => ({ mediaType, digest, size });
  const layers = [
    layerOf(MEDIA.helmChart, blobs.archive),
    ...(blobs.provenance === undefined ? [] : [layerOf(MEDIA.helmProvenance, blobs.provenance)]),
  ].sort((a, b) => (a.digest < b.digest ? -1 : 1));
  const manifest = sortedJson({
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: configDescriptor,
    layers,
    annotations: annotationsOf(chart),
  });
  const descriptor = { mediaType: MEDIA.ociManifest, digest: digestOf(manifest), size: manifest.length };
  return { config, configDescriptor, manifest, descriptor, layers };
}

/**
 * The layers of a published chart, by media type: their order says nothing (helm.md 1.4).
 * @throws OCI_MANIFEST_INVALID when it is no chart, or has more than one archive
 */
export function selectChartLayers(
  manifest: ParsedManifest,
  what: string,
): { readonly config: Descriptor; readonly archive: Descriptor; readonly provenance?: Descriptor } {
  const bad = (why: string): SealiftError =>
    new SealiftError('OCI_MANIFEST_INVALID', `${what}: not a Helm chart: ${why}`, {
      hint: 'check the reference; charts are pushed with `helm push`',
    });
  if (manifest.kind !== 'manifest') throw bad('it is an index');
  const { config, layers } = manifest;
  if (config === undefined || config.mediaType !== MEDIA.helmConfig) {
    throw bad(`its config is ${config?.mediaType ?? 'missing'}, expected ${MEDIA.helmConfig}`);
  }
  const ofType = (type: string): Descriptor[] => layers.filter((l) => l.mediaType === type);
  const current = ofType(MEDIA.helmChart);
  const archives = current.length > 0 ? current : ofType(MEDIA.helmChartLegacy);
  const [archive] = archives;
  if (archive === undefined) throw bad(`it has no layer of type ${MEDIA.helmChart}`);
  if (archives.length > 1) throw bad(`it has ${archives.length} chart layers`);
  const [provenance] = ofType(MEDIA.helmProvenance);
  return { config, archive, ...(provenance === undefined ? {} : { provenance }) };
}
