import { z } from 'zod';
import { NAMINGS } from '../core/naming.ts';
import { closest } from '../manifest/faults.ts';
import { AS_WRITTEN, text } from '../manifest/text.ts';
import type { Rule } from '../manifest/words.ts';
import { apiVersionSchema, trustSchema } from '../trust/site.ts';
import {
  isContainerdNamespace,
  isDevpiUrl,
  isNexusRepository,
  isPort,
  isPrefix,
  isRegistryUrl,
  isServerUrl,
  isTargetName,
  isVariablePrefix,
  isWriters,
} from './words.ts';

/** The shape of site.yaml, from which the JSON schema for editors is made. Scalars come as text, as in sealift.yaml. */

/** The most targets of one site. */
const TARGETS_MOST = 100;

/** What to do about something else under a name, as in target/target.ts. */
export const CONFLICT_POLICIES = ['fail', 'keep', 'replace'] as const;
/** As in target/registry-shapes.ts. */
export const INDEX_POLICIES = ['auto', 'original', 'filtered', 'single'] as const;

const isPath: Rule = (value) =>
  value !== '' && value.length <= 4096 && !/[\u0000-\u001f\u007f]/.test(value)
    ? undefined
    : { message: `${JSON.stringify(value.slice(0, 100))} is not a path` };

const path = (description: string): z.ZodString =>
  text(isPath, `${description}, relative to this file or absolute`);
const url = (rule: Rule, description: string): z.ZodString => text(rule, description, { format: 'uri' });

const name = text(isTargetName, 'Name of the target, for --target and the receipt; unique in this file');

const onConflict = z.enum(CONFLICT_POLICIES, { error: 'expected fail, keep or replace' }).optional().meta({
  description:
    'What to do where something else has the name: fail (default) tells it and goes on with the rest, keep leaves it, replace writes over it',
});

const parallel = text(isWriters, 'Uploads at once, 1 to 20', AS_WRITTEN).optional();

const naming = z
  .enum(NAMINGS, { error: `expected ${NAMINGS.join(' or ')}` })
  .optional()
  .meta({ description: 'Whether names of images keep the host that they come from; default drop-host' });

const indexPolicy = z
  .enum(INDEX_POLICIES, { error: `expected ${INDEX_POLICIES.join(', ')}` })
  .optional()
  .meta({ description: 'What the registry gets where only some platforms are carried; default auto' });

export const tlsObject = z
  .strictObject({
    caFile: path('PEM file with the CAs to trust').optional(),
    insecure: z.boolean().optional().meta({ description: 'Accept any certificate; default false' }),
    clientCert: path('PEM file with the certificate that the server asks of us').optional(),
    clientKey: path('PEM file with the key of clientCert, not encrypted').optional(),
  })
  .superRefine((tls, context) => {
    if ((tls.clientCert === undefined) === (tls.clientKey === undefined)) return;
    const [has, lacks] =
      tls.clientKey === undefined ? ['clientCert', 'clientKey'] : ['clientKey', 'clientCert'];
    context.addIssue({
      code: 'custom',
      path: [String(has)],
      message: `${has} stands without ${lacks}`,
      params: { hint: 'a client certificate and its key are given together' },
    });
  })
  .meta({ description: 'How the server is trusted, where that is not by the CAs of this machine' });

const tls = tlsObject.optional();

const credentialsObject = z
  .strictObject({
    env: text(
      isVariablePrefix,
      'Start of the variables: NEXUS for NEXUS_USERNAME and NEXUS_PASSWORD',
    ).optional(),
    file: path("A netrc file, or a docker configuration file, that has the host's login").optional(),
  })
  .superRefine((from, context) => {
    if ((from.env === undefined) !== (from.file === undefined)) return;
    context.addIssue({ code: 'custom', message: 'expected one of env and file' });
  });

export const credentialsUnion = z
  .union([z.literal('prompt'), credentialsObject], {
    error: 'expected {env: NAME}, {file: PATH} or prompt',
  })
  .optional()
  .meta({
    description:
      'Where the login is from. Without it: the environment (SEALIFT_CREDENTIALS_…), the files of docker and podman, netrc',
  });

export const dockerObject = z
  .strictObject({
    repository: text(isNexusRepository, 'Name of the repository in Nexus'),
    url: url(
      isRegistryUrl,
      'Where images are pushed: the connector (https://nexus.local:5000), the sub-domain, or the address of Nexus itself for path-based routing',
    ),
    httpPort: text(
      isPort,
      'With create: the port of the HTTP connector, behind a proxy for TLS',
      AS_WRITTEN,
    ).optional(),
    httpsPort: text(isPort, 'With create: the port of the HTTPS connector', AS_WRITTEN).optional(),
  })
  .meta({ description: 'The repository for images and OCI content, of the format docker or oci' });

export const nexusTarget = z
  .strictObject({
    type: z.literal('nexus'),
    name,
    url: url(isServerUrl, 'Address of Nexus, with its context path where it has one'),
    create: z.boolean().optional().meta({ description: 'Make repositories that are missing; default false' }),
    blobStore: text(
      isTargetName,
      'With create: the blob store of new repositories; default "default"',
    ).optional(),
    docker: dockerObject.optional(),
    helm: text(isNexusRepository, 'The helm repository for charts').optional(),
    pypi: text(isNexusRepository, 'The pypi repository for Python packages').optional(),
    raw: text(isNexusRepository, 'The raw repository for files').optional(),
    onConflict,
    parallel,
    naming,
    indexPolicy,
    tls,
    credentials: credentialsUnion,
  })
  .superRefine((target, context) => {
    if (target.docker ?? target.helm ?? target.pypi ?? target.raw) return;
    context.addIssue({
      code: 'custom',
      message: 'names no repository',
      params: {
        hint: 'write at least one of docker, helm, pypi and raw; `sealift site init URL` finds them',
      },
    });
  })
  .meta({
    description: 'Sonatype Nexus: images, charts, Python packages and files, each into its repository',
  });

