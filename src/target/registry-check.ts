import { type ErrorCode, isAbort, SealiftError } from '../core/errors.ts';
import type { Context } from '../core/events.ts';
import { tlsOptionsOf } from '../io/certificates.ts';
import { errorText, type HttpClient, type HttpResponse } from '../io/http.ts';
import { isNetworkError, isTlsError } from '../io/network-errors.ts';
import { askAccess, type Granted } from '../oci/access.ts';
import type { CredentialSource } from '../oci/credentials.ts';
import { askReferrers } from '../oci/referrers.ts';
import { type HostConfig, RegistryWire } from '../oci/wire.ts';
import { type Finding, finding, findingOf, type TargetReport } from './finding.ts';
import { speaksOther } from './scheme.ts';

export interface RegistryCheck {
  /** As in a reference: `10.0.0.1:5000`. */
  readonly host: string;
  /** Path below which everything is put; '' for none. */
  readonly prefix: string;
  readonly config: HostConfig;
  readonly credentials?: CredentialSource;
  /** It is the docker repository of a Nexus: then a web page means the wrong port of it. */
  readonly isNexus?: boolean;
}

interface Tools {
  readonly http: HttpClient;
  readonly context: Context;
}

/** A digest that nothing has. */
const NOTHING = `sha256:${'0'.repeat(64)}` as const;

function wireOf(place: RegistryCheck, tools: Tools, plainHttp: boolean): RegistryWire {
  const { host, config, credentials } = place;
  const more = credentials === undefined ? {} : { credentials };
  return new RegistryWire(host, { ...tools, config: { ...config, plainHttp }, ...more });
}

/** What `/v2/` is: a registry that lets us in, one that does not, a page of somebody else, or nobody. */
type Door = 'open' | 'login' | 'page' | 'other';

async function knock(wire: RegistryWire): Promise<{ readonly door: Door; readonly answer: HttpResponse }> {
  const url = wire.url('/v2/');
  const answer = await wire.send({ method: 'GET', url, tries: 2 }, { repository: '', access: 'pull' });
  const text = await errorText(answer);
  if (/^\s*</.test(text)) return { door: 'page', answer };
  if (answer.status === 200) return { door: 'open', answer };
  return { door: answer.status === 401 || answer.status === 403 ? 'login' : 'other', answer };
}

function unreachable(message: string, fix: string): Finding {
  return finding('fault', 'TARGET_UNREACHABLE', { message, fix });
}

/** Why nothing that a registry says comes from there. */
async function strangeFinding(
  place: RegistryCheck,
  tools: Tools,
  about: {
    readonly wire: RegistryWire;
    readonly door?: Door;
    readonly status?: number;
    readonly error?: SealiftError;
  },
): Promise<Finding> {
  const { wire, door, status, error } = about;
  const isPlain = wire.base.protocol === 'http:';
  const { host } = place;
  const { http } = tools;
  if (await speaksOther(wire.url('/v2/'), { http, tls: place.config })) {
    return isPlain
      ? unreachable(`${host} speaks HTTPS there, and site.yaml says http`, `write url: https://${host}`)
      : unreachable(`${host} speaks plain HTTP there, and site.yaml says https`, `write url: http://${host}`);
  }
  if (error !== undefined) {
    const message = error.message;
    const isTls = isTlsError(error) && !isPlain;
    const fix = isTls
      ? `write its CA under tls in site.yaml (tls: {caFile: ca.pem}); \`openssl s_client -showcerts -connect ${host.includes(':') ? host : `${host}:443`}\` shows its certificates`
      : `check the address; \`curl ${wire.url('/v2/').href}\` must answer on this machine`;
    return unreachable(message, fix);
  }
  const page = door === 'page' ? ' with a web page' : '';
  const nexus =
    'with Nexus use the port of the docker repository (its connector), not that of its user interface';
  return unreachable(
    `${wire.url('/v2/').href} answered HTTP ${status}${page}: this is not a registry`,
    place.isNexus === true ? `write the address of the connector as docker.url: ${nexus}` : nexus,
  );
}

const AUTH: readonly ErrorCode[] = ['AUTH_DENIED', 'AUTH_REQUIRED'];

