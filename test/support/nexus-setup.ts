import type { TestProject } from 'vitest/node';
import { startShared } from './nexus-server.ts';

/** Starts the servers that all files of the project share, once, and says in a line which ones are not there. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { servers, close } = await startShared();
  for (const { name, url, formats, missing } of servers) {
    console.log(
      missing === undefined
        ? `nexus: ${name} runs at ${url} (${formats.join(', ')})`
        : `nexus: the tests on ${name} are SKIPPED: ${missing}`,
    );
  }
  project.provide('nexusServers', servers);
  return close;
}
