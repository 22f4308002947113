import type { OnConflict } from '../target.ts';
import type { NexusFormat } from './nexus-admin.ts';

/** A hosted repository that shall be made. */
export interface HostedRepository {
  readonly format: NexusFormat;
  readonly name: string;
  readonly blobStore: string;
  readonly onConflict: OnConflict;
  /** Of docker and oci: how it is reached. */
  readonly connector?: Connector;
}

/** Where a docker repository is reached. Absent parts stay off. */
export interface Connector {
  readonly httpPort?: number;
  readonly httpsPort?: number;
  readonly subdomain?: string;
  /** `host/<repository>/<image>` on the main port (Nexus 3.83 and later). */
  readonly isPath?: boolean;
}

function connectorSettings(connector: Connector): Readonly<Record<string, unknown>> {
  const { httpPort = null, httpsPort = null, subdomain, isPath } = connector;
  return {
    v1Enabled: false,
    // Pulls need a login too, until somebody decides otherwise.
    forceBasicAuth: true,
    httpPort,
    httpsPort,
    // Only where they are wanted: older servers do not know them.
    ...(subdomain === undefined ? {} : { subdomain }),
    ...(isPath === true ? { pathEnabled: true } : {}),
  };
}

/**
 * The settings of a repository that we make (registry.md 2.2). What was put there cannot be overwritten by a slip ("disable
 * redeploy", for docker but `latest`), unless the site wants conflicts replaced. Files of any kind go into a raw one, so
 * their content is not compared with what their names promise.
 */
export function hostedSettings(repository: HostedRepository): Readonly<Record<string, unknown>> {
  const { format, name, blobStore, onConflict, connector = {} } = repository;
  const writePolicy = onConflict === 'replace' ? 'ALLOW' : 'ALLOW_ONCE';
  const isImages = format === 'docker' || format === 'oci';
  const latest = isImages && writePolicy === 'ALLOW_ONCE' ? { latestPolicy: true } : {};
  return {
    name,
    online: true,
    storage: {
      blobStoreName: blobStore,
      strictContentTypeValidation: format !== 'raw',
      writePolicy,
      ...latest,
    },
    ...(isImages ? { [format]: connectorSettings(connector) } : {}),
    ...(format === 'raw' ? { raw: { contentDisposition: 'ATTACHMENT' } } : {}),
  };
}