async function rightsFindings(
  wire: RegistryWire,
  tools: Tools,
  about: { readonly place: RegistryCheck; readonly repository: string },
): Promise<Finding[]> {
  const { place, repository } = about;
  const { credentials, host } = place;
  const tls = tlsOptionsOf(place.config);
  const more = credentials === undefined ? {} : { credentials };
  let granted: Granted;
  try {
    granted = await askAccess(wire, { ...tools, tls, repository, ...more });
  } catch (error) {
    if (error instanceof SealiftError && AUTH.includes(error.code)) return [findingOf(error)];
    return [findingOf(error, 'warning')];
  }
  if (typeof granted === 'string') {
    const message = `${host} does not tell what this login may do: whether it may push shows only when something is pushed`;
    return [finding('info', 'RIGHTS', { message })];
  }
  if (!granted.includes('push')) {
    const may = granted.length === 0 ? 'nothing' : `only ${granted.join(' and ')}`;
    return [
      finding('fault', 'AUTH_DENIED', {
        message: `${host}: this login may ${may} in ${repository}`,
        fix: `use a login that may push (sealift login ${host}), or have its role changed`,
      }),
    ];
  }
  const remove = granted.includes('delete')
    ? ', and delete for unload'
    : '; not delete, which unload would need';
  return [finding('ok', 'RIGHTS', { message: `${host}: this login may push to ${repository}${remove}` })];
}

/** What unload and signatures depend on. Neither hinders a load. */
async function serviceFindings(wire: RegistryWire, repository: string): Promise<Finding[]> {
  const found: Finding[] = [];
  try {
    const list = await askReferrers(wire, { repository, subject: NOTHING });
    const message =
      list === undefined
        ? `${wire.host} has no referrers API: signatures are found by their fallback tags`
        : `${wire.host} has the referrers API`;
    found.push(finding(list === undefined ? 'info' : 'ok', 'REFERRERS', { message }));
    // The answer to a deletion of what is not there.
    const url = wire.url(`/v2/${repository}/manifests/${NOTHING}`);
    const answer = await wire.send({ method: 'DELETE', url, tries: 1 }, { repository, access: 'push' });
    await answer.body.dump();
    if (answer.status === 405) {
      const says = `${wire.host} deletes nothing: unload cannot take images back`;
      const fix = 'REGISTRY_STORAGE_DELETE_ENABLED=true for the program of distribution';
      found.push(finding('info', 'RIGHTS', { message: says, fix }));
    }
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    found.push(findingOf(error, 'info'));
  }
  return found;
}

/**
 * Checks a registry without leaving anything there: whether one answers, lets us in, and would take a push as far as its
 * tokens tell. An upload that is begun and given up would prove more, and is a change.
 */
export async function checkRegistry(place: RegistryCheck, tools: Tools): Promise<TargetReport> {
  const { host, prefix, config } = place;
  const wire =
    config.plainHttp === undefined
      ? new RegistryWire(host, {
          ...tools,
          config,
          ...(place.credentials === undefined ? {} : { credentials: place.credentials }),
        })
      : wireOf(place, tools, config.plainHttp);
  const repository = prefix === '' ? 'sealift-check' : `${prefix}/sealift-check`;
  try {
    const { door, answer } = await knock(wire);
    if (door === 'page' || door === 'other') {
      return { findings: [await strangeFinding(place, tools, { wire, door, status: answer.status })] };
    }
    if (door === 'login') return { findings: [findingOf(await wire.fail(answer, '/v2/', 'destination'))] };
    const reached = finding('ok', 'REACHABLE', {
      message: `${wire.url('/v2/').href} is a registry, and lets us in`,
    });
    const rights = await rightsFindings(wire, tools, { place, repository });
    const isRefused = rights.some((one) => one.level === 'fault');
    const services = isRefused ? [] : await serviceFindings(wire, repository);
    return { findings: [reached, ...rights, ...services] };
  } catch (error) {
    if (isAbort(error) || !(error instanceof SealiftError)) throw error;
    const isWire = isNetworkError(error) || error.code === 'NETWORK_URL_REFUSED';
    if (!isWire) return { findings: [findingOf(error)] };
    return { findings: [await strangeFinding(place, tools, { wire, error })] };
  }
}
