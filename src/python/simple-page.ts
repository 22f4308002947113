import { Parser } from 'htmlparser2';
import { z } from 'zod';
import { type Digest, digestOfHex } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

/** A file of a project, as a simple index names it. */
export interface IndexFile {
  readonly file: string;
  /** Absolute, without login, query and fragment: those may be secrets, and a lock is read by many. */
  readonly url: string;
  /** Absent where the index names none. */
  readonly sha256: Digest | undefined;
  /** Hex digits; only where it names no better hash, as old Nexus does. */
  readonly md5?: string;
  /** Bytes; absent where the index names none. */
  readonly size?: number;
  /** As written (PEP 503, `data-requires-python`). */
  readonly requiresPython?: string;
  /** Why it was taken back (PEP 592); empty where no reason is given. */
  readonly yanked?: string;
}

const FILE = /^[A-Za-z0-9][A-Za-z0-9._!+-]{0,254}$/;
const HEX = /^[0-9a-f]{64}$/;
const MD5 = /^[0-9a-f]{32}$/;
const PRINTABLE = /^[\x20-\x7e]{1,1024}$/;
const MAX_REASON = 1000;

const jsonFile = z.object({
  filename: z.string(),
  url: z.string(),
  hashes: z.record(z.string(), z.string()).catch({}),
  'requires-python': z.string().nullish().catch(null),
  yanked: z.union([z.boolean(), z.string()]).nullish().catch(null),
  size: z.int().min(0).nullish().catch(null),
});
const jsonPage = z.object({ files: z.array(z.unknown()).max(LIMITS.simpleFiles) });

interface Named {
  readonly file: string;
  readonly address: string;
  readonly sha256: string | undefined;
  readonly md5: string | undefined;
  readonly size?: number | null | undefined;
  readonly requiresPython?: string | null | undefined;
  readonly yanked?: string | undefined;
}

/** What a page says of one file; undefined for what cannot be fetched or named in a lock. */
function fileOf(named: Named, base: string): IndexFile | undefined {
  const { file, size, requiresPython, yanked } = named;
  if (!FILE.test(file) || !URL.canParse(named.address, base)) return undefined;
  const url = new URL(named.address, base);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return undefined;
  // As with redirects: from https nothing leads to plain http, where a login would be seen.
  if (url.protocol === 'http:' && new URL(base).protocol === 'https:') return undefined;
  url.username = '';
  url.password = '';
  url.search = '';
  url.hash = '';
  const hex = named.sha256?.toLowerCase() ?? '';
  const md5 = named.md5?.toLowerCase() ?? '';
  const requires = requiresPython?.trim() ?? '';
  return {
    file,
    url: url.href,
    sha256: HEX.test(hex) ? digestOfHex(hex) : undefined,
    ...(MD5.test(md5) && !HEX.test(hex) ? { md5 } : {}),
    ...(typeof size === 'number' ? { size } : {}),
    ...(PRINTABLE.test(requires) ? { requiresPython: requires } : {}),
    ...(yanked === undefined ? {} : { yanked: plainText(yanked) }),
  };
}

function plainText(text: string): string {
  return text
    .replace(/[\s\u0000-\u001f\u007f-\u009f]+/g, ' ')
    .trim()
    .slice(0, MAX_REASON);
}

function filesOfJson(text: string, base: string): IndexFile[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const page = jsonPage.safeParse(value);
  if (!page.success) return undefined;
  return page.data.files.flatMap((entry) => {
    const read = jsonFile.safeParse(entry);
    if (!read.success) return [];
    const { filename, url, hashes, size, yanked } = read.data;
    const why = typeof yanked === 'string' ? yanked : yanked === true ? '' : undefined;
    const named: Named = {
      file: filename,
      address: url,
      sha256: hashes.sha256,
      md5: hashes.md5,
      size,
      requiresPython: read.data['requires-python'],
      ...(why === undefined ? {} : { yanked: why }),
    };
    return fileOf(named, base) ?? [];
  });
}

/** The last part of an address's path, as a file name. */
function nameOf(url: URL): string {
  try {
    return decodeURIComponent(url.pathname.slice(url.pathname.lastIndexOf('/') + 1));
  } catch {
    return '';
  }
}

function filesOfHtml(text: string, address: string): IndexFile[] {
  const files: IndexFile[] = [];
  let base = address;
  let seen = 0;
  const parser = new Parser({
    onopentag: (tag, attributes) => {
      const { href } = attributes;
      if (href === undefined || seen >= LIMITS.simpleFiles) return;
      if (tag === 'base' && seen === 0 && URL.canParse(href, address)) base = new URL(href, address).href;
      if (tag !== 'a' || !URL.canParse(href, base)) return;
      seen += 1;
      const url = new URL(href, base);
      const yanked = attributes['data-yanked'];
      const named: Named = {
        file: nameOf(url),
        address: href,
        sha256: /^#(?:.*&)?sha256=([0-9A-Fa-f]{64})/.exec(url.hash)?.[1],
        md5: /^#(?:.*&)?md5=([0-9A-Fa-f]{32})/.exec(url.hash)?.[1],
        requiresPython: attributes['data-requires-python'],
        ...(yanked === undefined ? {} : { yanked }),
      };
      const file = fileOf(named, base);
      if (file !== undefined) files.push(file);
    },
  });
  parser.end(text);
  return files;
}

/**
 * The files on a simple index's page about one project: JSON (PEP 691, 700), or HTML (PEP 503).
 * @param page.url where it was read, after redirects: addresses may be relative to it
 * @throws REGISTRY_ANSWER_INVALID for a page that is neither
 */
export function parseSimplePage(
  text: string,
  page: { readonly url: string; readonly contentType: string },
): IndexFile[] {
  const type = page.contentType.toLowerCase().split(';')[0]?.trim() ?? '';
  const isJson = type.endsWith('json');
  const files = isJson
    ? filesOfJson(text, page.url)
    : type.endsWith('html')
      ? filesOfHtml(text, page.url)
      : undefined;
  if (files !== undefined) return files;
  throw new SealiftError(
    'REGISTRY_ANSWER_INVALID',
    `${page.url}: no page of a simple index (${type || 'no type'})`,
    {
      hint: 'name the simple index itself, as pip has it, such as https://HOST/repository/NAME/simple',
    },
  );
}
