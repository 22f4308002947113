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

/** The trust part of a site's file. */
export const trustSchema = z
  .strictObject({
    keys: z.array(word).min(1).max(LIMITS.trustedKeys).optional().meta({
      description:
        'Public key files, relative to this file, or public keys themselves; any one of them is enough',
    }),
    require: z.literal('signature').optional().meta({ description: 'Refuse what has no signature at all' }),
    minVersion: z
      .union([word, z.record(z.string(), word)], {
        error: 'expected a version, or a map from bundle names to versions',
      })
      .optional()
      .meta({
        description: 'The lowest version that is taken: of every bundle, or by the name of the bundle',
      }),
  })
  .meta({ description: 'Who and what is trusted here' });

/** The first line of a site's file. */
export const apiVersionSchema = z.literal('sealift-site/v1').meta({ description: 'Version of this format' });

/**
 * Nothing else stands at the top: a `trust` that is mistyped, or whose lines are not indented, would ask for nothing. The
 * targets are for those who load (site/schema.ts): whoever only asks what is trusted here reads past them.
 */
const siteSchema = z.strictObject({
  apiVersion: apiVersionSchema,
  trust: trustSchema.optional(),
  targets: z.unknown().optional(),
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
          hint: 'at the top stand apiVersion, trust and targets; under trust: keys, require and minVersion',
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
  const lacks = lackOfKeys(trust, yaml);
  if (lacks !== undefined) throw hasFaults(path, [lacks]);
  const isRequired = trust?.require === 'signature';
  return { keys: trust?.keys ?? [], isRequired, minVersion: trust?.minVersion };
}

/** A signature that is required, and nobody said whose. */
export function lackOfKeys(
  trust: z.infer<typeof trustSchema> | undefined,
  yaml: YamlText,
): Fault | undefined {
  if (trust?.require !== 'signature' || trust.keys !== undefined) return undefined;
  const position = yaml.positionOf(['trust', 'require']);
  const hint = 'write keys: [sealift.pub] under trust';
  const message = 'trust: a signature is required, and no key says whose';
  return fault('SITE_INVALID', message, { position, hint });
}
