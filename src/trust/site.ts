import { z } from 'zod';
import { errorOf, type Fault, fault, type SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readFileLimited } from '../io/files.ts';
import { parseYaml, type YamlText } from '../io/yaml.ts';

/** The file of a site that is looked for in the working folder. */
export const SITE_FILE = 'site.yaml';

/** What a site says about trust. */
export interface SiteTrust {
  /** Paths of public key files, from the folder of the file, or public keys themselves. */
  readonly keys: readonly string[];
  readonly isRequired: boolean;
  readonly minVersion: string | Readonly<Record<string, string>> | undefined;
}

const word = z.string().min(1);

const trustSchema = z.strictObject({
  keys: z.array(word).min(1).max(LIMITS.trustedKeys).optional(),
  require: z.literal('signature').optional(),
  minVersion: z
    .union([word, z.record(z.string(), word)], {
      error: 'expected a version, or a map from bundle names to versions',
    })
    .optional(),
});

/** Nothing else stands at the top: a `trust` that is mistyped, or whose lines are not indented, would ask for nothing. */
const siteSchema = z.strictObject({
  apiVersion: z.literal('sealift-site/v1'),
  trust: trustSchema.optional(),
});

function hasFaults(path: string, faults: readonly Fault[]): SealiftError {
  return errorOf(faults, `${path} has ${faults.length} faults`, 'SITE_INVALID');
}

/** What zod found, with its place in the text. */
function faultsOf(error: z.ZodError, yaml: YamlText): Fault[] {
  return error.issues.flatMap((issue) => {
    const path = issue.path.map((part) => (typeof part === 'number' ? part : String(part)));
    const at = path.length === 0 ? '' : `${path.join('.')}: `;
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) =>
        fault('SITE_INVALID', `${at}unknown key ${JSON.stringify(key.slice(0, 100))}`, {
          position: yaml.positionOf([...path, key], 'key'),
          hint: 'at the top stand apiVersion and trust; under trust: keys, require and minVersion',
        }),
      );
    }
    const isOurs = path[0] === 'trust';
    const hint =
      'it begins with `apiVersion: sealift-site/v1`; if it is of another program, name yours with --site';
    const more = isOurs ? {} : { hint };
    return [fault('SITE_INVALID', `${at}${issue.message}`, { position: yaml.positionOf(path), ...more })];
  });
}

/**
 * Reads the trust part of a site's file.
 * @throws SITE_INVALID with every fault and its place, CONTENT_TOO_LARGE, FILE_NOT_FOUND
 */
export async function readSite(path: string): Promise<SiteTrust> {
  const bytes = await readFileLimited(path, { limit: LIMITS.siteText, missing: 'FILE_NOT_FOUND' });
  const { yaml, faults } = parseYaml(bytes.toString('utf8'), { file: path, code: 'SITE_INVALID' });
  if (yaml === undefined) throw hasFaults(path, faults);
  const parsed = siteSchema.safeParse(yaml.value);
  if (!parsed.success) throw hasFaults(path, faultsOf(parsed.error, yaml));
  const { trust } = parsed.data;
  const isRequired = trust?.require === 'signature';
  if (trust !== undefined && isRequired && trust.keys === undefined) {
    const position = yaml.positionOf(['trust', 'require']);
    const hint = 'write keys: [sealift.pub] under trust';
    const message = 'trust: a signature is required, and no key says whose';
    throw hasFaults(path, [fault('SITE_INVALID', message, { position, hint })]);
  }
  return { keys: trust?.keys ?? [], isRequired, minVersion: trust?.minVersion };
}
