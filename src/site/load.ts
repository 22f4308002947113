import { dirname, resolve } from 'node:path';
import type { z } from 'zod';
import { errorOf, type Fault } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Naming } from '../core/naming.ts';
import type { TlsOptions } from '../io/certificates.ts';
import { readFileLimited } from '../io/files.ts';
import { parseYaml } from '../io/yaml.ts';
import { type DocumentKind, faultsOfIssues } from '../manifest/faults.ts';
import { lackOfKeys } from '../trust/site.ts';
import {
  type CONFLICT_POLICIES,
  type chartTreeTarget,
  type containerdTarget,
  type credentialsUnion,
  type devpiTarget,
  type filesTarget,
  type INDEX_POLICIES,
  type nexusTarget,
  type registryTarget,
  siteKeys,
  siteSchema,
  type targetUnion,
  type tlsObject,
} from './schema.ts';

/** Where a login is from, when the file says it. `file` is absolute. */
export type CredentialsChoice =
  | { readonly kind: 'env'; readonly prefix: string }
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'prompt' };

/** A server of a site: how it is trusted, and who logs in. */
interface ServerChoice {
  readonly tls: TlsOptions;
  readonly credentials: CredentialsChoice | undefined;
}

/** How images are named and cut in a registry. */
interface ImagesChoice {
  readonly naming: Naming;
  readonly indexPolicy: (typeof INDEX_POLICIES)[number];
}

interface ConflictChoice {
  readonly onConflict: (typeof CONFLICT_POLICIES)[number];
}

/** The docker repository of a Nexus and how it is reached. */
export interface NexusDocker {
  readonly repository: string;
  readonly url: URL;
  readonly httpPort: number | undefined;
  readonly httpsPort: number | undefined;
}

export interface NexusSite extends ServerChoice, ImagesChoice, ConflictChoice {
  readonly type: 'nexus';
  readonly name: string;
  /** Ends in `/`. */
  readonly url: URL;
  readonly create: boolean;
  readonly blobStore: string | undefined;
  readonly docker: NexusDocker | undefined;
  readonly helm: string | undefined;
  readonly pypi: string | undefined;
  readonly raw: string | undefined;
  readonly parallel: number | undefined;
}

export interface RegistrySite extends ServerChoice, ImagesChoice {
  readonly type: 'registry';
  readonly name: string;
  readonly url: URL;
  /** '' for none. */
  readonly prefix: string;
  readonly onConflict: ConflictChoice['onConflict'];
  readonly parallel: number | undefined;
}

export interface ContainerdSite {
  readonly type: 'containerd';
  readonly name: string;
  readonly socket: string;
  readonly namespaces: readonly string[];
  readonly pin: boolean;
}

export interface FolderSite {
  readonly type: 'chart-tree' | 'files';
  readonly name: string;
  readonly dir: string;
}

export interface DevpiSite extends ServerChoice, ConflictChoice {
  readonly type: 'devpi';
  readonly name: string;
  /** The server, ending in `/`. */
  readonly url: URL;
  /** `user/index`. */
  readonly index: string;
  readonly create: boolean;
}

/** One target of a site, its paths absolute. */
export type SiteTarget = NexusSite | RegistrySite | ContainerdSite | FolderSite | DevpiSite;

/** A site's file. What it says about trust is read by trust/site.ts. */
export interface SiteFile {
  /** Absolute. */
  readonly path: string;
  readonly targets: readonly SiteTarget[];
}

const SITE: DocumentKind = { code: 'SITE_INVALID', keysAt: siteKeys };

/** kubelet's. */
const NAMESPACE = 'k8s.io';

/**
 * Reads the whole of a site's file; nothing that it names is looked at.
 * @throws one SITE_INVALID with every fault and its place; CONTENT_TOO_LARGE, FILE_NOT_FOUND
 */
export async function readSiteFile(path: string): Promise<SiteFile> {
  const options = { limit: LIMITS.siteText, missing: 'FILE_NOT_FOUND' } as const;
  const text = (await readFileLimited(path, options)).toString('utf8');
  return parseSiteFile(text, path);
}

/** As `readSiteFile`, from its text. @param path for places, and what its paths are relative to */
export function parseSiteFile(text: string, path: string): SiteFile {
  const { yaml, faults } = parseYaml(text, { file: path, code: 'SITE_INVALID' });
  const refuse = (found: readonly Fault[]): never => {
    throw errorOf(found, `${path} has ${found.length} faults`, 'SITE_INVALID');
  };
  if (yaml === undefined) return refuse(faults);
  const parsed = siteSchema.safeParse(yaml.value);
  if (!parsed.success) {
    const at = { yaml, path: [], kind: SITE };
    const found = faultsOfIssues(parsed.error.issues, at);
    return refuse(found.toSorted((a, b) => placeOf(a) - placeOf(b)));
  }
  const lacks = lackOfKeys(parsed.data.trust, yaml);
  if (lacks !== undefined) return refuse([lacks]);
  const folder = resolve(dirname(path));
  return { path: resolve(path), targets: (parsed.data.targets ?? []).map((one) => targetOf(one, folder)) };
}

