import {
  type ErrorCode,
  EXIT,
  errorOf,
  exitCodeOf,
  type Fault,
  fault,
  type SealiftError,
} from '../core/errors.ts';
import { imageName } from '../core/reference.ts';
import type { ManifestImage } from '../manifest/merge.ts';

/** Why a source gives nothing, by what went wrong. */
const REASONS: Readonly<Partial<Record<ErrorCode, string>>> = {
  AUTH_DENIED: 'not allowed',
  AUTH_REQUIRED: 'a login is needed',
  CONTENT_NOT_FOUND: 'not found',
  NETWORK_FAILED: 'not reached',
  NETWORK_TIMEOUT: 'no answer',
  NETWORK_URL_REFUSED: 'address refused',
  REGISTRY_ANSWER_INVALID: 'no registry answered',
  REGISTRY_FAILED: 'the registry failed',
  REGISTRY_RATE_LIMITED: 'rate limited',
};

/** The same more exactly, by a registry's own error code (distribution-spec "Error Codes") or the system's. */
const EXACT: Readonly<Record<string, string>> = {
  EAI_AGAIN: 'the name server does not answer',
  ECONNREFUSED: 'connection refused',
  EHOSTUNREACH: 'no way to the host',
  ENETUNREACH: 'no way to the host',
  ENOTFOUND: 'host name not known',
  MANIFEST_UNKNOWN: 'no such tag or digest',
  NAME_UNKNOWN: 'no such repository',
};

/** In a few words why a source does not give what it was asked for; undefined where something else is wrong. */
function reasonOf({ code, details }: Fault): string | undefined {
  const general = REASONS[code];
  if (general === undefined) return undefined;
  const exact = [details?.serverCode, details?.system].map(String).find((word) => Object.hasOwn(EXACT, word));
  const status = typeof details?.status === 'number' ? ` (${details.status})` : '';
  return `${(exact === undefined ? undefined : EXACT[exact]) ?? general}${status}`;
}

/** The entry of sealift.yaml that takes an image from elsewhere. */
function overrideOf(name: string): string {
  return `{ref: "${name}", replace: "HOST/NAME:TAG"}`;
}

/**
 * The failure of an image as a person needs it: why it cannot be pulled, who asks for it, and the entry of sealift.yaml
 * that takes its bytes from elsewhere. Failures that another source would not cure stay as they are.
 */
export function imageFault(of: Fault, image: ManifestImage): Fault {
  const reason = reasonOf(of);
  if (reason === undefined) return of;
  const name = imageName(image.ref);
  const { replacedBy, origins, position } = image;
  const from = replacedBy === undefined ? '' : `, replaced by ${replacedBy},`;
  const askedBy = origins.join(', ');
  const override = overrideOf(name);
  const way =
    replacedBy === undefined
      ? `pull it from a place that has it: write ${override} under images in sealift.yaml`
      : `correct replace of ${name} in sealift.yaml`;
  return fault(
    of.code,
    `${name}${from} cannot be pulled: ${reason}; asked for by ${askedBy}; ${of.message}`,
    {
      hint: of.hint === undefined ? way : `${of.hint}; or ${way}`,
      position,
      details: { ...of.details, image: name, reason, askedBy: origins, override },
    },
  );
}

/** The same for a chart or a file, which has no other place: why it cannot be fetched. What is told already stays. */
export function sourceFault(of: Fault, what: string): Fault {
  const reason = of.details?.reason === undefined ? reasonOf(of) : undefined;
  if (reason === undefined) return of;
  const message = `${what} cannot be fetched: ${reason}; ${of.message}`;
  return { ...of, message, details: { ...of.details, reason } };
}

/** A failure of a chart that another one depends on. */
export function neededBy(of: Fault, names: { readonly parent: string; readonly dependency: string }): Fault {
  const { parent, dependency } = names;
  const told = sourceFault(of, `chart ${dependency}, needed by ${parent},`);
  return told === of ? { ...of, message: `${of.message}; needed by ${parent}` } : told;
}

/** One error for everything that cannot be locked. Wrong content decides its code first, then what no login cures. */
export function cannotLock(faults: readonly Fault[]): SealiftError {
  const by = (exit: number): Fault | undefined => faults.find((f) => exitCodeOf(f.code) === exit);
  const decides = by(EXIT.integrity) ?? by(EXIT.failed) ?? faults[0];
  return faults.length === 1
    ? errorOf(faults, '')
    : errorOf(faults, `${faults.length} entries cannot be locked`, decides?.code);
}
