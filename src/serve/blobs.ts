import { type Digest, isDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { isRepository } from '../core/reference.ts';
import { type Answer, bodyOf, type Exchange, refusal } from './answer.ts';
import { badDigest, unknownBlob } from './reading.ts';
import { linkBlob, linkedBlobSize, type Repository, unlinkBlob } from './repository.ts';
import type { Upload, Uploads } from './uploads.ts';

/** Blob endpoints of the distribution-spec that write: push in one or several pieces, mount, delete. */

function created(repository: Repository, digest: Digest): Answer {
  return {
    status: 201,
    headers: { location: `/v2/${repository.name}/blobs/${digest}`, 'docker-content-digest': digest },
  };
}

/** DELETE of one blob. */
export async function deleteBlob(
  repository: Repository,
  options: { readonly digest: string },
): Promise<Answer> {
  const { digest } = options;
  if (!isDigest(digest)) return badDigest(digest);
  if ((await linkedBlobSize(repository, digest)) === undefined) return unknownBlob(digest);
  await unlinkBlob(repository, digest);
  return { status: 202 };
}

/** Where a session stands. An empty session says `0-0`, as distribution does. */
function progress(upload: Upload, status: number): Answer {
  const base = `/v2/${upload.repository}/blobs/uploads/${upload.id}`;
  return {
    status,
    headers: {
      location: `${base}?_state=${upload.state}`,
      range: `0-${Math.max(0, upload.received - 1)}`,
      'docker-upload-uuid': upload.id,
    },
  };
}

/** Appends the request's body; undefined when all went well. A client that stops in the middle leaves a session that can go on. */
async function receive(exchange: Exchange, upload: Upload): Promise<Answer | undefined> {
  if (upload.busy) {
    return refusal('BLOB_UPLOAD_INVALID', 'another request is writing to this upload', { status: 409 });
  }
  try {
    await upload.append(bodyOf(exchange));
    return undefined;
  } catch (error) {
    if (!(error instanceof SealiftError) || error.code !== 'CONTENT_TOO_LARGE') throw error;
    await upload.discard();
    return refusal('SIZE_INVALID', error.message, { status: 413 });
  }
}

async function finish(repository: Repository, upload: Upload, digest: Digest): Promise<Answer> {
  try {
    await upload.finish(digest);
  } catch (error) {
    if (!(error instanceof SealiftError) || error.code !== 'CONTENT_DIGEST_MISMATCH') throw error;
    return refusal('DIGEST_INVALID', error.message, { details: [{ digest }] });
  }
  await linkBlob(repository, digest);
  return created(repository, digest);
}

/** `POST /v2/<name>/blobs/uploads/`: a session, a whole blob (`?digest=`), or a mount (`?mount=&from=`). */
export async function startUpload(
  exchange: Exchange,
  repository: Repository,
  uploads: Uploads,
): Promise<Answer> {
  const { query } = exchange;
  const mount = query.get('mount');
  const from = query.get('from');
  const algorithm = query.get('digest-algorithm');
  if (algorithm !== null && algorithm !== 'sha256') return badDigest(algorithm);
  if (mount !== null) {
    if (!isDigest(mount)) return badDigest(mount);
    if (from !== null && isRepository(from)) {
      const size = await linkedBlobSize({ storage: repository.storage, name: from }, mount);
      if (size !== undefined) {
        await linkBlob(repository, mount);
        return created(repository, mount);
      }
    }
  }
  const digest = query.get('digest');
  if (digest !== null && !isDigest(digest)) return badDigest(digest);
  const upload = await uploads.start(repository.name);
  if (upload === undefined) return refusal('TOOMANYREQUESTS', 'too many uploads are under way');
  if (digest === null) return progress(upload, 202);
  try {
    return (await receive(exchange, upload)) ?? (await finish(repository, upload, digest));
  } finally {
    // Nobody knows the Location of a one-request upload, so nothing may stay of a broken one.
    await upload.discard();
  }
}

/** The 416 rule: a chunk that says where it belongs must begin where the last one ended. */
function refusedRange(exchange: Exchange, upload: Upload): Answer | undefined {
  const text = exchange.request.headers['content-range'];
  if (text === undefined) return undefined;
  const match = /^(\d{1,15})-(\d{1,15})$/.exec(text);
  const start = Number(match?.[1] ?? Number.NaN);
  const length = Number(match?.[2] ?? Number.NaN) - start + 1;
  if (match === null || length < 1) {
    return refusal('BLOB_UPLOAD_INVALID', `Content-Range "${text.slice(0, 60)}" is not <start>-<end>`);
  }
  if (start !== upload.received) {
    return refusal('BLOB_UPLOAD_INVALID', `expected byte ${upload.received}, the chunk starts at ${start}`, {
      status: 416,
      headers: { ...progress(upload, 416).headers },
    });
  }
  const announced = exchange.request.headers['content-length'];
  if (announced !== undefined && Number(announced) !== length) {
    return refusal('SIZE_INVALID', `Content-Range says ${length} bytes, Content-Length ${announced}`);
  }
  return undefined;
}

/** PATCH, PUT, GET and DELETE of an upload session. */
export async function handleUpload(
  exchange: Exchange,
  repository: Repository,
  options: { readonly uploads: Uploads; readonly id: string },
): Promise<Answer> {
  const state = exchange.query.get('_state');
  const upload = options.uploads.find(options.id, { repository: repository.name, state });
  if (upload === undefined) {
    return refusal('BLOB_UPLOAD_UNKNOWN', 'no such upload; begin again with POST', {
      details: [{ id: options.id.slice(0, 80) }],
    });
  }
  if (exchange.method === 'GET') return progress(upload, 204);
  if (exchange.method === 'DELETE') {
    await upload.discard();
    return { status: 204 };
  }
  const digest = exchange.query.get('digest');
  if (exchange.method === 'PUT' && (digest === null || !isDigest(digest))) return badDigest(digest);
  const refused = refusedRange(exchange, upload) ?? (await receive(exchange, upload));
  if (refused !== undefined) return refused;
  if (exchange.method === 'PUT' && digest !== null && isDigest(digest)) {
    return await finish(repository, upload, digest);
  }
  return progress(upload, 202);
}
