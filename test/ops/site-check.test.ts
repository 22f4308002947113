import { readdir } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { exitCodeOf } from '../../src/core/errors.ts';
import {
  type SiteCheckOptions,
  type SiteCheckResult,
  siteCheck,
  siteFailure,
} from '../../src/ops/site-check.ts';
import { siteFix } from '../../src/ops/site-fix.ts';
import { type RunningRegistry, startRegistry } from '../../src/serve/registry.ts';
import { contextOf, openSite, type Packed, packSite, type Site } from '../bundle/site.ts';
import { failureOf, startServer } from '../io/server.ts';
import { dockerRepository, type NexusStandIn, startNexusStandIn } from '../support/nexus-stand-in.ts';
import { writeSite } from '../support/site-file.ts';

let site: Site;
let bundle: Packed;
let upstream: RunningRegistry;
let nexus: NexusStandIn;
let env: Record<string, string> = {};

beforeAll(async () => {
  site = await openSite();
  bundle = await packSite(site);
});
afterAll(() => site.close());

beforeEach(async () => {
  upstream = await startRegistry({ storage: 'memory' });
  nexus = await startNexusStandIn({
    upstream: upstream.host,
    users: { admin: 'hunter2' },
    repositories: [
      dockerRepository('images', { pathEnabled: true }),
      dockerRepository('hub', { type: 'proxy' }),
    ],
    traps: ['path-routing'],
  });
  env = { NEXUS_USERNAME: 'admin', NEXUS_PASSWORD: 'hunter2' };
  return async () => {
    await nexus.close();
    await upstream.close();
  };
});

let count = 0;
async function siteOf(...targets: readonly string[]): Promise<string> {
  count += 1;
  return writeSite(site.path(`checked-${count}`), targets);
}

const checked = (sitePath: string, more: Partial<SiteCheckOptions> = {}): Promise<SiteCheckResult> =>
  siteCheck({ sitePath, ...more }, { ...contextOf(), env });

const imagesOf = (repository: string): string =>
  `type: nexus, name: nexus, url: "${nexus.main.url}", credentials: {env: NEXUS}, docker: {repository: ${repository}, url: "${nexus.main.url}"}`;

const faultsOf = ({ targets }: SiteCheckResult): string[] =>
  targets.flatMap(({ name, findings }) =>
    findings.filter((f) => f.level === 'fault').map((f) => `${name} ${f.code}`),
  );
const exitOf = (result: SiteCheckResult): number => {
  const failure = siteFailure(result);
  return failure === undefined ? 0 : exitCodeOf(failure.code);
};

describe('the check of a site', () => {
  it('looks at every target, and is content where all would take a load', async () => {
    const path = await siteOf(
      imagesOf('images'),
      `type: registry, name: staging, url: "${upstream.url}/gpu"`,
      'type: chart-tree, name: charts, dir: charts/external',
      'type: files, name: files, dir: files',
    );
    const result = await checked(path);
    expect(faultsOf(result)).toEqual([]);
    expect(exitOf(result)).toBe(0);
    expect(result.targets.map((t) => t.name)).toEqual(['nexus', 'staging', 'charts', 'files']);
    for (const { findings } of result.targets) expect(findings.length).toBeGreaterThan(0);
    expect(await readdir(path.replace('/site.yaml', ''))).toEqual(['site.yaml']);
    const writes = nexus.requests.filter(({ method }) => !['GET', 'HEAD', 'DELETE'].includes(method));
    expect(writes).toEqual([]);
  });

  it('tells everything that is wrong, each with what to do, and ends with 3', async () => {
    const gone = await startRegistry({ storage: 'memory' });
    await gone.close();
    const page = await startServer((_, response) => response.end('<html>Welcome</html>'));
    const path = await siteOf(
      imagesOf('hub'),
      `type: registry, name: gone, url: "${gone.url}"`,
      `type: registry, name: scheme, url: "${upstream.url.replace('http:', 'https:')}"`,
      `type: registry, name: page, url: "${page.url}"`,
      `type: containerd, name: node, socket: none.sock`,
      'type: files, name: files, dir: site.yaml',
    );
    const result = await checked(path);
    expect(faultsOf(result)).toEqual([
      'nexus REPOSITORY_TYPE',
      'gone TARGET_UNREACHABLE',
      'scheme TARGET_UNREACHABLE',
      'page TARGET_UNREACHABLE',
      'node TARGET_UNREACHABLE',
      'files FOLDER',
    ]);
    for (const { findings } of result.targets) {
      for (const found of findings.filter((f) => f.level === 'fault')) expect(found.fix).toBeTruthy();
    }
    expect(result.targets[2]?.findings[0]?.fix).toBe(`write url: ${upstream.url}`);
    expect(exitOf(result)).toBe(3);
  });

  it('ends with 4 where only the login is wrong, and never shows it', async () => {
    env = { NEXUS_USERNAME: 'admin', NEXUS_PASSWORD: 'wrong-sesame' };
    const result = await checked(await siteOf(imagesOf('images')));
    expect(faultsOf(result)).toEqual(['nexus AUTH_DENIED']);
    expect(exitOf(result)).toBe(4);
    expect(JSON.stringify(result)).not.toContain('sesame');
  });

  it('compares what a bundle would write with the space there', async () => {
    const small = { name: 'default', path: 'default', availableSpaceInBytes: 4096 };
    const path = await siteOf(imagesOf('images'), 'type: files, name: files, dir: files');
    const fits = await checked(path, { bundle: bundle.path });
    expect(faultsOf(fits)).toEqual([]);
    const [space] = fits.targets[0]?.findings.filter((f) => f.code === 'SPACE') ?? [];
    expect(space?.message).toContain('would write');
    nexus.admin.blobStores.set('default', small);
    const full = await checked(path, { bundle: bundle.path });
    expect(faultsOf(full)).toEqual(['nexus DISK_FULL']);
    expect(exitOf(full)).toBe(3);
    expect(await readdir(path.replace('/site.yaml', ''))).toEqual(['site.yaml']);
  });

  it('refuses a site without targets, and a name that none has', async () => {
    const none = await failureOf(checked(await siteOf().then((path) => path)));
    expect(none).toMatchObject({ code: expect.stringMatching(/^(USAGE|SITE_INVALID)$/) });
    const path = await siteOf('type: files, name: files, dir: files');
    const wrong = await failureOf(checked(path, { targetNames: ['nexus'] }));
    expect(wrong).toMatchObject({ code: 'USAGE', hint: 'it has files' });
  });

  it('mends nothing where there is no containerd', async () => {
    const path = await siteOf('type: files, name: files, dir: files');
    const fixed = siteFix({ sitePath: path, pin: false, dryRun: true }, contextOf());
    expect(await failureOf(fixed)).toMatchObject({ code: 'USAGE' });
  });
});