export const registryTarget = z
  .strictObject({
    type: z.literal('registry'),
    name,
    url: url(isRegistryUrl, 'Address of a registry, perhaps with a path below which everything is put'),
    prefix: text(isPrefix, 'The path below which everything is put, where the address has none').optional(),
    onConflict: onConflict.meta({
      description:
        'What to do where a tag leads to something else: replace (default) moves it, fail tells it and goes on with the rest, keep leaves it',
    }),
    parallel,
    naming,
    indexPolicy,
    tls,
    credentials: credentialsUnion,
  })
  .superRefine((target, context) => {
    if (target.prefix === undefined || isRegistryUrl(target.url) !== undefined) return;
    if (new URL(target.url).pathname === '/') return;
    context.addIssue({
      code: 'custom',
      path: ['prefix'],
      message: 'the address has a path already',
      params: { hint: 'write the path in url or in prefix, not in both' },
    });
  })
  .meta({ description: 'A registry: images, charts and files as OCI content' });

const containerdNamespace = text(isContainerdNamespace, 'Namespace; default k8s.io, which kubelet uses');

export const containerdTarget = z
  .strictObject({
    type: z.literal('containerd'),
    name,
    socket: path('Socket of containerd'),
    namespace: containerdNamespace.optional(),
    namespaces: z.array(containerdNamespace).min(1).optional().meta({ description: 'Several namespaces' }),
    pin: z
      .boolean()
      .optional()
      .meta({ description: 'Keep the images when kubelet cleans up; default false' }),
  })
  .superRefine((target, context) => {
    if (target.namespace === undefined || target.namespaces === undefined) return;
    context.addIssue({
      code: 'custom',
      path: ['namespace'],
      message: 'namespace and namespaces contradict each other',
    });
  })
  .meta({ description: 'A containerd of this machine: images' });

export const chartTreeTarget = z
  .strictObject({ type: z.literal('chart-tree'), name, dir: path('Folder of unpacked charts') })
  .meta({ description: 'A folder of unpacked charts' });

export const filesTarget = z
  .strictObject({ type: z.literal('files'), name, dir: path('Folder for the files') })
  .meta({ description: 'A folder for the files' });

export const devpiTarget = z
  .strictObject({
    type: z.literal('devpi'),
    name,
    url: url(isDevpiUrl, 'Address of an index: http://devpi.local:3141/root/prod'),
    create: z.boolean().optional().meta({ description: 'Make the index when it is missing; default false' }),
    onConflict,
    tls,
    credentials: credentialsUnion,
  })
  .meta({ description: 'An index of devpi: Python packages' });

const KINDS = [
  nexusTarget,
  registryTarget,
  containerdTarget,
  chartTreeTarget,
  filesTarget,
  devpiTarget,
] as const;
const TYPES = KINDS.map((kind) => kind.shape.type.value);

function typeOf(value: unknown): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, 'type') : undefined;
}

export const targetUnion = z.discriminatedUnion('type', KINDS, {
  error: ({ input }) => {
    const type = typeOf(input);
    const near = typeof type === 'string' ? closest(type, TYPES) : undefined;
    return `expected one of ${TYPES.join(', ')}${near === undefined ? '' : `; did you mean "${near}"?`}`;
  },
});

/** The whole of site.yaml. */
export const siteSchema = z
  .strictObject({
    apiVersion: apiVersionSchema,
    trust: trustSchema.optional(),
    targets: z
      .array(targetUnion)
      .max(TARGETS_MOST)
      .superRefine((targets, context) => {
        for (const [i, { name: own }] of targets.entries()) {
          const first = targets.findIndex((other) => other.name === own);
          if (first === i) continue;
          const message = `the name ${JSON.stringify(own)} is taken by targets[${first}]`;
          context.addIssue({ code: 'custom', path: [i, 'name'], message });
        }
      })
      .optional()
      .meta({ description: 'Where `sealift load` puts a bundle when no flag names a target' }),
  })
  .meta({ title: 'site.yaml', description: 'What a site trusts, and where bundles are loaded.' });

/** The keys that may stand in the map at `path` of a site's file; `value` is that map. */
export function siteKeys(path: readonly PropertyKey[], value: unknown): readonly string[] {
  const [section, , key] = path;
  if (section === undefined) return Object.keys(siteSchema.shape);
  if (section === 'trust') return Object.keys(trustSchema.shape);
  if (key === 'tls') return Object.keys(tlsObject.shape);
  if (key === 'docker') return Object.keys(dockerObject.shape);
  if (key === 'credentials') return ['env', 'file'];
  const kind = KINDS.find((one) => one.shape.type.value === typeOf(value));
  return kind === undefined ? [] : Object.keys(kind.shape);
}

/** The bytes of manifests/site.schema.json (draft 7, which editors know). */
export function siteSchemaText(): string {
  const schema = z.toJSONSchema(siteSchema, { target: 'draft-7', io: 'input' });
  return `${JSON.stringify(schema, null, 2)}\n`;
}
