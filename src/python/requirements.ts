import { type Digest, digestOfHex } from '../core/digest.ts';
import { normalizeProject } from '../core/distribution.ts';
import { type Fault, fault } from '../core/errors.ts';

/** What one line of a requirements file asks for. */
export type Requirement =
  /** A project by its name, with the hashes that its files may have; none: any. */
  | { readonly kind: 'project'; readonly name: string; readonly hashes: readonly Digest[] }
  /** A wheel or source archive on this disk, as written. */
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'include'; readonly path: string; readonly as: 'requirements' | 'constraints' }
  | { readonly kind: 'index'; readonly url: string; readonly isExtra: boolean }
  /** A folder on this disk that is looked into beside the indexes. */
  | { readonly kind: 'findLinks'; readonly path: string };

interface Line {
  readonly text: string;
  /** 1-based: of its first part. */
  readonly number: number;
}

const ARCHIVE = /\.(?:whl|tar\.gz|zip)$/;
const HASH = /(?:^|\s)--hash[= ]\s*(\S+)/g;
const NAME = /^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:$|[[<>=!~;@(\s])/;

/** Lines without comments, those joined that a `\` at the end goes on with (pip's "Requirements File Format"). */
function* linesOf(text: string): Generator<Line> {
  let open: { text: string; number: number } | undefined;
  for (const [i, raw] of `${text}\n`.split(/\r\n|\n|\r/).entries()) {
    const isComment = /^\s*#/.test(raw);
    const number = open?.number ?? i + 1;
    const so = `${open?.text ?? ''}${isComment ? '' : raw}`;
    open = undefined;
    if (!isComment && raw.endsWith('\\')) {
      open = { text: `${so.slice(0, -1)} `, number };
      continue;
    }
    const line = so.replace(/(?:^|\s)#.*$/, '').trim();
    if (line !== '') yield { text: line, number };
  }
}

/** The parts of an address that names user and password. */
export function hasCredentials(text: string): boolean {
  return /:\/\/[^/\s?#]*@/.test(text);
}

const OPTION = /^(--?[A-Za-z][A-Za-z-]*)(?:\s*=\s*|\s+)?(.*)$/;
const LONG: Readonly<Record<string, string>> = {
  '-c': '--constraint',
  '-e': '--editable',
  '-f': '--find-links',
  '-i': '--index-url',
  '-r': '--requirement',
};
/** What the resolver reads by itself, and what does not decide which files there are. */
const IGNORED: ReadonlySet<string> = new Set([
  '--no-index',
  '--only-binary',
  '--pre',
  '--prefer-binary',
  '--require-hashes',
  '--trusted-host',
  '--use-feature',
]);

/** `wrong` never repeats the line: what a requirements file includes may be any file of this machine. */
type Read = Requirement | { readonly wrong: string; readonly hint: string } | undefined;

function readOption(text: string): Read {
  // `-rfile` is `-r file`.
  const split = /^-[cefir][^\s=-]/.test(text) ? `${text.slice(0, 2)} ${text.slice(2)}` : text;
  const [, short = '', value = ''] = OPTION.exec(split) ?? [];
  const option = LONG[short] ?? short;
  if (IGNORED.has(option)) return undefined;
  if (option === '--requirement' || option === '--constraint') {
    const as = option === '--requirement' ? 'requirements' : 'constraints';
    if (!value.includes('://') && value !== '') return { kind: 'include', path: value, as };
    return { wrong: `${option} ${value} is not a file`, hint: 'put the file beside the manifest' };
  }
  if (option === '--index-url' || option === '--extra-index-url') {
    return { kind: 'index', url: value, isExtra: option === '--extra-index-url' };
  }
  if (option === '--find-links') {
    if (!value.includes('://')) return { kind: 'findLinks', path: value };
    return {
      wrong: `--find-links ${value} is not a folder`,
      hint: 'name a folder, or a simple index under python.indexes in sealift.yaml',
    };
  }
  if (option === '--no-binary') {
    return {
      wrong: '--no-binary has the resolver run the code of source archives',
      hint: 'leave it out; source archives are carried with sdists: true in sealift.yaml',
    };
  }
  if (option === '--editable') {
    return {
      wrong: `what is installed from its sources cannot be carried`,
      hint: 'build a wheel of it (`pip wheel --no-deps .`) and name the wheel: ./wheels/NAME.whl',
    };
  }
  return {
    wrong: `${option} is not understood here`,
    hint: 'leave it out, or set it for the resolver itself',
  };
}

/** Where a requirement that is no plain project comes from: `./x.whl`, `git+https://…`, `name @ https://…`. */
function readPlace(text: string): Read {
  const place = text.replace(/^[^\s@;/]+\s*(?:\[[^\]]*\])?\s*@\s*/, '').replace(/\s+;.*$/, '');
  if (/^(?:git|hg|svn|bzr)\+/.test(place)) {
    return {
      wrong: `a repository of sources cannot be carried`,
      hint: 'build a wheel of it (`pip wheel --no-deps`) and name the wheel: ./wheels/NAME.whl',
    };
  }
  if (/^file:/.test(place) || place.startsWith('/')) {
    return {
      wrong: 'an absolute path',
      hint: 'write a path relative to sealift.yaml',
    };
  }
  if (/^https?:\/\//.test(place)) {
    return ARCHIVE.test(place.replace(/[?#].*$/, ''))
      ? undefined
      : {
          wrong: `neither a wheel nor a source archive`,
          hint: 'name the file itself',
        };
  }
  if (ARCHIVE.test(place)) return { kind: 'path', path: place };
  return {
    wrong: 'this is not a requirement',
    hint: 'write a project with its versions, such as requests>=2.31, or the path of a wheel',
  };
}

function isPlace(text: string): boolean {
  return /^[./]|^[A-Za-z+]+:|^[^\s;]*\.(?:whl|tar\.gz|zip)(?:\s|$)|^[^\s;[]+\s*(?:\[[^\]]*\])?\s*@/.test(
    text,
  );
}

function readLine(text: string): Read {
  if (hasCredentials(text)) {
    return {
      wrong: 'an address has a user name or a password in it',
      hint: 'leave them out: the resolver takes them from netrc, keyring or its own configuration',
    };
  }
  if (text.startsWith('-')) return readOption(text);
  if (isPlace(text)) return readPlace(text);
  const name = NAME.exec(text)?.[1];
  if (name === undefined) return readPlace(text);
  const hashes = [...text.matchAll(HASH)].flatMap(([, hash = '']) => {
    const hex = /^sha256:([0-9a-f]{64})$/i.exec(hash)?.[1];
    return hex === undefined ? [] : [digestOfHex(hex.toLowerCase())];
  });
  if (hashes.length === 0 && / --hash\b/.test(text)) {
    return { wrong: `${name} has no SHA-256 among its hashes`, hint: 'add --hash=sha256:… for its files' };
  }
  return { kind: 'project', name: normalizeProject(name), hashes };
}

/**
 * What a requirements or constraints file asks for, as far as it decides which files are carried: what its lines mean is
 * for the resolver to say. Environment variables are not filled in.
 * @param file its name in faults
 * @returns faults: MANIFEST_INVALID with the place, for lines whose content cannot be carried or that hold a password
 */
export function parseRequirements(
  text: string,
  file: string,
): { readonly requirements: readonly Requirement[]; readonly faults: readonly Fault[] } {
  const requirements: Requirement[] = [];
  const faults: Fault[] = [];
  for (const line of linesOf(text)) {
    const read = readLine(line.text);
    if (read === undefined) continue;
    if (!('wrong' in read)) requirements.push(read);
    else {
      const position = { file, line: line.number, column: 1 };
      faults.push(fault('MANIFEST_INVALID', read.wrong, { position, hint: read.hint }));
    }
  }
  return { requirements, faults };
}
