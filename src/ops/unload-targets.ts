import { isAbsolute } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import type { TlsOptions } from '../io/certificates.ts';
import type { HttpClient } from '../io/http.ts';
import { type CredentialSource, Credentials } from '../oci/credentials.ts';
import type { AddedItem, Removal, RemoveOptions } from '../target/removal.ts';
import type { WebServer as WebServerType } from '../target/web/server.ts';
import type { Receipt, ReceiptTarget } from './receipt-read.ts';
import { parseRegistryUrl } from './registry-place.ts';

/** How the server of a target is reached. */
export interface Access {
  readonly tls?: TlsOptions;
  readonly credentials?: CredentialSource;
}

/** @param origin scheme, host and port, as `URL.origin` */
export type AccessOf = (origin: string) => Access | undefined;

interface About extends RemoveOptions {
  readonly bundle: Receipt['bundle'];
  /** Whether nothing of what the load added stays. */
  readonly isAll: boolean;
}

/** Takes items out of one target. */
export type Remove = (items: readonly AddedItem[], about: About) => Promise<Removal[]>;

interface Tools {
  readonly http: HttpClient;
  readonly context: Context;
  readonly accessOf?: AccessOf | undefined;
}

function notAnAddress(target: ReceiptTarget): SealiftError {
  return new SealiftError('USAGE', `${target.name}: the receipt does not say where this is`, {
    hint: 'it was changed, or an older version wrote it: take this back by hand',
  });
}

/** What `load` was told: from the receipt, or what stands in the name behind the kind. */
function addressOf(target: ReceiptTarget): string {
  const { kind, name, address } = target;
  if (address != null) return address;
  if (name.startsWith(`${kind} `)) return name.slice(kind.length + 1);
  throw notAnAddress(target);
}

/** What takes back from a target. Each kind brings libraries of its own along. @throws USAGE for a target of no known form */
export async function removerOf(target: ReceiptTarget, tools: Tools): Promise<Remove> {
  const address = addressOf(target);
  switch (target.kind) {
    case 'registry':
      return registryRemover(address, tools);
    case 'containerd':
      return containerdRemover(address, target);
    case 'chart-tree':
    case 'files':
      return folderRemover(address, target);
    case 'helm':
    case 'raw':
    case 'pypi':
      return webRemover(address, { ...tools, target });
  }
}

async function registryRemover(address: string, { http, context, accessOf }: Tools): Promise<Remove> {
  const [{ Registry }, { removeFromRegistry }] = await Promise.all([
    import('../oci/registry.ts'),
    import('../target/registry-remove.ts'),
  ]);
  const { host, config } = parseRegistryUrl(address);
  const origin = new Registry(host, { http, context, config }).origin;
  const { tls, credentials } = accessOf?.(origin) ?? {};
  const logins = credentials === undefined ? {} : { credentials };
  const registry = new Registry(host, { http, context, config: { ...config, ...tls }, ...logins });
  return (items, about) => removeFromRegistry({ registry }, items, about);
}

async function containerdRemover(address: string, target: ReceiptTarget): Promise<Remove> {
  const { removeImages } = await import('../target/containerd/remove.ts');
  const space = address.lastIndexOf(' ');
  const [socket, namespace] = [address.slice(0, Math.max(0, space)), address.slice(space + 1)];
  if (!isAbsolute(socket) || namespace === '') throw notAnAddress(target);
  return (items, about) => removeImages({ socket, namespace }, items, about);
}

/** Whether all that the load put on a target is gone now, or would be, and it found nothing there before. */
function isWhole(
  { entries }: ReceiptTarget,
  { removals, about }: { readonly removals: readonly Removal[]; readonly about: About },
): boolean {
  const isGone = ({ state }: Removal): boolean => ['remove', 'removed', 'gone'].includes(state);
  return about.isAll && removals.length === entries.length && removals.every(isGone);
}

async function folderRemover(dir: string, target: ReceiptTarget): Promise<Remove> {
  const { removeFromFolder, removeTreeLock } = await import('../target/folder-remove.ts');
  if (!isAbsolute(dir)) throw notAnAddress(target);
  const kind = target.kind === 'files' ? 'files' : 'chart-tree';
  return async (items, about) => {
    const removals = await removeFromFolder({ dir, kind }, items, about);
    const { name, lock } = about.bundle;
    if (kind === 'chart-tree' && isWhole(target, { removals, about }) && !about.dryRun && lock !== null) {
      await removeTreeLock(dir, { bundle: name, lock });
    }
    return removals;
  };
}

async function webRemover(
  address: string,
  { http, context, accessOf, target }: Tools & { readonly target: ReceiptTarget },
): Promise<Remove> {
  const { WebServer } = await import('../target/web/server.ts');
  const origin = URL.canParse(address) ? new URL(address).origin : '';
  const { tls, credentials = new Credentials({ env: context.env, signal: context.signal }) } =
    accessOf?.(origin) ?? {};
  const serverAt = (base: string): WebServerType =>
    new WebServer({ http, context, base: new URL(base), credentials, ...(tls === undefined ? {} : { tls }) });
  const [, nexus, repository] = /^(https?:\/\/[^?#]*\/)repository\/([^/?#]+)\/?$/.exec(address) ?? [];
  if (nexus !== undefined && repository !== undefined) {
    const { removeFromNexus, removeMade } = await import('../target/web/nexus-remove.ts');
    const place = { server: serverAt(nexus), repository: decodeURIComponent(repository) };
    return async (items, about) => {
      const removals = await removeFromNexus(place, items, about);
      const isMade = target.made?.repository === place.repository;
      if (isMade && isWhole(target, { removals, about })) {
        removals.at(-1)?.notes.push(await removeMade(place, about.dryRun));
      }
      return removals;
    };
  }
  const [, devpi, index] = /^(https?:\/\/[^?#]*\/)([^/?#]+\/[^/?#]+)\/?$/.exec(address) ?? [];
  if (target.kind !== 'pypi' || devpi === undefined || index === undefined) throw notAnAddress(target);
  const { removeFromDevpi } = await import('../target/web/devpi-remove.ts');
  return (items, about) => removeFromDevpi({ server: serverAt(devpi), index }, items, about);
}
