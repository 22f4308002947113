import type { Command } from 'commander';
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
  readonly json?: boolean;
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

function contentOf(artifacts: readonly Listed[]): Parameters<typeof contentText>[0] {
  const of = (kind: Listed['kind']): number => artifacts.filter((a) => a.kind === kind).length;
  return { images: of('image'), charts: of('chart'), files: of('file') };
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
  const heads = ['KIND', 'NAME', 'PLATFORMS', 'SIZE', 'SHARED', 'DIGEST'];
  const sparse = artifacts.some((a) => a.sparse)
    ? [
        '* only some platforms of the index are carried: plain `ctr images import` and `skopeo copy` work, their all-platform modes do not',
      ]
    : [];
  return {
    document: { command: 'ls', ...result },
    data: table([heads, ...artifacts.map(rowOf)], [3, 4]),
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

/** `sealift ls`. */
export function addLs(program: Command, run: RunVerb): void {
  program
    .command('ls')
    .summary('list what a bundle holds')
    .description('Lists images, charts and files with sizes, shared bytes and digests. Blobs are not read.')
    .argument(
      '<bundle...>',
      'a bundle: file, folder, volumes, an address (https://…) or - (stdin); or an OCI layout, an archive of docker save, a folder of these',
    )
    .addHelpText(
      'before',
      examples(
        'sealift ls astrago.tar',
        "sealift ls astrago.tar --json | jq -r '.artifacts[].name'",
        'sealift ls https://files.local/astrago.tar     its beginning and its end, over the network',
      ),
    )
    .option('--json', 'one JSON document on stdout')
    .action((given: readonly string[], flags: LsFlags) => {
      return run(flags, async (context) => {
        const { ls } = await import('../../ops/ls.ts');
        const input = given.includes('-') ? process.stdin : undefined;
        return lsOutcome(await ls(given, context, input), given.map(shownWord).join(' '));
      });
    });
}
