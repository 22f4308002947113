import { isNamespace } from './namespace.ts';
import { isHost, isRepository } from './reference.ts';

/** A place that is asked for a registry's content before the registry itself. */
export type Mirror =
  | {
      readonly kind: 'registry';
      readonly scheme: 'http' | 'https' | undefined;
      readonly host: string;
      /** Path before every repository; '' for none. */
      readonly prefix: string;
    }
  | { readonly kind: 'archive'; readonly scheme: ArchiveScheme; readonly path: string }
  /** `socket` is an absolute path. */
  | { readonly kind: 'containerd'; readonly socket: string; readonly namespace: string };

/** What skopeo calls these transports; `bundle` is ours. */
export type ArchiveScheme = 'bundle' | 'oci' | 'oci-archive' | 'docker-archive';

const ARCHIVE = /^(bundle|oci|oci-archive|docker-archive):(.+)$/s;
const CONTAINERD = /^containerd:\/\/(\/[^?#]+)\?namespace=([^&#]+)$/;
const REGISTRY = /^(?:(https?):\/\/)?([^/]+)(?:\/(.+))?$/;

function archiveScheme(text: string): ArchiveScheme {
  return text === 'bundle' || text === 'oci' || text === 'oci-archive' ? text : 'docker-archive';
}

/**
 * Reads `bundle:PATH`, `oci:PATH`, `oci-archive:PATH`, `docker-archive:PATH`, `containerd:///SOCKET?namespace=NAME` or
 * `[http[s]://]host[:port][/prefix]`; undefined for anything else.
 */
export function parseMirror(text: string): Mirror | undefined {
  const archive = ARCHIVE.exec(text);
  if (archive !== null) {
    const [, scheme = '', path = ''] = archive;
    return { kind: 'archive', scheme: archiveScheme(scheme), path };
  }
  const [, socket, namespace = ''] = CONTAINERD.exec(text) ?? [];
  if (socket !== undefined) {
    return isNamespace(namespace) ? { kind: 'containerd', socket, namespace } : undefined;
  }
  const [, scheme, host = '', prefix = ''] = REGISTRY.exec(text) ?? [];
  if (!isHost(host) || (prefix !== '' && !isRepository(prefix))) return undefined;
  return {
    kind: 'registry',
    scheme: scheme === 'http' || scheme === 'https' ? scheme : undefined,
    host,
    prefix,
  };
}

/** Whether a mirror is reached over the network as a registry; the others are read on this machine. */
export function isRegistryMirror(text: string): boolean {
  return parseMirror(text)?.kind === 'registry';
}
