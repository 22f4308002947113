import type { Command } from 'commander';
import { SealiftError } from '../../core/errors.ts';
import type { Chain, VerifyResult } from '../../ops/verify.ts';
import { examples } from '../examples.ts';
import type { Outcome, RunVerb } from '../outcome.ts';
import { gather, KEY_HELP, SITE_HELP, trustOf, trustWords } from '../trust-flags.ts';
import {
  baseText,
  bytesText,
  contentText,
  count,
  exactBytes,
  harmless,
  shellWord,
  shownWord,
} from '../words.ts';

interface VerifyFlags {
  readonly lock?: string;
  readonly deep?: boolean;
  readonly key?: readonly string[];
  readonly site?: string;
  readonly writeRequest?: string;
  readonly json?: boolean;
}

/** Which chain of trust was walked, in plain words. */
const CHAINS: Readonly<Record<Chain, string>> = {
  signature:
    'signed by a key that you trust: its signature vouches for B3SUMS, and BLAKE3 of everything is what B3SUMS says.',
  'signed-lock':
    'compared with the versions.lock that you gave, which a key that you trust has signed: SHA-256 of every blob (and BLAKE3).',
  lock: 'compared with the versions.lock that you gave: SHA-256 of every blob (and BLAKE3). Whoever trusts that lock can trust this bundle.',
  digests:
    "compared with the digests inside the bundle: SHA-256 and BLAKE3 of everything. This finds damage, not a forged bundle: for that give --key FILE, the signer's public key, or --lock FILE, a lock that came another way.",
  b3sums:
    "compared with the list inside the bundle: BLAKE3 of everything. This finds damage, not a forged bundle: for that give --key FILE, the signer's public key, or --lock FILE, a lock that came another way.",
};

/** Of what another tool made. */
const NO_LOCK =
  'no bundle of sealift: compared with the digests inside, SHA-256 of everything. This finds damage, not forgery: no lock says what it must hold.';

/** What was said of the bundle's own signature. */
function signatureLine({ signature }: VerifyResult): string[] {
  const { state, keyId, at } = signature;
  if (state === 'trusted') return [harmless(`  signature of the key ${keyId}: good (${at})`)];
  if (state !== 'unchecked') return [];
  const by = keyId === null ? '' : ` of the key ${keyId}`;
  return [harmless(`  a signature${by} is present, not checked: give its public key with --key`)];
}

function chainLines(result: VerifyResult): string[] {
  const chain = result.format === 'bundle' ? CHAINS[result.chain] : NO_LOCK;
  return [`  ${chain}`, ...signatureLine(result)];
}

async function failureOf(result: VerifyResult): Promise<SealiftError | undefined> {
  const { refuseDamaged } = await import('../../ops/verify.ts');
  try {
    refuseDamaged(result);
    return undefined;
  } catch (error) {
    if (error instanceof SealiftError) return error;
    throw error;
  }
}

/** What a delta or a repair leaves out, and how much of that was checked. */
function leftOutLines({ leftOut }: VerifyResult): string[] {
  if (leftOut === null) return [];
  const { of, blobs, bytes, checked } = leftOut;
  const without = `  leaves out ${count(blobs, 'blob')} (${bytesText(bytes)}) of ${of.map(baseText).join(' and ')}`;
  if (checked.blobs === blobs) return [`${without}: all of them are here and right`];
  if (checked.blobs > 0) return [`${without}: ${count(checked.blobs, 'blob')} of them are here and right`];
  return [`${without}: to check them too, give it beside this one`];
}

/** Where it stands what has to be brought once more. */
function requestLines({ request }: VerifyResult): string[] {
  if (request === null) return [];
  const path = shellWord(request.path);
  return [
    `  ${count(request.blobs, 'blob')} to bring once more: ${harmless(request.path)}; where there is a network: sealift pack --repair ${path} -o fix.tar`,
  ];
}

async function verifyOutcome(result: VerifyResult, bundle: string, flags: VerifyFlags): Promise<Outcome> {
  const failure = await failureOf(result);
  const { faults: _, ...facts } = result;
  const read = `${count(result.entries, 'entry')}, ${exactBytes(result.bytes)}`;
  const title = harmless([`${bundle}: ${result.name}`, result.version].filter((t) => t !== null).join(' '));
  const document = { command: 'verify', ok: failure === undefined, ...facts };
  const chain = [...chainLines(result), ...leftOutLines(result), ...requestLines(result)];
  if (failure !== undefined) return { document, summary: [`${title}: read ${read}`, ...chain], failure };
  return {
    document,
    summary: [`${title} is whole: ${contentText(result)}; ${read}`, ...chain],
    // Who must have signed it counts there too.
    next: `sealift load ${bundle}${trustWords(flags)} --registry HOST:PORT`,
  };
}

/** `sealift verify`. */
export function addVerify(program: Command, run: RunVerb): void {
  program
    .command('verify')
    .summary('check a bundle: structure, every byte, every graph, every chart')
    .description('Reads the whole bundle and reports every fault with its place; exit 5 when there is one.')
    .argument(
      '<bundle...>',
      'a bundle: file, folder, volumes, an address (https://…) or - (stdin); beside a file its base or a repair; or an OCI layout, an archive of docker save, a folder of these',
    )
    .addHelpText(
      'before',
      examples(
        'sealift verify astrago.tar                          is it whole?',
        'sealift verify astrago.tar --lock versions.lock     is it exactly what this lock says?',
        'sealift verify astrago.tar --key sealift.pub        is it signed by this key?',
        'sealift verify astrago.tar --deep                   SHA-256 besides BLAKE3',
        'sealift verify /mnt/a/x.tar.001 /mnt/b              volumes that lie in two folders',
        'sealift verify https://files.local/x.tar            on a server: all of it is read, nothing kept',
        'sealift verify delta.tar base.tar                   a delta, and what it leaves out',
        'sealift verify x.tar.001 --write-request repair.json     what must be brought once more?',
      ),
    )
    .option('--lock <file>', 'a versions.lock that came another way: the bundle must be exactly its content')
    .option('--key <key>', KEY_HELP, gather)
    .option('--site <file>', SITE_HELP)
    .option('--deep', 'SHA-256 of every entry besides BLAKE3 (always done with --lock)')
    .option(
      '--write-request <file>',
      'when something is damaged: write what `sealift pack --repair` shall carry',
    )
    .option('--json', 'one JSON document on stdout')
    .action((given: readonly string[], flags: VerifyFlags) => {
      return run(flags, async (context) => {
        const { verify } = await import('../../ops/verify.ts');
        const lock = flags.lock === undefined ? {} : { lockPath: flags.lock };
        const request = flags.writeRequest === undefined ? {} : { requestPath: flags.writeRequest };
        const [bundle = '', ...others] = given;
        const input = given.includes('-') ? { input: process.stdin } : {};
        context.emit({ type: 'phase', name: 'verify' });
        const result = await verify(
          { bundle, others, ...input, ...lock, ...request, deep: flags.deep === true, ...trustOf(flags) },
          context,
        );
        return await verifyOutcome(result, given.map(shownWord).join(' '), flags);
      });
    });
}
