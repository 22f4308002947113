import type { Command } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import type { Counts } from '../../lock/counts.ts';
import type { PackageLock } from '../../lock/schema.ts';
import type { Listed, LsResult } from '../../ops/ls.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import {
  baseText,
  bytesText,
  contentText,
  count,
  exactBytes,
  firstLines,
  harmless,
  shownWord,
  table,
} from '../words.ts';

/** Of images with bytes of others; the JSON document has all. */
const LINES_SHOWN = 20;

interface LsFlags {
  readonly requirements?: boolean;
  readonly json?: boolean;
}

/** Images, charts, files and what is about images; and Python packages, of which something else is worth knowing. */
function tablesOf({ artifacts, python }: LsResult): string[] {
  const packages = new Map(python?.files.map((found) => [found.file, found]));
  const others = artifacts.filter(({ kind }) => kind !== 'package');
  const rows = artifacts.flatMap((item) => {
    const found = item.kind === 'package' ? packages.get(item.name) : undefined;
    return found === undefined ? [] : [packageRow(item, found)];
  });
  const heads = ['KIND', 'NAME', 'PLATFORMS', 'SIZE', 'SHARED', 'DIGEST'];
  const names = ['PACKAGE', 'VERSION', 'PYTHON', 'SIZE', 'FILE', 'SHA-256'];
  const first = others.length === 0 && rows.length > 0 ? [] : table([heads, ...others.map(rowOf)], [3, 4]);
  if (rows.length === 0) return first;
  return [...first, ...(first.length === 0 ? [] : ['']), ...table([names, ...rows], [3])];
}

function packageRow({ size, name: file }: Listed, found: PackageLock): string[] {
  const { name, version, requiresPython = '-', yanked, sha256 } = found;
  const words = [name, `${version}${yanked === undefined ? '' : ' (yanked)'}`, harmless(requiresPython)];
  return [...words, bytesText(size), file, sha256];
}

function rowOf(item: Listed): string[] {
  const platforms = item.platforms.length === 0 ? '-' : item.platforms.join(',');
  return [
    item.kind,
    harmless(item.name),
    `${harmless(platforms)}${item.sparse ? ' *' : ''}`,
    bytesText(item.size),
    bytesText(item.shared),
    item.digest,
  ];
}

/** Images that are not what their names promise at first sight. */
function otherLines(artifacts: readonly Listed[]): string[] {
  return artifacts.flatMap(({ name, replacedBy, recompressed }) => [
    ...(replacedBy === null ? [] : [harmless(`${name} has the bytes of ${replacedBy}`)]),
    ...(recompressed === null ? [] : [harmless(`${name} was made anew: ${recompressed}`)]),
  ]);
}

function contentOf(artifacts: readonly Listed[]): Counts {
  const of = (kind: Listed['kind']): number => artifacts.filter((a) => a.kind === kind).length;
  return { images: of('image'), charts: of('chart'), files: of('file'), packages: of('package') };
}

/** What of a delta or a repair is in it, and what is not. */
function baseLines({ base }: LsResult): string[] {
  if (base === null) return [];
  const { of, carried, leftOut } = base;
  return [
    `builds on ${of.map(baseText).join(' and ')}: carries ${count(carried.blobs, 'blob')} (${bytesText(carried.bytes)}), leaves out ${count(leftOut.blobs, 'blob')} (${bytesText(leftOut.bytes)})`,
  ];
}

function signatureLines({ signedBy }: LsResult): string[] {
  if (signedBy === null) return [];
  return [`says that the key ${signedBy} signed it; \`sealift verify --key\` checks that`];
}

/** What `ls` prints. */
export function lsOutcome(result: LsResult, words: string): Outcome {
  const { name, version, size, blobs, blobBytes, sharedBytes, artifacts } = result;
  const sparse = artifacts.some((a) => a.sparse)
    ? [
        '* only some platforms of the index are carried: plain `ctr images import` and `skopeo copy` work, their all-platform modes do not',
      ]
    : [];
  return {
    document: { command: 'ls', ...result },
    data: tablesOf(result),
    summary: [
      ...sparse,
      ...baseLines(result),
      ...signatureLines(result),
      ...firstLines(otherLines(artifacts), LINES_SHOWN),
      `${harmless([name, version].filter((t) => t !== null).join(' '))}: ${contentText(contentOf(artifacts))}; ${exactBytes(size)}, ${count(blobs, 'blob')} of ${bytesText(blobBytes)}, sharing saves ${bytesText(sharedBytes)}`,
    ],
    next: `sealift verify ${words}`,
  };
}

/** The locked Python packages in pip's own form. @throws USAGE */
async function requirementsOutcome(result: LsResult): Promise<Outcome> {
  const { python, path } = result;
  if (python === null || python.files.length === 0) {
    throw new SealiftError('USAGE', `${path} holds no Python packages`, {
      hint: 'leave --requirements out to see what it holds',
    });
  }
  const { requirementsText } = await import('../../python/requirements-text.ts');
  const text = requirementsText(python);
  return {
    document: { command: 'ls', path, requirements: text },
    data: text.trimEnd().split('\n').map(harmless),
    summary: [],
    next: 'pip install --require-hashes -r requirements.txt --index-url INDEX   # with what was printed',
  };
}

/** `sealift ls`. */
export function addLs(program: Command, run: RunVerb): void {
  program
    .command('ls')
    .summary('list what a bundle holds')
    .description(
      'Lists images, charts, files and Python packages with sizes, shared bytes and digests. Blobs are not read.',
    )
    .argument(
      '<bundle...>',
      'a bundle: file, folder, volumes, an address (https://…) or - (stdin); or an OCI layout, an archive of docker save, a folder of these',
    )
    .addHelpText(
      'before',
      examples(
        'sealift ls astrago.tar',
        "sealift ls astrago.tar --json | jq -r '.artifacts[].name'",
        'sealift ls astrago.tar --requirements > requirements.txt     for pip, with hashes',
        'sealift ls https://files.local/astrago.tar     its beginning and its end, over the network',
      ),
    )
    .option('--requirements', 'print the locked Python packages as a requirements file with hashes')
    .option('--json', 'one JSON document on stdout')
    .action((given: readonly string[], flags: LsFlags) => {
      return run(flags, async (context) => {
        const { ls } = await import('../../ops/ls.ts');
        const input = given.includes('-') ? process.stdin : undefined;
        const result = await ls(given, context, input);
        if (flags.requirements === true) return requirementsOutcome(result);
        return lsOutcome(result, given.map(shownWord).join(' '));
      });
    });
}
