import { createHash, type Hash, randomUUID } from 'node:crypto';
import { type Digest, parseDigest } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Incoming, Storage } from './storage.ts';

/** An upload session: a blob on its way in, hashed as it arrives (distribution-spec, "Pushing a blob in chunks"). */
export interface Upload {
  readonly id: string;
  /** Part of the Location only; a client that drops the Location's query loses the session, as on a real registry. */
  readonly state: string;
  readonly repository: string;
  readonly received: number;
  /** Whether a request is writing to it now. */
  readonly busy: boolean;
  /**
   * Appends bytes. When `source` fails in the middle what arrived stays, and the client may go on from there.
   * @throws CONTENT_TOO_LARGE
   */
  append(source: AsyncIterable<Uint8Array>): Promise<void>;
  /**
   * Ends the session: the blob becomes visible when its SHA-256 is `digest`, and is forgotten otherwise.
   * @throws CONTENT_DIGEST_MISMATCH
   */
  finish(digest: Digest): Promise<void>;
  discard(): Promise<void>;
}

/** All sessions of a registry. They live in the process: after a restart a client begins again. */
export interface Uploads {
  /** A new session, or undefined when there are too many. */
  start(repository: string): Promise<Upload | undefined>;
  /** The session of that repository and state. */
  find(id: string, of: { readonly repository: string; readonly state: string | null }): Upload | undefined;
  discardAll(): Promise<void>;
}

class Session implements Upload {
  readonly id = randomUUID();
  readonly state = randomUUID();
  readonly repository: string;
  readonly #incoming: Incoming;
  readonly #limit: number;
  readonly #forget: (id: string) => void;
  readonly #sha: Hash = createHash('sha256');
  #received = 0;
  #busy = false;

  constructor(
    repository: string,
    incoming: Incoming,
    options: { readonly limit: number; readonly forget: (id: string) => void },
  ) {
    this.repository = repository;
    this.#incoming = incoming;
    this.#limit = options.limit;
    this.#forget = options.forget;
  }

  get received(): number {
    return this.#received;
  }

  get busy(): boolean {
    return this.#busy;
  }

  async append(source: AsyncIterable<Uint8Array>): Promise<void> {
    this.#busy = true;
    try {
      for await (const chunk of source) {
        if (this.#received + chunk.length > this.#limit) {
          throw new SealiftError('CONTENT_TOO_LARGE', `upload: more than ${this.#limit} bytes`);
        }
        await this.#write(chunk);
      }
    } finally {
      this.#busy = false;
    }
  }

  async #write(chunk: Uint8Array): Promise<void> {
    try {
      await this.#incoming.write(chunk);
    } catch (error) {
      // Part of the chunk may be on the disk, so the hash and the file no longer agree.
      await this.discard();
      throw error;
    }
    this.#sha.update(chunk);
    this.#received += chunk.length;
  }

  async finish(digest: Digest): Promise<void> {
    this.#forget(this.id);
    try {
      const found = parseDigest(`sha256:${this.#sha.digest('hex')}`, 'upload');
      if (found !== digest) {
        throw new SealiftError('CONTENT_DIGEST_MISMATCH', `upload: expected ${digest}, found ${found}`);
      }
      await this.#incoming.commit(digest);
    } finally {
      await this.#incoming.discard();
    }
  }

  async discard(): Promise<void> {
    this.#forget(this.id);
    await this.#incoming.discard();
  }
}

/** @param options.blobLimit bytes of one blob */
export function createUploads(storage: Storage, options: { readonly blobLimit: number }): Uploads {
  const sessions = new Map<string, Session>();
  const forget = (id: string): void => {
    sessions.delete(id);
  };
  return {
    async start(repository) {
      if (sessions.size >= LIMITS.uploadSessions) return undefined;
      const session = new Session(repository, await storage.receive(), { limit: options.blobLimit, forget });
      sessions.set(session.id, session);
      return session;
    },
    find(id, of) {
      const session = sessions.get(id);
      return session?.repository === of.repository && session.state === of.state ? session : undefined;
    },
    async discardAll() {
      await Promise.all([...sessions.values()].map((session) => session.discard()));
    },
  };
}
