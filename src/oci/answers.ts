import { type ErrorCode, SealiftError } from '../core/errors.ts';
import { isTag } from '../core/reference.ts';
import type { HttpResponse } from '../io/http.ts';

/** Answers to an upload after which the whole upload is tried again. */
export function retriedStatus(status: number): boolean {
  return status === 404 || status === 408 || status === 416 || status === 429 || status >= 500;
}

/** The first error of a registry's answer, `{"errors":[{code,message}]}`; '' when there is none. */
export function registryErrorCode(text: string): string {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body !== 'object' || body === null || !('errors' in body) || !Array.isArray(body.errors))
      return '';
    const first: unknown = body.errors[0];
    if (typeof first !== 'object' || first === null || !('code' in first)) return '';
    return typeof first.code === 'string' ? first.code.slice(0, 100) : '';
  } catch {
    return '';
  }
}

function codeOfStatus(status: number): readonly [ErrorCode, string | undefined] {
  if (status === 401) return ['AUTH_REQUIRED', undefined];
  if (status === 403) return ['AUTH_DENIED', undefined];
  if (status === 404) return ['CONTENT_NOT_FOUND', 'check the name, the tag and the registry'];
  if (status === 413) {
    return [
      'REGISTRY_FAILED',
      'a proxy limits the size of uploads: raise it (nginx: client_max_body_size 0)',
    ];
  }
  if (status === 429) {
    return [
      'REGISTRY_RATE_LIMITED',
      'log in for a higher limit (`docker login`), or wait and run the same command again',
    ];
  }
  return ['REGISTRY_FAILED', undefined];
}

/** A registry's refusal as our error: the code from the status, what it said (the first 200 characters), a hint. */
export function statusError(
  response: HttpResponse,
  about: {
    readonly text: string;
    readonly what: string;
    readonly host: string;
    readonly side: 'source' | 'destination';
  },
): SealiftError {
  const [code, statusHint] = codeOfStatus(response.status);
  const login = `check the login and its rights: \`sealift login ${about.host}\``;
  const hint = code === 'AUTH_REQUIRED' || code === 'AUTH_DENIED' ? login : statusHint;
  const said = about.text.replace(/\s+/g, ' ').slice(0, 200).trim();
  const serverCode = registryErrorCode(about.text);
  return new SealiftError(code, `${about.what}: HTTP ${response.status}${said === '' ? '' : `: ${said}`}`, {
    ...(hint === undefined ? {} : { hint }),
    details: { status: response.status, ...(serverCode === '' ? {} : { serverCode }) },
    side: about.side,
  });
}

/** The `tags` of a tag list (distribution-spec "Listing Tags"); `null` means none. */
export function parseTags(bytes: Buffer, what: string): string[] {
  const invalid = (): SealiftError => new SealiftError('REGISTRY_ANSWER_INVALID', `${what}: not a tag list`);
  let body: unknown;
  try {
    body = JSON.parse(bytes.toString('utf8'));
  } catch {
    throw invalid();
  }
  if (typeof body !== 'object' || body === null || !('tags' in body)) throw invalid();
  if (body.tags === null) return [];
  if (!Array.isArray(body.tags)) throw invalid();
  return body.tags.filter((t): t is string => typeof t === 'string' && isTag(t));
}