/** For the order from top to bottom. */
function placeOf({ position }: Fault): number {
  return (position?.line ?? 0) * 100_000 + (position?.column ?? 0);
}

function targetOf(target: z.infer<typeof targetUnion>, folder: string): SiteTarget {
  switch (target.type) {
    case 'nexus':
      return nexusOf(target, folder);
    case 'registry':
      return registryOf(target, folder);
    case 'containerd':
      return containerdOf(target, folder);
    case 'devpi':
      return devpiOf(target, folder);
    default:
      return folderOf(target, folder);
  }
}

function folderOf(
  { type, name, dir }: z.infer<typeof chartTreeTarget> | z.infer<typeof filesTarget>,
  folder: string,
): FolderSite {
  return { type, name, dir: resolve(folder, dir) };
}

function containerdOf(target: z.infer<typeof containerdTarget>, folder: string): ContainerdSite {
  const { type, name, socket, namespace = NAMESPACE, namespaces = [namespace], pin = false } = target;
  return { type, name, socket: resolve(folder, socket), namespaces, pin };
}

function nexusOf(target: z.infer<typeof nexusTarget>, folder: string): NexusSite {
  const { type, name, create = false, blobStore, docker, helm, pypi, raw, parallel } = target;
  return {
    type,
    name,
    url: baseOf(target.url),
    create,
    blobStore,
    docker: docker && {
      repository: docker.repository,
      url: new URL(docker.url),
      httpPort: numberOf(docker.httpPort),
      httpsPort: numberOf(docker.httpsPort),
    },
    helm,
    pypi,
    raw,
    parallel: numberOf(parallel),
    ...imagesOf(target),
    ...conflictOf(target),
    ...serverOf(target, folder),
  };
}

function registryOf(target: z.infer<typeof registryTarget>, folder: string): RegistrySite {
  const { type, name } = target;
  const url = new URL(target.url);
  const prefix = target.prefix ?? url.pathname.replace(/^\/+|\/+$/g, '');
  const { onConflict = 'replace' } = target;
  const parallel = numberOf(target.parallel);
  return { type, name, url, prefix, onConflict, parallel, ...imagesOf(target), ...serverOf(target, folder) };
}

function devpiOf(target: z.infer<typeof devpiTarget>, folder: string): DevpiSite {
  const { type, name, create = false } = target;
  const parts = new URL(target.url).pathname.split('/').filter((part) => part !== '');
  const url = new URL(`/${parts.slice(0, -2).join('/')}`, target.url);
  return {
    type,
    name,
    url: baseOf(url.href),
    index: parts.slice(-2).join('/'),
    create,
    ...conflictOf(target),
    ...serverOf(target, folder),
  };
}

function baseOf(text: string): URL {
  return new URL(`${text.replace(/\/+$/, '')}/`);
}

function numberOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Number(text);
}

function imagesOf({
  naming = 'drop-host',
  indexPolicy = 'auto',
}: Partial<Pick<z.infer<typeof registryTarget>, 'naming' | 'indexPolicy'>>): ImagesChoice {
  return { naming, indexPolicy };
}

function conflictOf({
  onConflict = 'fail',
}: Pick<z.infer<typeof devpiTarget>, 'onConflict'>): ConflictChoice {
  return { onConflict };
}

function serverOf(
  target: {
    readonly tls?: z.infer<typeof tlsObject> | undefined;
    readonly credentials?: z.infer<typeof credentialsUnion>;
  },
  folder: string,
): ServerChoice {
  const { insecure, caFile, clientCert, clientKey } = target.tls ?? {};
  const at = (path: string): string => resolve(folder, path);
  return {
    tls: {
      ...(insecure === undefined ? {} : { insecure }),
      ...(caFile === undefined ? {} : { caFile: at(caFile) }),
      ...(clientCert === undefined ? {} : { clientCert: at(clientCert) }),
      ...(clientKey === undefined ? {} : { clientKey: at(clientKey) }),
    },
    credentials: credentialsOf(target.credentials, folder),
  };
}

function credentialsOf(
  choice: z.infer<typeof credentialsUnion>,
  folder: string,
): CredentialsChoice | undefined {
  if (choice === undefined) return undefined;
  if (choice === 'prompt') return { kind: 'prompt' };
  if (choice.env !== undefined) return { kind: 'env', prefix: choice.env };
  return choice.file === undefined ? undefined : { kind: 'file', path: resolve(folder, choice.file) };
}
