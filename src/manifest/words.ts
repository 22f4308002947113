import { posix } from 'node:path';
import { SealiftError } from '../core/errors.ts';
import { parseMirror } from '../core/mirror.ts';
import { parsePlatform } from '../core/platform.ts';
import { isTargetPython, parseWheelPlatform } from '../core/python-target.ts';
import { isHost, isRepository, parseReference } from '../core/reference.ts';

/** What is wrong with one text of the manifest, and what to write instead. */
export interface Wrong {
  readonly message: string;
  readonly hint?: string;
}

/** A rule for one text: undefined when the text keeps it. */
export type Rule = (text: string) => Wrong | undefined;

const BUNDLE_NAME = /^[a-z0-9][a-z0-9._-]{0,127}$/;
const BUNDLE_VERSION = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$/;
const CHART_NAME = /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}$/;
/** One version as Helm reads it (Masterminds/semver NewVersion): parts may lack, a leading v is allowed. */
export const CHART_VERSION =
  /^v?[0-9]+(?:\.[0-9]+){0,2}(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?$/;
const HEX_SHA256 = /^(?:sha256:)?[0-9a-f]{64}$/;
const MODE = /^0?[0-7]{3}$/;
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
const MAX_PATH = 1024;
const MAX_PART = 255;

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}

function pattern(regex: RegExp, what: string, hint: string): Rule {
  return (text) => (regex.test(text) ? undefined : { message: `${shown(text)} is not ${what}`, hint });
}

/** The rule of a reader that throws: its message and hint. */
function readable(read: (text: string) => unknown): Rule {
  return (text) => {
    try {
      read(text);
      return undefined;
    } catch (error) {
      if (!(error instanceof SealiftError)) throw error;
      return { message: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) };
    }
  };
}

export const isBundleName = pattern(
  BUNDLE_NAME,
  'a bundle name',
  'use lower-case letters, digits, ".", "_" and "-", at most 128, a letter or digit first',
);
export const isBundleVersion = pattern(
  BUNDLE_VERSION,
  'a bundle version',
  'use letters, digits, ".", "_", "+" and "-", at most 128, a letter or digit first',
);
export const isChartName = pattern(
  CHART_NAME,
  'a chart name',
  'use letters, digits, ".", "_" and "-", a letter or digit first',
);
export const isChartVersion: Rule = (text) =>
  text.length <= 128 && CHART_VERSION.test(text)
    ? undefined
    : {
        message: `${shown(text)} is not one chart version`,
        hint: 'write the exact version as the repository lists it, such as 4.9.0 or v4.9.0; ranges are not possible',
      };
export const isSha256 = pattern(HEX_SHA256, 'a SHA-256', 'write its 64 lower-case hex digits');
export const isMode = pattern(
  MODE,
  'a file mode',
  'write permission bits in octal, such as "0644" or "0755"',
);
export const isPlatformText = readable(parsePlatform);
export const isReferenceText = readable(parseReference);

/** http or https, without user name and password: those would end in the lock, which is committed. */
export const isWebUrl: Rule = (text) => {
  const hint = 'write a full address, such as https://charts.example.com/stable';
  if (!URL.canParse(text) || CONTROL.test(text) || /\s/.test(text)) {
    return { message: `${shown(text)} is not a URL`, hint };
  }
  const url = new URL(text);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    return { message: `${shown(text)}: expected http or https, found ${url.protocol.slice(0, -1)}`, hint };
  }
  if (url.username !== '' || url.password !== '') {
    return {
      message: `${shown(text)} has a user name or a password in it`,
      hint: 'leave them out: logins come from `helm repo add` and from SEALIFT_CREDENTIALS_<HOST>_USERNAME and _PASSWORD',
    };
  }
  return undefined;
};

/** A chart in a registry: `oci://host[:port]/path/name`, no tag and no digest. */
export const isOciUrl: Rule = (text) => {
  const hint = 'write oci://host/path/name; the version stands in `version`';
  const match = /^oci:\/\/([^/]+)\/(.+)$/.exec(text);
  const [, host = '', path = ''] = match ?? [];
  if (match === null) return { message: `${shown(text)} is not an oci:// address`, hint };
  if (host.includes('@')) {
    return {
      message: `${shown(text)} has a user name or a password in it`,
      hint: 'log in with `sealift login` (or docker, podman, helm); never write credentials in the manifest',
    };
  }
  if (!isHost(host)) return { message: `${shown(text)}: ${shown(host)} is not a host name`, hint };
  if (!isRepository(path))
    return { message: `${shown(text)}: ${shown(path)} is not a repository name`, hint };
  return undefined;
};

/**
 * A file or folder beside the manifest. `..` is allowed (charts may live next to the delivery), an absolute path is
 * not: the lock would hold a path of this machine.
 */
