import { resolve } from 'node:path';
import type { CredentialSource } from '../oci/credentials.ts';
import type {
  ContainerdSite,
  DevpiSite,
  FolderSite,
  RegistrySite,
  SiteFile,
  SiteTarget,
} from '../site/load.ts';
import type { Target } from '../target/target.ts';
import type { TreeBundle } from './load-targets.ts';
import type { PlannedTarget } from './planned-target.ts';
import { pipUse, type SiteTools, siteLogins, webServerOf } from './site-server.ts';

interface Tools extends SiteTools {
  readonly dryRun: boolean;
  readonly force: boolean;
  /** undefined where what is loaded has neither charts nor files. */
  readonly tree: TreeBundle | undefined;
}

/**
 * The targets of a site's file. What is wrong with one of them is its own fault; a login that a person has to type is asked for
 * first.
 * @throws AUTH_REQUIRED where nobody can be asked for one
 */
export async function siteTargets({ targets }: SiteFile, tools: Tools): Promise<PlannedTarget[]> {
  const logins = await siteLogins(targets, tools);
  const planned = await Promise.all(
    targets.map(async (site) => {
      const credentials = logins.get(site.name);
      if (site.type === 'nexus' && credentials !== undefined) {
        const { nexusTargets } = await import('./nexus-targets.ts');
        return nexusTargets(site, { ...tools, credentials });
      }
      if (site.type === 'devpi' && credentials !== undefined)
        return [await devpiOf(site, { ...tools, credentials })];
      const made = await plainTargets(site, { ...tools, credentials });
      return made.map((target) => ({ target, site: site.name }));
    }),
  );
  return planned.flat();
}

type Made = Tools & { readonly credentials: CredentialSource | undefined };

async function plainTargets(site: SiteTarget, tools: Made): Promise<Target[]> {
  switch (site.type) {
    case 'registry':
      return [await registryOf(site, tools)];
    case 'containerd':
      return containerdOf(site);
    case 'chart-tree':
    case 'files':
      return folderOf(site, tools);
    default:
      return [];
  }
}

async function registryOf(site: RegistrySite, tools: Made): Promise<Target> {
  const { registryTargetOf } = await import('./registry-place.ts');
  const { url, prefix, tls, naming, indexPolicy, onConflict, parallel } = site;
  const config = { ...tls, plainHttp: url.protocol === 'http:' };
  const { http, context, credentials } = tools;
  const logins = credentials === undefined ? {} : { credentials };
  const lanes = parallel === undefined ? {} : { parallel };
  return registryTargetOf(
    { host: url.host, prefix, config, naming, indexPolicy, onConflict, ...lanes },
    { http, context, ...logins },
  );
}

async function devpiOf(
  site: DevpiSite,
  tools: Tools & { readonly credentials: CredentialSource },
): Promise<PlannedTarget> {
  const { devpiIndexUrl, devpiTarget } = await import('../target/web/devpi.ts');
  const { index, create, onConflict, url, name } = site;
  const target = devpiTarget({ server: webServerOf(site, tools), index, create, onConflict });
  return { target, site: name, use: pipUse(devpiIndexUrl(url, index)) };
}

async function containerdOf({ socket, namespaces, pin }: ContainerdSite): Promise<Target[]> {
  const { containerdTargets } = await import('../target/containerd/target.ts');
  return containerdTargets({ socket, namespaces, pin });
}

/** What another tool made has no charts and files: such a folder is not for it. */
async function folderOf({ type, dir }: FolderSite, { tree, force }: Made): Promise<Target[]> {
  if (tree === undefined) return [];
  if (type === 'files') {
    const { filesTarget } = await import('../target/files.ts');
    return [filesTarget({ dir: resolve(dir), force })];
  }
  const { chartTreeTarget } = await import('../target/chart-tree.ts');
  return [chartTreeTarget({ dir: resolve(dir), force, ...tree })];
}
