import { z } from 'zod';
import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readFileLimited } from '../io/files.ts';

const digest = z.custom<Digest>((value) => typeof value === 'string' && isDigest(value), {
  error: 'not a sha256 digest',
});
const word = z.string().min(1).max(4096);

const entrySchema = z.looseObject({
  kind: z.enum(['image', 'chart', 'file', 'package']),
  name: word,
  as: word,
  digest,
  content: digest.exactOptional(),
  state: z.enum(['present', 'kept', 'write', 'written', 'failed']),
  added: z
    .strictObject({
      names: z.array(word).max(LIMITS.receiptNames),
      manifests: z.array(digest).max(LIMITS.receiptNames),
    })
    .nullable()
    .exactOptional(),
});

const targetSchema = z.looseObject({
  kind: z.enum(['registry', 'containerd', 'chart-tree', 'files', 'helm', 'raw', 'pypi']),
  name: word,
  address: word.nullable().exactOptional(),
  made: z.looseObject({ repository: word }).nullable().exactOptional(),
  entries: z.array(entrySchema).max(LIMITS.bundleEntries),
});

const receiptSchema = z.looseObject({
  kind: z.literal('receipt'),
  dryRun: z.literal(false),
  start: z.iso.datetime(),
  /** When the first load began whose additions it has. */
  since: z.iso.datetime().exactOptional(),
  bundle: z.looseObject({ name: word, version: word.nullable(), lock: digest.nullable() }),
  targets: z.array(targetSchema).max(LIMITS.receiptTargets),
});

/** A receipt as `load` wrote it. Receipts of older versions lack `content`, `added` and `address`. */
export type Receipt = z.infer<typeof receiptSchema>;
export type ReceiptTarget = Receipt['targets'][number];
export type ReceiptEntry = ReceiptTarget['entries'][number];

/** Of two receipts: whether they are of the same bundle. */
export function isSameBundle(a: Receipt['bundle'], b: Pick<Receipt['bundle'], 'name' | 'lock'>): boolean {
  return a.name === b.name && a.lock === b.lock;
}

/** What the text of a file says when it is a receipt; otherwise why it is none. */
export function parseReceipt(bytes: Buffer): { readonly receipt: Receipt } | { readonly wrong: string } {
  let body: unknown;
  try {
    body = JSON.parse(bytes.toString('utf8'));
  } catch {
    return { wrong: 'no JSON' };
  }
  const parsed = receiptSchema.safeParse(body);
  if (parsed.success) return { receipt: parsed.data };
  const [issue] = parsed.error.issues;
  return { wrong: [issue?.path.join('.'), issue?.message].filter((t) => t !== '').join(': ') };
}

/** Reads a receipt. @throws FILE_NOT_FOUND, CONTENT_TOO_LARGE, USAGE for another file */
export async function readReceipt(path: string): Promise<Receipt> {
  const bytes = await readFileLimited(path, { limit: LIMITS.bundleDocument, missing: 'FILE_NOT_FOUND' });
  const found = parseReceipt(bytes);
  if ('receipt' in found) return found.receipt;
  throw new SealiftError('USAGE', `${path}: no receipt of a load: ${found.wrong}`, {
    hint: 'give the file that `sealift load --receipt FILE` wrote',
  });
}
