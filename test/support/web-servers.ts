/** Servers of packages as the targets see them, for tests. */
import { HttpClient } from '../../src/io/http.ts';
import type { ContentReader } from '../../src/oci/content.ts';
import type { Item, OnConflict, Target, TargetRun } from '../../src/target/target.ts';
import { WebServer } from '../../src/target/web/server.ts';
import { testContext } from './bundles.ts';

export interface OpenServer {
  readonly server: WebServer;
  readonly context: ReturnType<typeof testContext>;
  close(): Promise<void>;
}

export function openServer(of: {
  readonly url: string;
  readonly username?: string;
  readonly password?: string;
}): OpenServer {
  const { url, username = '', password = '' } = of;
  const context = testContext();
  const http = new HttpClient(context);
  const server = new WebServer({
    http,
    context,
    base: new URL(url),
    credentials: {
      find: async () => (username === '' ? undefined : { kind: 'password', username, password }),
    },
  });
  return { server, context, close: () => http.close() };
}

/** Plans and runs all stages of one target, as a load does. */
export async function runTarget(
  target: Target,
  of: {
    readonly items: readonly Item[];
    readonly source: ContentReader;
    readonly context: ReturnType<typeof testContext>;
  },
): Promise<TargetRun> {
  const run = await target.plan(of.items, { source: of.source, context: of.context });
  await run.writeBlobs();
  await run.writeManifests();
  await run.commit();
  await run.close();
  return run;
}

/** `name state` of each entry, in order. */
export function statesOf(run: TargetRun): string[] {
  return run.entries.map(({ item, state }) => `${item.name} ${state}`);
}

export const POLICIES: readonly OnConflict[] = ['fail', 'keep', 'replace'];
