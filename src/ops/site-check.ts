import { resolve } from 'node:path';
import { isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { isNetworkError, isTlsError } from '../io/network-errors.ts';
import { mapBounded } from '../io/pool.ts';
import type { CredentialSource } from '../oci/credentials.ts';
import type { AskLogin } from '../site/credentials.ts';
import type { DevpiSite, NexusSite, RegistrySite, SiteFile, SiteTarget } from '../site/load.ts';
import { type Finding, finding, findingOf, type Level, type TargetReport } from '../target/finding.ts';
import type { WantedRepository } from '../target/web/nexus-check.ts';
import { withHttp } from './session.ts';
import { chosenSite, type SiteChoice } from './site.ts';
import { planFindings, type SitePlan, sitePlan } from './site-plan.ts';
import { type SiteTools, siteLogins, webServerOf } from './site-server.ts';
import type { TrustOptions } from './trust.ts';

export interface SiteCheckOptions extends SiteChoice, TrustOptions {
  /** What will be loaded: its size is compared with the space there. Default: none is looked at. */
  readonly bundle?: string;
  /** Beside it: the base of a delta, other volumes. */
  readonly others?: readonly string[];
  /** Asks a person for the login of a target; absent where nobody can be asked. */
  readonly askLogin?: AskLogin;
}

/** One target of the site and what was found out about it. */
export interface CheckedTarget {
  readonly name: string;
  readonly type: SiteTarget['type'];
  /** Where it is, for people. */
  readonly at: string;
  readonly findings: readonly Finding[];
}

export interface SiteCheckResult {
  /** The path of the site's file. */
  readonly site: string;
  readonly targets: readonly CheckedTarget[];
  /** Findings by their level. */
  readonly counts: Readonly<Record<Level, number>>;
}

/** Targets that are looked at at the same time. */
const TARGETS_PARALLEL = 4;

type Tools = SiteTools & { readonly credentials: CredentialSource | undefined };

/** Where a target is, as a person reads it. */
export function placeText(site: SiteTarget): string {
  switch (site.type) {
    case 'containerd':
      return `${site.socket} ${site.namespaces.join(', ')}`;
    case 'chart-tree':
    case 'files':
      return site.dir;
    case 'devpi':
      return new URL(site.index, site.url).href;
    default:
      return site.url.href;
  }
}

/** The repositories of a Nexus that the site's file names. */
function wantedOf({ docker, helm, pypi, raw }: NexusSite): WantedRepository[] {
  const plain = Object.entries({ helm, pypi, raw }).flatMap(([format, name]) =>
    name === undefined ? [] : [{ format: format as 'helm' | 'pypi' | 'raw', name }],
  );
  const images =
    docker === undefined ? [] : [{ format: 'docker' as const, name: docker.repository, url: docker.url }];
  return [...images, ...plain];
}

async function checkNexusSite(
  site: NexusSite,
  tools: Tools & { readonly credentials: CredentialSource },
): Promise<TargetReport> {
  const { checkNexus } = await import('../target/web/nexus-check.ts');
  const wanted = wantedOf(site);
  const { create, onConflict, blobStore, docker, tls } = site;
  const server = webServerOf(site, tools);
  const report = await checkNexus(server, { wanted, create, onConflict, blobStore });
  const isThere = docker !== undefined && report.findings.some((f) => f.code === 'REPOSITORY');
  if (docker === undefined || !isThere) return report;
  const { checkRegistry } = await import('../target/registry-check.ts');
  const { url } = docker;
  const config = { ...tls, plainHttp: url.protocol === 'http:' };
  const { dockerPlace } = await import('./nexus-targets.ts');
  const place = { ...dockerPlace(docker, site.url), config, credentials: tools.credentials, isNexus: true };
  const images = await checkRegistry(place, tools);
  return { ...report, findings: [...report.findings, ...images.findings] };
}

async function checkRegistrySite(site: RegistrySite, tools: Tools): Promise<TargetReport> {
  const { checkRegistry } = await import('../target/registry-check.ts');
  const { url, prefix, tls } = site;
  const config = { ...tls, plainHttp: url.protocol === 'http:' };
  const { credentials } = tools;
  const logins = credentials === undefined ? {} : { credentials };
  return await checkRegistry({ host: url.host, prefix, config, ...logins }, tools);
}

async function checkTarget(site: SiteTarget, tools: Tools): Promise<TargetReport> {
  const { credentials } = tools;
  if (site.type === 'nexus' && credentials !== undefined)
    return await checkNexusSite(site, { ...tools, credentials });
  if (site.type === 'registry') return await checkRegistrySite(site, tools);
  if (site.type === 'devpi' && credentials !== undefined) {
    const { checkDevpi } = await import('../target/web/devpi-check.ts');
    return await checkDevpi(webServerOf(site, { ...tools, credentials }), site);
  }
  if (site.type === 'containerd') {
    const { checkContainerd } = await import('../target/containerd/check.ts');
    const reports: TargetReport[] = [];
    for (const namespace of site.namespaces) {
      const place = { socket: resolve(site.socket), namespace, target: site.name };
      reports.push(await checkContainerd(place, tools.context));
    }
    const room = reports.find((r) => r.room !== undefined)?.room;
    return { findings: reports.flatMap((r) => r.findings), ...(room === undefined ? {} : { room }) };
  }
  if (site.type === 'chart-tree' || site.type === 'files') {
    const { checkFolder } = await import('../target/folder-check.ts');
    return await checkFolder(site.dir, site.type);
  }
  return { findings: [] };
}

/** Why a server does not answer at all, in the words of the site's file. */
async function unreached(
  error: SealiftError,
  site: NexusSite | RegistrySite | DevpiSite,
  { http }: SiteTools,
): Promise<Finding> {
  const { speaksOther } = await import('../target/scheme.ts');
  const { url, tls } = site;
  const scheme = url.protocol.replace(':', '');
  const other = scheme === 'http' ? 'https' : 'http';
  if (await speaksOther(url, { http, tls })) {
    const message = `${url.host} speaks ${other} there, and the site's file says ${scheme}`;
    return finding('fault', 'TARGET_UNREACHABLE', { message, fix: `write url: ${other}://${url.host}` });
  }
  const port = url.port === '' ? 443 : url.port;
  const fix = isTlsError(error)
    ? `write its CA in the site's file (tls: {caFile: ca.pem}); \`openssl s_client -showcerts -connect ${url.hostname}:${port}\` shows its certificates`
    : `check url of ${site.name}; \`curl ${url.href}\` must answer on this machine`;
  return finding('fault', 'TARGET_UNREACHABLE', { message: error.message, fix });
}

/** Whether a server's own words are only that something is wrong with the way to it. */
function isFarFrom(error: SealiftError): boolean {
  const isStrange = error.code === 'TARGET_UNREACHABLE' || error.code === 'NETWORK_URL_REFUSED';
  return isNetworkError(error) || isStrange;
}

async function reportOf(site: SiteTarget, tools: Tools): Promise<TargetReport> {
  try {
    return await checkTarget(site, tools);
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    const isServer = site.type === 'nexus' || site.type === 'devpi' || site.type === 'registry';
    if (!isServer || !isFarFrom(error)) return { findings: [findingOf(error)] };
    const far = await unreached(error, site, tools);
    // A page of somebody else has a better hint of its own, unless the scheme explains it.
    const isPage = error.code === 'TARGET_UNREACHABLE' && far.message === error.message;
    return { findings: [isPage ? findingOf(error) : far] };
  }
}

async function checkedTarget(
  site: SiteTarget,
  tools: Tools & { readonly plan: SitePlan | undefined },
): Promise<CheckedTarget> {
  tools.context.emit({ type: 'phase', name: 'check', detail: site.name });
  const report = await reportOf(site, tools);
  const planned = tools.plan === undefined ? [] : planFindings(tools.plan, { name: site.name, report });
  return {
    name: site.name,
    type: site.type,
    at: placeText(site),
    findings: [...report.findings, ...spaceFindings(report, tools.plan !== undefined), ...planned],
  };
}

/** How much room there is, where no bundle is compared with it. */
function spaceFindings({ room }: TargetReport, isCompared: boolean): Finding[] {
  if (room === undefined || isCompared) return [];
  const message = `${room.free} bytes are free at ${room.where}`;
  return [finding('ok', 'SPACE', { message, details: { ...room } })];
}

/**
 * Checks every target of a site without changing anything: whether it is reachable, lets us in, takes writes, has the
 * settings that a load needs, and with a bundle the space. Everything that is found is told; what is wrong with one target
 * says nothing about the others.
 * @throws SITE_INVALID, FILE_NOT_FOUND, USAGE for a site without targets; faults of the bundle
 */
export async function siteCheck(options: SiteCheckOptions, context: Context): Promise<SiteCheckResult> {
  const site = await chosenSite(options);
  if (site === undefined || site.targets.length === 0) throw noTargets(site);
  return await withHttp(context, async (http) => {
    const { askLogin } = options;
    const tools: SiteTools = { http, context, ...(askLogin === undefined ? {} : { ask: askLogin }) };
    const logins = await siteLogins(site.targets, tools);
    const { bundle } = options;
    const plan = bundle === undefined ? undefined : await sitePlan({ ...options, bundle }, context);
    const limits = { limit: TARGETS_PARALLEL, signal: context.signal };
    const targets = await mapBounded(site.targets, limits, (target) =>
      checkedTarget(target, { ...tools, plan, credentials: logins.get(target.name) }),
    );
    const counts = { ok: 0, info: 0, warning: 0, fault: 0 };
    for (const { level } of targets.flatMap((t) => t.findings)) counts[level] += 1;
    return { site: site.path, targets, counts };
  });
}

export function noTargets(site: SiteFile | undefined): SealiftError {
  const what = site === undefined ? 'there is no site.yaml here' : `${site.path} names no targets`;
  return new SealiftError('USAGE', what, {
    hint: 'write one with `sealift site init URL`, or name yours with --site FILE',
  });
}

/** The refusal of a check that says no: of the login where only logins lack, else of the site; undefined where all is well. */
export function siteFailure({ targets, counts }: SiteCheckResult): SealiftError | undefined {
  if (counts.fault === 0) return undefined;
  const bad = targets.filter((t) => t.findings.some((f) => f.level === 'fault'));
  const codes = bad.flatMap((t) => t.findings.filter((f) => f.level === 'fault').map((f) => f.code));
  const login = codes.find((code) => code === 'AUTH_DENIED' || code === 'AUTH_REQUIRED');
  const isLogin = codes.every((code) => code === 'AUTH_DENIED' || code === 'AUTH_REQUIRED');
  const names = bad.map((t) => t.name).join(', ');
  const message = `${bad.length} of ${targets.length} targets would not take a load: ${names}`;
  const hint = 'do what stands behind "fix", then run the same command again';
  return isLogin && login !== undefined
    ? new SealiftError(login, message, { hint })
    : new SealiftError('SITE_NOT_READY', message, { hint });
}
