import { type Digest, hexOf } from '../core/digest.ts';
import { type Distribution, normalizeProject } from '../core/distribution.ts';
import { type Answer, type Exchange, jsonAnswer, NOT_FOUND, refusal } from './answer.ts';
import { type Link, linksPage, urlPath } from './pages.ts';

/** A wheel or source archive of the index. */
export interface IndexedFile extends Pick<Distribution, 'project' | 'version'> {
  /** Where it is served, from the root on: `packages/a-1.tar.gz`. */
  readonly path: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly requiresPython?: string | undefined;
  /** Why its publisher took it back; may be empty. */
  readonly yanked?: string | undefined;
}

const JSON_TYPE = 'application/vnd.pypi.simple.v1+json';
const HTML_TYPE = 'application/vnd.pypi.simple.v1+html';
const PLAIN_TYPE = 'text/html';
const NAMES: Readonly<Record<string, string>> = {
  'application/vnd.pypi.simple.latest+json': JSON_TYPE,
  'application/vnd.pypi.simple.latest+html': HTML_TYPE,
  [JSON_TYPE]: JSON_TYPE,
  [HTML_TYPE]: HTML_TYPE,
  [PLAIN_TYPE]: PLAIN_TYPE,
  'text/*': PLAIN_TYPE,
  '*/*': PLAIN_TYPE,
};

/** What a client likes best of what there is (PEP 691, "Version + Format Selection"); undefined when it is none of these. */
function chooseType(accept: string | undefined): string | undefined {
  let best: { readonly type: string; readonly weight: number } | undefined;
  for (const part of (accept ?? '*/*').slice(0, 1000).split(',')) {
    const [name = '', ...parameters] = part.split(';').map((text) => text.trim());
    const type = NAMES[name.toLowerCase()];
    const q = parameters.find((p) => /^q=/i.test(p))?.slice(2);
    const weight = q === undefined ? 1 : Number(q);
    if (type !== undefined && weight > 0 && weight > (best?.weight ?? 0)) best = { type, weight };
  }
  return best?.type;
}

/** Answers the simple index under `/simple/`: PEP 503 and 592 in HTML, PEP 691 and 700 in JSON. */
export function createSimpleIndex(files: readonly IndexedFile[]): (exchange: Exchange) => Answer {
  const projects = new Map<string, IndexedFile[]>();
  for (const file of files) projects.set(file.project, [...(projects.get(file.project) ?? []), file]);
  const names = [...projects.keys()].sort();
  /** By type: all who ask for the whole list get the same bytes. */
  const lists = new Map<string, Answer>();
  const listOf = (type: string): Answer => {
    const list = lists.get(type) ?? listProjects(names, type);
    lists.set(type, list);
    return list;
  };
  return ({ path, request }) => {
    const [, asked, slash] = /^\/simple\/(?:([^/]+)(\/)?)?$/.exec(path) ?? [];
    if (asked === undefined && path !== '/simple/') return NOT_FOUND;
    const type = chooseType(request.headers.accept);
    if (type === undefined) {
      return refusal('UNSUPPORTED', `there is ${JSON_TYPE}, ${HTML_TYPE} and ${PLAIN_TYPE}`, { status: 406 });
    }
    if (asked === undefined) return listOf(type);
    const project = normalizeProject(asked);
    const found = projects.get(project);
    if (found === undefined) return NOT_FOUND;
    if (asked === project && slash !== undefined) return listFiles(project, found, type);
    const location = slash === undefined ? `./${project}/` : `../${project}/`;
    return { status: 301, headers: { location } };
  };
}

/** The same document for all, in the form that was asked for. */
const VARY = { vary: 'accept' };
const HEAD = '<meta name="pypi:repository-version" content="1.1">';

function page(title: string, links: readonly Link[], type: string): Answer {
  const answer = linksPage(title, links, { type: `${type}; charset=utf-8`, head: HEAD });
  return { ...answer, headers: { ...answer.headers, ...VARY } };
}

function listProjects(names: readonly string[], type: string): Answer {
  if (type !== JSON_TYPE) {
    return page(
      'Simple index',
      names.map((name) => ({ href: `${name}/`, text: name })),
      type,
    );
  }
  const projects = names.map((name) => ({ name }));
  return jsonAnswer({ meta: { 'api-version': '1.1' }, projects }, { type, headers: VARY });
}

function listFiles(project: string, files: readonly IndexedFile[], type: string): Answer {
  return type === JSON_TYPE ? jsonFiles(project, files) : linkedFiles(project, files, type);
}

const fileName = (path: string): string => path.split('/').at(-1) ?? path;
const urlOf = ({ path }: IndexedFile): string => `../../${urlPath(path)}`;

function linkedFiles(project: string, files: readonly IndexedFile[], type: string): Answer {
  const links = files.map((file) => ({
    href: `${urlOf(file)}#sha256=${hexOf(file.digest)}`,
    text: fileName(file.path),
    attributes: { 'data-requires-python': file.requiresPython, 'data-yanked': file.yanked },
  }));
  return page(`Links for ${project}`, links, type);
}

function jsonFiles(project: string, files: readonly IndexedFile[]): Answer {
  return jsonAnswer(
    {
      meta: { 'api-version': '1.1' },
      name: project,
      versions: [...new Set(files.map(({ version }) => version))],
      files: files.map((file) => ({
        filename: fileName(file.path),
        url: urlOf(file),
        hashes: { sha256: hexOf(file.digest) },
        size: file.size,
        'requires-python': file.requiresPython,
        // Without a reason it is only true.
        yanked: file.yanked === '' ? true : file.yanked,
      })),
    },
    { type: JSON_TYPE, headers: VARY },
  );
}
