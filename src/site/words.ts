import { isHost, isRepository } from '../core/reference.ts';
import { isWebUrl, type Rule } from '../manifest/words.ts';

const TARGET_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** As Nexus itself demands it. */
const NEXUS_REPOSITORY = /^[A-Za-z0-9-][A-Za-z0-9_.-]{0,199}$/;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const NAMESPACE = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const WRITERS_MOST = 20;

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}

function pattern(regex: RegExp, what: string, hint: string): Rule {
  return (text) => (regex.test(text) ? undefined : { message: `${shown(text)} is not ${what}`, hint });
}

export const isTargetName = pattern(
  TARGET_NAME,
  'a name of a target',
  'use letters, digits, ".", "_" and "-", at most 64, a letter or digit first',
);
export const isNexusRepository = pattern(
  NEXUS_REPOSITORY,
  'a name of a repository in Nexus',
  'use letters, digits, "-", "_" and ".", a letter, digit or "-" first',
);
export const isVariablePrefix = pattern(
  VARIABLE,
  'the start of the names of two variables',
  'write NEXUS for NEXUS_USERNAME and NEXUS_PASSWORD',
);
export const isContainerdNamespace = pattern(
  NAMESPACE,
  'a namespace of containerd',
  'kubelet looks into k8s.io only',
);

export const isPrefix: Rule = (text) =>
  isRepository(text)
    ? undefined
    : {
        message: `${shown(text)} is not a path in a registry`,
        hint: 'write lower-case names with "/" between them, such as gpu/mirror',
      };

export const isWriters: Rule = (text) => {
  const isNumber = /^[0-9]{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= WRITERS_MOST;
  return isNumber ? undefined : { message: `${shown(text)}: expected a number from 1 to ${WRITERS_MOST}` };
};

export const isPort: Rule = (text) => {
  const isNumber = /^[0-9]{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535;
  return isNumber ? undefined : { message: `${shown(text)}: expected a port from 1 to 65535` };
};

/** http or https, with no login, query or fragment. */
export const isServerUrl: Rule = (text) => {
  const wrong = isWebUrl(text);
  if (wrong !== undefined) {
    const hasLogin = URL.canParse(text) && new URL(text).username + new URL(text).password !== '';
    const hint = hasLogin
      ? 'leave them out and write credentials: {env: NAME}, for NAME_USERNAME and NAME_PASSWORD'
      : 'write a full address, such as https://nexus.local or http://10.0.0.5:5001';
    return { message: wrong.message, hint };
  }
  const { search, hash } = new URL(text);
  if (search === '' && hash === '') return undefined;
  return { message: `${shown(text)} has "?" or "#" in it`, hint: 'write the address only' };
};

/** A registry: its path is the prefix below which everything is put. */
export const isRegistryUrl: Rule = (text) => {
  const wrong = isServerUrl(text);
  if (wrong !== undefined) return wrong;
  const { host, pathname } = new URL(text);
  const path = pathname.replace(/^\/+|\/+$/g, '');
  if (isHost(host) && (path === '' || isRepository(path))) return undefined;
  return {
    message: `${shown(text)} is not an address of a registry`,
    hint: 'write https://host[:port] and, where everything shall lie below a path, that path',
  };
};

/** An index of devpi: `http://host:3141/user/index`. */
export const isDevpiUrl: Rule = (text) => {
  const wrong = isServerUrl(text);
  if (wrong !== undefined) return wrong;
  const parts = new URL(text).pathname.split('/').filter((part) => part !== '');
  return parts.length >= 2
    ? undefined
    : {
        message: `${shown(text)} names no index`,
        hint: 'write the server with user and index, such as http://devpi.local:3141/root/prod',
      };
};
