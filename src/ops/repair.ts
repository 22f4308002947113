import { resolve } from 'node:path';
import { z } from 'zod';
import { openDocument } from '../bundle/compare.ts';
import type { Base } from '../bundle/contents.ts';
import { readSums } from '../bundle/documents.ts';
import { digestOfName } from '../bundle/entries.ts';
import type { Medium } from '../bundle/medium.ts';
import { B3SUMS } from '../bundle/names.ts';
import { type Digest, isDigest } from '../core/digest.ts';
import { type Fault, isAbort, SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readFileLimited, writeFileAtomic } from '../io/files.ts';

const digest = z.string().refine(isDigest, 'not a sha256 digest');
const count = z.int().min(0);

const requestSchema = z.strictObject({
  schemaVersion: z.literal(1),
  kind: z.literal('repair-request'),
  name: z.string().min(1).max(255),
  version: z.string().min(1).max(255),
  /** SHA-256 of the versions.lock of the bundle. */
  lock: digest,
  /** What is damaged or missing; where it is damaged, in which files it lies and where. `to` is behind the last byte. */
  blobs: z
    .array(
      z.strictObject({
        digest,
        size: count.nullable(),
        at: z.array(z.strictObject({ file: z.string(), from: count, to: count })),
      }),
    )
    .max(LIMITS.bundleEntries),
});

/** What a damaged bundle asks to be brought once more. */
export type RepairRequest = z.infer<typeof requestSchema>;

/** The digests that faults speak of. */
function digestsIn(faults: readonly Fault[]): Set<Digest> {
  const found = new Set<Digest>();
  for (const { details } of faults) {
    const { entry, missing } = details ?? {};
    const named = typeof entry === 'string' ? digestOfName(entry) : undefined;
    if (named !== undefined) found.add(named);
    for (const one of Array.isArray(missing) ? missing : [])
      if (isDigest(String(one))) found.add(one as Digest);
  }
  return found;
}

/** Blobs that a list in the bundle names and that are not there: where a manifest is damaged nothing else tells of them. */
async function listedAndLost(medium: Medium): Promise<Digest[]> {
  const lost = new Set<Digest>();
  for (const list of ['SHA256SUMS', B3SUMS]) {
    try {
      await readSums(openDocument(medium, list), list, ({ name }) => {
        const one = digestOfName(name);
        if (one !== undefined && medium.entries.indexOfBlob(one) < 0) lost.add(one);
      });
    } catch (error) {
      // A list that cannot be read names nothing; the repair brings a new one.
      if (!(error instanceof SealiftError) || isAbort(error)) throw error;
    }
  }
  return [...lost];
}

/** What has to be brought once more for these faults. Documents and manifests need not be named: every repair has them. */
export async function repairRequest(
  about: { readonly name: string; readonly version: string; readonly lock: Digest },
  facts: { readonly medium: Medium; readonly faults: readonly Fault[]; readonly isPlanned: boolean },
): Promise<RepairRequest> {
  const { medium, faults, isPlanned } = facts;
  const wanted = digestsIn(faults);
  if (!isPlanned) for (const one of await listedAndLost(medium)) wanted.add(one);
  const blobs = [...wanted].sort().map((one) => {
    const entry = medium.entries.findBlob(one);
    const at = entry === undefined ? [] : (medium.files?.whereIs(entry.offset, entry.size) ?? []);
    return {
      digest: one,
      size: entry?.size ?? null,
      at: at.map(({ file, from, to }) => ({ file, from, to })),
    };
  });
  return { schemaVersion: 1, kind: 'repair-request', ...about, blobs };
}

/** Writes a request where somebody with a network can take it from. @throws FILE_UNREADABLE, DISK_FULL */
export async function writeRequest(path: string, request: RepairRequest): Promise<void> {
  await writeFileAtomic(resolve(path), `${JSON.stringify(request, null, 2)}\n`);
}

/**
 * Reads what `verify --write-request` wrote, as what a repair builds on: everything but what is asked for.
 * @throws FILE_NOT_FOUND, USAGE
 */
export async function readRequest(path: string): Promise<Base & { readonly lock: Digest }> {
  const bytes = await readFileLimited(path, { limit: LIMITS.bundleDocument, missing: 'FILE_NOT_FOUND' });
  let body: unknown;
  try {
    body = JSON.parse(bytes.toString('utf8'));
  } catch {
    body = undefined;
  }
  const parsed = requestSchema.safeParse(body);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const at = issue?.path.join('.') ?? '';
    throw new SealiftError(
      'USAGE',
      `${path}: no repair request${at === '' ? '' : `: ${at}: ${issue?.message ?? ''}`}`,
      {
        hint: 'give the file that `sealift verify BUNDLE --write-request FILE` wrote',
      },
    );
  }
  const { name, version, blobs } = parsed.data;
  const lock = parsed.data.lock as Digest;
  const wanted = new Set(blobs.map((b) => b.digest));
  return { lock, of: [{ name, version, lock }], isLeftOut: (one) => !wanted.has(one) };
}
