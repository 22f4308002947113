import { z } from 'zod';
import { pythonObject } from './python-schema.ts';
import { AS_WRITTEN, text } from './text.ts';
import {
  isBundleName,
  isBundleVersion,
  isChartName,
  isChartVersion,
  isFileName,
  isListPattern,
  isLocalPath,
  isMirror,
  isMode,
  isOciUrl,
  isPlatformText,
  isReferenceText,
  isRegistryHost,
  isSha256,
  isWebUrl,
  type Rule,
} from './words.ts';

/**
 * The shape of sealift.yaml, from which the JSON schema for editors is made. Scalars come from the YAML reader as
 * text exactly as written, so a version is a string here even where YAML would call it a number.
 */

/** A list of platforms, or `all`. */
export const platformList = z
  .union([z.literal('all'), z.array(text(isPlatformText, 'os/architecture[/variant]')).min(1)], {
    error: 'expected "all" or a list of platforms, such as [linux/amd64]',
  })
  .meta({ description: 'Platforms to carry: a list such as [linux/amd64], or all' });

/** What travels with an image. */
export const includeList = z
  .array(z.enum(['signatures', 'referrers'], { error: 'expected signatures or referrers' }))
  .meta({
    description:
      'What travels with an image: signatures (tags of cosign) and referrers (manifests whose subject it is). Default both; [] is nothing',
  });

const values = z
  .array(text(isLocalPath, 'A values file, relative to the manifest'))
  .nullish()
  .meta({ description: 'Values files that the chart is installed with, in order' });

export const imageObject = z.strictObject({
  ref: text(isReferenceText, 'Image reference: [host[:port]/]name[:tag][@digest]'),
  replace: text(
    isReferenceText,
    'Where its bytes are pulled from instead, for an image that cannot be pulled; it is carried under the name in ref',
  ).optional(),
  platforms: platformList.optional(),
  include: includeList.optional(),
  foreignLayers: z.boolean().optional().meta({
    description:
      'Fetch and carry layers whose publisher asks that registries do not hold them (Windows); default false',
  }),
});

/** One entry of `images`. */
export const imageEntry = z
  .union([text(isReferenceText, 'Image reference: [host[:port]/]name[:tag][@digest]'), imageObject], {
    error: 'expected an image reference, or {ref, replace, platforms, include, foreignLayers}',
  })
  .meta({ description: 'An image, by its reference or as {ref, platforms, …}' });

const chartName = text(isChartName, 'Name of the chart');
const chartVersion = text(isChartVersion, 'Exact version of the chart', AS_WRITTEN);

export const repoChart = z
  .strictObject({
    name: chartName,
    version: chartVersion,
    repo: text(isWebUrl, 'Address of a chart repository (the folder of its index.yaml)', { format: 'uri' }),
    values,
    allowIndexMismatch: z.string().min(1, { error: 'expected a reason' }).max(1000).optional().meta({
      description: 'Why it is right that the digest in the repository index is not the digest of the archive',
    }),
  })
  .meta({ description: 'A chart from a chart repository' });

export const ociChart = z
  .strictObject({
    name: chartName,
    version: chartVersion,
    oci: text(isOciUrl, 'Address of the chart in a registry: oci://host/path/name', { pattern: '^oci://' }),
    values,
  })
  .superRefine((chart, context) => {
    if (isOciUrl(chart.oci) !== undefined || chart.oci.endsWith(`/${chart.name}`)) return;
    const last = chart.oci.slice(chart.oci.lastIndexOf('/') + 1);
    context.addIssue({
      code: 'custom',
      path: ['oci'],
      message: `the last part of the address must be the chart's name: expected "${chart.name}", found "${last}"`,
      params: { hint: `write oci://host/path/${chart.name}, or correct the name` },
    });
  })
  .meta({ description: 'A chart from a registry' });

export const pathChart = z
  .strictObject({ path: text(isLocalPath, 'Folder of the chart, relative to the manifest'), values })
  .meta({ description: 'A chart from a folder' });

const fileFacts = {
  name: text(isFileName, 'Name under which the file is carried and written, such as bin/kubectl'),
  sha256: text(isSha256, 'SHA-256 that the file must have').optional(),
  mode: text(isMode, 'Permission bits in octal; default 0644', AS_WRITTEN).optional(),
};

export const urlFile = z
  .strictObject({ url: text(isWebUrl, 'Address of the file', { format: 'uri' }), ...fileFacts })
  .meta({ description: 'A file from a web server' });