export const isLocalPath: Rule = (text) => {
  const hint = 'write a path relative to the manifest, with "/" between its parts';
  if (text === '' || text.length > MAX_PATH) {
    return { message: `${shown(text)}: a path has 1 to ${MAX_PATH} characters`, hint };
  }
  if (CONTROL.test(text)) return { message: `${shown(text)}: control characters in a path`, hint };
  if (text.includes('\\')) return { message: `${shown(text)}: "\\" in a path`, hint };
  if (posix.isAbsolute(text) || /^[a-zA-Z]:/.test(text)) {
    return { message: `${shown(text)} is an absolute path`, hint };
  }
  return undefined;
};

/** The name under which a file is carried and written: relative, and never upwards. */
export const isFileName: Rule = (text) => {
  const wrong = isLocalPath(text);
  if (wrong !== undefined) return { ...wrong, hint: 'write a relative name, such as bin/kubectl' };
  const hint = 'write a plain relative name, such as bin/kubectl, without "." and ".." and empty parts';
  for (const part of text.split('/')) {
    if (part === '' || part === '.' || part === '..') {
      return { message: `${shown(text)}: ${shown(part)} cannot be a part of a file name`, hint };
    }
    if (Buffer.byteLength(part) > MAX_PART) {
      return {
        message: `${shown(text)}: a part is longer than ${MAX_PART} bytes`,
        hint: 'use a shorter name',
      };
    }
  }
  return undefined;
};

export const isRegistryHost: Rule = (text) =>
  isHost(text)
    ? undefined
    : {
        message: `${shown(text)} is not a registry host`,
        hint: 'write host or host:port, without https:// and without a path',
      };

/** A registry, an archive beside the manifest, or a containerd (core/mirror). Its path may be absolute: no lock holds it. */
export const isMirror: Rule = (text) => {
  const mirror = CONTROL.test(text) ? undefined : parseMirror(text);
  if (mirror?.kind === 'archive') return isLocalPath(mirror.path.replace(/^\/+(?=.)/, ''));
  if (mirror !== undefined) return undefined;
  return {
    message: `${shown(text.replace(/\/\/[^/]*@/, '//***@'))} is not a mirror`,
    hint: 'write host[:port][/prefix] (with http:// in front when it has no TLS, without credentials), bundle:PATH, oci:PATH, oci-archive:PATH, docker-archive:PATH, or containerd:///run/containerd/containerd.sock?namespace=NAME',
  };
};

/** A pattern for image lists: relative, no negation. */
export const isListPattern: Rule = (text) =>
  text.startsWith('!')
    ? { message: `${shown(text)}: a pattern cannot start with "!"`, hint: 'name the lists that you want' }
    : isLocalPath(text);

export const isPythonText: Rule = (text) =>
  isTargetPython(text)
    ? undefined
    : {
        message: `${shown(text)} is not a version of Python`,
        hint: 'write 3.8 or later, without a patch version, such as "3.11"',
      };

export const isWheelPlatformText = readable(parseWheelPlatform);

/** A simple index (PEP 503): an address without login, query and fragment, all of which could be secrets. */
export const isIndexUrl: Rule = (text) => {
  if (/:\/\/[^/\s?#]*@/.test(text)) {
    return {
      message: 'the address of an index has a user name or a password in it',
      hint: 'leave them out: logins come from netrc, from the configuration of pip or uv, and from SEALIFT_CREDENTIALS_<HOST>_USERNAME and _PASSWORD',
    };
  }
  const wrong = isWebUrl(text);
  if (wrong !== undefined)
    return { ...wrong, hint: 'write a full address, such as https://HOST/repository/NAME/simple' };
  return /[?#]/.test(text)
    ? { message: `${shown(text.replace(/[?#].*$/, ''))} has a query or a fragment`, hint: 'leave it out' }
    : undefined;
};

/**
 * One requirement as a line of a requirements file (PEP 508), or the path of a wheel. It is handed to another program
 * in a file: it must be one line, and nothing but a requirement.
 */
export const isRequirementText: Rule = (text) => {
  const hint = 'write a project with its versions, such as "requests>=2.31", or the path of a wheel';
  if (text.trim() !== text || text === '' || text.length > MAX_PATH || CONTROL.test(text)) {
    return { message: `${shown(text)} is not one requirement`, hint };
  }
  if (/:\/\/[^/\s?#]*@/.test(text)) {
    return { message: 'a requirement has a user name or a password in it', hint };
  }
  if (text.startsWith('-') || /\s--?[A-Za-z]/.test(text)) {
    return {
      message: `${shown(text)}: an option is not a requirement`,
      hint: 'options go into a file under requirements',
    };
  }
  if (/[\\$`]|(?:^|\s)#/.test(text)) return { message: `${shown(text)}: "\\", "$", "\`" or a comment`, hint };
  return undefined;
};
