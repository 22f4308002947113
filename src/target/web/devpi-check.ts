import { LIMITS } from '../../core/limits.ts';
import { type Finding, finding, findingOf, someOf, type TargetReport } from '../finding.ts';
import type { OnConflict } from '../target.ts';
import type { WebServer } from './server.ts';

export interface DevpiPlace {
  /** `user/index`. */
  readonly index: string;
  /** A missing index is made by the load. */
  readonly create: boolean;
  readonly onConflict: OnConflict;
}

const ANYBODY = ':ANONYMOUS:';
const KNOWN_USERS = ':AUTHENTICATED:';

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}

function texts(value: unknown): string[] {
  const all: readonly unknown[] = Array.isArray(value) ? value : [];
  return all.filter((one): one is string => typeof one === 'string').slice(0, 100);
}

/** The user that this login is, '' for nobody; undefined where what answers is no devpi. */
async function userOf(server: WebServer): Promise<string | undefined> {
  const api = await server.json('+api', LIMITS.nexusAnswer);
  const status = field(field(api, 'result'), 'authstatus');
  if (!Array.isArray(status)) return undefined;
  const [state, name] = texts(status);
  return state === 'ok' ? (name ?? '') : '';
}

/**
 * Why nobody, or somebody else, may not upload, in devpi's own answer: an upload is asked for with an action that does not
 * exist, which is refused after the login and before anything is written.
 */
async function loginFindings(server: WebServer, index: string): Promise<Finding[]> {
  const response = await server.send({
    method: 'POST',
    path: `${index}/`,
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: Buffer.from(':action=sealift-check'),
    tries: 1,
  });
  if (response.status === 401 || response.status === 403) {
    return [findingOf(await server.fail(response, `uploading to ${index}`))];
  }
  await response.body.dump();
  return [];
}

function indexFindings(config: unknown, { index, onConflict }: DevpiPlace): Finding[] {
  const type = field(config, 'type');
  if (type !== 'stage') {
    return [
      finding('fault', 'REPOSITORY_TYPE', {
        message: `${index} is a ${String(type).slice(0, 30)}, which takes no uploads`,
        fix: 'name an index of the type stage, or a new one with create: true',
      }),
    ];
  }
  const found = [finding('ok', 'INDEX', { message: `${index} is an index that takes uploads` })];
  const bases = texts(field(config, 'bases'));
  if (bases.length > 0) {
    found.push(
      finding('warning', 'INDEX', {
        message: `${index} also shows what ${someOf(bases)} has: pip may take files from there, or wait for a network that is not there`,
        fix: `devpi index ${index} bases=`,
      }),
    );
  }
  const isVolatile = field(config, 'volatile') === true;
  if (isVolatile) {
    const message = `${index} is volatile: whoever may upload can replace and delete what was loaded`;
    found.push(finding('info', 'INDEX', { message, fix: `devpi index ${index} volatile=False` }));
  } else if (onConflict === 'replace') {
    found.push(
      finding('warning', 'WRITE_POLICY', {
        message: `${index} lets nothing be replaced (it is not volatile), and onConflict is replace: what differs there will fail`,
        fix: `devpi index ${index} volatile=True; or write onConflict: fail or keep`,
      }),
    );
  }
  return found;
}

/** Who may upload, against who we are. */
async function rightsFindings(
  server: WebServer,
  about: { readonly user: string; readonly config: unknown; readonly index: string },
): Promise<Finding[]> {
  const { user, config, index } = about;
  const allowed = texts(field(config, 'acl_upload'));
  const isAllowed =
    allowed.includes(ANYBODY) || (user !== '' && (allowed.includes(user) || allowed.includes(KNOWN_USERS)));
  if (isAllowed) {
    const who = user === '' ? 'anybody' : user;
    return [finding('ok', 'RIGHTS', { message: `${who} may upload to ${index}` })];
  }
  if (user === '') return await loginFindings(server, index);
  // Groups of an LDAP server are not told: an answer of devpi itself decides.
  const refused = await loginFindings(server, index);
  if (refused.length === 0) return [finding('ok', 'RIGHTS', { message: `${user} may upload to ${index}` })];
  const fix = `devpi index ${index} acl_upload+=${user}; or use a login of ${someOf(allowed)}`;
  return refused.map((one) => ({ ...one, message: `${one.message} (only ${someOf(allowed)} may)`, fix }));
}

/** An index that a load makes: its user must be there, and be us. */
async function absentFindings(
  server: WebServer,
  about: { readonly user: string; readonly place: DevpiPlace },
): Promise<Finding[]> {
  const { user, place } = about;
  const { index, create } = place;
  const [owner = ''] = index.split('/');
  if (!create) {
    return [
      finding('fault', 'REPOSITORY_ABSENT', {
        message: `there is no index ${index}`,
        fix: `write create: true for this target, or: devpi index -c ${index} bases= volatile=False`,
      }),
    ];
  }
  const found = [
    finding('info', 'REPOSITORY_ABSENT', { message: `${index} is not there: the load makes it` }),
  ];
  if ((await server.json(`${owner}?no_projects=`, LIMITS.nexusAnswer)) === undefined) {
    const message = `there is no user ${owner}, whose index ${index} would be`;
    return [...found, finding('fault', 'LOGIN', { message, fix: `devpi user -c ${owner}` })];
  }
  if (user === owner || user === 'root') return found;
  const message = `${index} can only be made with the login of ${owner}`;
  const fix = `set the login of ${owner} for ${server.base.host} (credentials in site.yaml)`;
  return [...found, finding('fault', user === '' ? 'AUTH_REQUIRED' : 'AUTH_DENIED', { message, fix })];
}

/**
 * Checks an index of devpi without changing anything: whether it is there or can be made, and whether this login may upload.
 * @throws TARGET_UNREACHABLE where no devpi answers, AUTH_REQUIRED, AUTH_DENIED; ABORTED
 */
export async function checkDevpi(server: WebServer, place: DevpiPlace): Promise<TargetReport> {
  const user = await userOf(server);
  if (user === undefined) {
    const message = `${server.base.href}: what answers is no devpi`;
    const fix = 'check the address: http://HOST:3141/USER/INDEX';
    return { findings: [finding('fault', 'TARGET_UNREACHABLE', { message, fix })] };
  }
  const who = user === '' ? 'nobody' : user;
  const reached = finding('ok', 'REACHABLE', { message: `${server.base.href}: devpi, logged in as ${who}` });
  const answer = await server.json(`${place.index}?no_projects=`, LIMITS.nexusAnswer);
  if (answer === undefined)
    return { findings: [reached, ...(await absentFindings(server, { user, place }))] };
  const config = field(answer, 'result');
  const rights = await rightsFindings(server, { user, config, index: place.index });
  return { findings: [reached, ...indexFindings(config, place), ...rights] };
}
