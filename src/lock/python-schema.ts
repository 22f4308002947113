import { z } from 'zod';
import { isFileOf, isProject, isPythonVersion, normalizeProject } from '../core/distribution.ts';
import { LIMITS } from '../core/limits.ts';
import { CONTROL, digest, fileSource, free, isWebUrl, localPath, matching, size, text } from './shapes.ts';

const PYTHON = /^\d{1,2}(?:\.\d{1,3}){1,2}$/;
const PLATFORM = /^[A-Za-z0-9][A-Za-z0-9_./()-]{0,127}$/;
const FILE = /^[A-Za-z0-9][A-Za-z0-9._!+-]{0,254}$/;
const PRINTABLE = /^[\x20-\x7e]{1,1024}$/;

function isNormalName(name: string): boolean {
  return isProject(name) && normalizeProject(name) === name;
}

/**
 * Whether a text can stand behind the `;` of a line that pip reads, and be nothing but a marker there: no comment, no
 * option, no variable of the environment, no second line.
 */
function isMarker(marker: string): boolean {
  return PRINTABLE.test(marker) && marker.trim() === marker && !/[\\#;$`{}]|(?:^|\s)-/.test(marker);
}

/** A requirement as somebody wrote it, without a password in an address. */
function isRequirement(requirement: string): boolean {
  return (
    requirement !== '' &&
    requirement.length <= 1024 &&
    !CONTROL.test(requirement) &&
    !/:\/\/[^/\s]*@/.test(requirement)
  );
}

const few = <T extends z.ZodType>(item: T) => z.array(item).max(LIMITS.requirements);
const many = <T extends z.ZodType>(item: T) => z.array(item).max(LIMITS.packages);

const project = text(isNormalName, 'the normalised name of a project');
const version = text(isPythonVersion, 'a version of a Python project');
const asked = few(z.strictObject({ path: localPath, sha256: digest }));

const packageFile = z
  .strictObject({
    file: text(matching(FILE), 'the name of a wheel or source archive'),
    name: project,
    version,
    source: fileSource,
    size,
    sha256: digest,
    requiresPython: text(matching(PRINTABLE), 'versions of Python in printable ASCII').exactOptional(),
    yanked: free.exactOptional(),
  })
  .refine((p) => isFileOf(p.file, p), {
    path: ['file'],
    error: 'not the name of a wheel or source archive of this project and version',
  });

/** The Python packages of a lock. Order and uniqueness are checked by `parseLock`. */
export const pythonSchema = z.strictObject({
  requirements: asked,
  constraints: asked,
  packages: few(text(isRequirement, 'a requirement without a password')),
  pythons: few(text(matching(PYTHON), 'a version of Python, such as "3.11"')),
  platforms: few(text(matching(PLATFORM), 'a platform')),
  indexes: few(text(isWebUrl, 'a URL without a password')),
  pins: many(
    z.strictObject({
      name: project,
      version,
      marker: text(isMarker, 'an environment marker').exactOptional(),
    }),
  ),
  files: many(packageFile),
});