export const pathFile = z
  .strictObject({ path: text(isLocalPath, 'File or folder, relative to the manifest'), ...fileFacts })
  .meta({ description: 'A file or folder from this disk' });

export const registryEntry = z
  .strictObject({
    plainHttp: z.boolean().optional().meta({ description: 'HTTP without TLS; default only for loopback' }),
    insecure: z.boolean().optional().meta({ description: 'Do not check the certificate; default false' }),
    caFile: text(isLocalPathOrAbsolute, 'PEM file with the CA of this host').optional(),
    clientCert: text(isLocalPathOrAbsolute, 'PEM file with our certificate for this host').optional(),
    clientKey: text(isLocalPathOrAbsolute, 'PEM file with the key of clientCert, not encrypted').optional(),
    mirrors: z
      .array(
        text(
          isMirror,
          '[http[s]://]host[:port][/prefix], bundle:PATH, oci:PATH, oci-archive:PATH, docker-archive:PATH, or containerd:///SOCKET?namespace=NAME',
        ),
      )
      .nullish()
      .meta({ description: 'Asked in this order before the host itself' }),
  })
  .superRefine((entry, context) => {
    if ((entry.clientCert === undefined) === (entry.clientKey === undefined)) return;
    const [has, lacks] =
      entry.clientKey === undefined
        ? (['clientCert', 'clientKey'] as const)
        : (['clientKey', 'clientCert'] as const);
    context.addIssue({
      code: 'custom',
      path: [has],
      message: `${has} stands without ${lacks}`,
      params: { hint: 'a client certificate and its key are given together' },
    });
  })
  .meta({ description: 'How to talk to one registry host' });

/** A certificate or key belongs to the machine and never reaches the lock, so its path may be absolute. */
function isLocalPathOrAbsolute(value: string): ReturnType<Rule> {
  return isLocalPath(value.replace(/^\/+(?=.)/, ''));
}

export const registryHost = text(isRegistryHost, 'host[:port]');

/** The whole of sealift.yaml. */
export const manifestSchema = z
  .strictObject({
    apiVersion: z.literal('sealift/v1').meta({ description: 'Version of this format' }),
    name: text(isBundleName, 'Name of the bundle'),
    version: text(isBundleVersion, 'Version of the bundle', AS_WRITTEN),
    platforms: platformList.optional(),
    include: includeList.optional(),
    images: z.array(imageEntry).nullish().meta({ description: 'Images to carry' }),
    imageLists: z
      .array(text(isListPattern, 'A file or a pattern such as imagelists/*.txt'))
      .nullish()
      .meta({ description: 'Text files with one image reference a line' }),
    charts: z
      .array(z.union([repoChart, ociChart, pathChart]))
      .nullish()
      .meta({ description: 'Helm charts to carry' }),
    files: z
      .array(z.union([urlFile, pathFile]))
      .nullish()
      .meta({ description: 'Files to carry' }),
    python: pythonObject.nullish().meta({
      description: 'Python packages to carry, for every Python on every platform of the site',
    }),
    registries: z
      .record(registryHost, registryEntry)
      .nullish()
      .meta({ description: 'Per registry host, only what differs from the default' }),
  })
  .meta({
    title: 'sealift.yaml',
    description:
      'What a Sealift bundle shall hold. Without `platforms`, every platform of every image is carried.',
  });

/** The keys that may stand in the map at `path` of a manifest; `value` is that map. */
export function allowedKeys(path: readonly PropertyKey[], value: unknown): readonly string[] {
  const [section] = path;
  if (section === undefined) return Object.keys(manifestSchema.shape);
  if (section === 'images') return Object.keys(imageObject.shape);
  if (section === 'python') return Object.keys(pythonObject.shape);
  if (section === 'registries') return path.length === 1 ? [] : Object.keys(registryEntry.shape);
  const has = (key: string): boolean => typeof value === 'object' && value !== null && key in value;
  if (section === 'charts') {
    const schema = has('repo') ? repoChart : has('oci') ? ociChart : has('path') ? pathChart : repoChart;
    return Object.keys(schema.shape);
  }
  if (section === 'files') return Object.keys((has('path') ? pathFile : urlFile).shape);
  return [];
}

/** The JSON schema of sealift.yaml (draft 7, which editors know), with descriptions. */
export function manifestJsonSchema(): Readonly<Record<string, unknown>> {
  return z.toJSONSchema(manifestSchema, { target: 'draft-7', io: 'input' });
}

/** The bytes of manifests/sealift.schema.json. */
export function manifestSchemaText(): string {
  return `${JSON.stringify(manifestJsonSchema(), null, 2)}\n`;
}
