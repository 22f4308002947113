import type { Command } from 'commander';
import type { HostConfig } from '../oci/registry.ts';

/** How a registry is reached, where the files of docker and podman do not say it. */
export interface RegistryFlags {
  readonly caFile?: string;
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly insecure?: boolean;
}

export function addRegistryFlags(command: Command): Command {
  return command
    .option('--ca-file <file>', 'a PEM file with the CAs to trust')
    .option('--client-cert <file>', 'a PEM file with the certificate that the registry asks of us')
    .option('--client-key <file>', 'a PEM file with the key of --client-cert')
    .option('--insecure', 'accept any certificate');
}

/** The flags as what a client of the registry needs. */
export function hostConfigOf({ caFile, clientCert, clientKey, insecure }: RegistryFlags): HostConfig {
  return {
    ...(caFile === undefined ? {} : { caFile }),
    ...(clientCert === undefined ? {} : { clientCert }),
    ...(clientKey === undefined ? {} : { clientKey }),
    ...(insecure === true ? { insecure: true } : {}),
  };
}
