import { SealiftError } from '../../core/errors.ts';
import { LIMITS, MIB } from '../../core/limits.ts';
import { decoded, nextAnswer, readStream, waitFor } from './answers.ts';
import { bounded, callError, statusOf } from './failure.ts';
import { type GrpcCall, GrpcChannel, GrpcError, STATUS, type Status } from './grpc.ts';
import * as state from './state-wire.ts';
import * as wire from './wire.ts';
import { WriteStream } from './write-stream.ts';

/** containerd's own limit for one message (registry.md 3.1). */
const MESSAGE_LIMIT = 16 * MIB;

const METHOD = {
  version: 'version.v1.Version/Version',
  info: 'content.v1.Content/Info',
  listContent: 'content.v1.Content/List',
  update: 'content.v1.Content/Update',
  read: 'content.v1.Content/Read',
  write: 'content.v1.Content/Write',
  abort: 'content.v1.Content/Abort',
  createLease: 'leases.v1.Leases/Create',
  deleteLease: 'leases.v1.Leases/Delete',
  addResource: 'leases.v1.Leases/AddResource',
  getImage: 'images.v1.Images/Get',
  listImages: 'images.v1.Images/List',
  createImage: 'images.v1.Images/Create',
  updateImage: 'images.v1.Images/Update',
  deleteImage: 'images.v1.Images/Delete',
  plugins: 'introspection.v1.Introspection/Plugins',
  listNamespaces: 'namespaces.v1.Namespaces/List',
  listLeases: 'leases.v1.Leases/List',
  leaseResources: 'leases.v1.Leases/ListResources',
  listIngests: 'content.v1.Content/ListStatuses',
  listContainers: 'containers.v1.Containers/List',
  criStatus: 'runtime.v1.RuntimeService/Status',
} as const;

type Method = keyof typeof METHOD;

/** kubelet's own interface (CRI) is on the same socket, under its own name. */
const pathOf = (method: Method): string =>
  `/${method === 'criStatus' ? '' : 'containerd.services.'}${METHOD[method]}`;

/**
 * Calls of one containerd in one namespace over its unix socket (registry.md 3.1, 3.2). A namespace comes into being with
 * the first thing in it: containerd 1.6 and 2.2 answer for one that is not there as for an empty one. Every call ends with an answer,
 * a SealiftError (`statusOf` gives its gRPC status) or ABORTED; none waits longer than `LIMITS.headersMs` for an answer.
 */
export class ContainerdClient {
  readonly #channel: GrpcChannel;
  readonly #namespace: string;
  readonly #name: string;
  #lease: string | undefined;

  /** Connects with the first call. @param socket absolute path */
  constructor(socket: string, namespace: string) {
    this.#namespace = namespace;
    this.#name = `containerd ${socket} ${namespace}`;
    this.#channel = new GrpcChannel(socket, { messageLimit: MESSAGE_LIMIT });
  }

  close(): void {
    this.#channel.close();
  }

  /** The lease that all later calls carry. */
  useLease(id: string): void {
    this.#lease = id;
  }

  /** containerd's version, bounded; answers soon or not at all. */
  async version(signal: AbortSignal): Promise<string> {
    const answer = await this.#call('version', wire.encodeEmpty(), { signal, ms: LIMITS.connectMs });
    return bounded(this.#read(wire.decodeName, answer, 'version'));
  }

  /** The folder where the content of all namespaces lies, as containerd itself sees it: it may run in a container; '' where it does not say. */
  async contentRoot(signal: AbortSignal): Promise<string> {
    const filter = wire.encodeName('type==io.containerd.content.v1');
    const answer = await this.#call('plugins', filter, { signal, ms: LIMITS.connectMs });
    return this.#read(wire.decodeRoot, answer, 'plugins');
  }

  /** All its plugins: where they keep what they keep, and for which platforms they are. */
  plugins(signal: AbortSignal): Promise<state.Plugin[]> {
    return this.#list('plugins', state.decodePlugin, { signal });
  }

  /** All namespaces: their names and labels. */
  namespaces(signal: AbortSignal): Promise<state.Named[]> {
    return this.#list('listNamespaces', state.decodeNamespace, { signal });
  }

  leases(signal: AbortSignal): Promise<state.Lease[]> {
    return this.#list('listLeases', state.decodeLeaseState, { signal });
  }

  /** What a lease keeps: `content` has a digest as its id. */
  leaseResources(lease: string, signal: AbortSignal): Promise<state.Resource[]> {
    const request = wire.encodeName(lease);
    return this.#list('leaseResources', state.decodeResource, { signal, request });
  }

  /** Content of the namespace that somebody began to write and did not commit. */
  ingests(signal: AbortSignal): Promise<state.Ingest[]> {
    return this.#list('listIngests', state.decodeIngest, { signal });
  }

  /** The containers of the namespace with the names of their images. */
  containers(signal: AbortSignal): Promise<state.Container[]> {
    return this.#list('listContainers', state.decodeContainer, { signal });
  }

  /** What CRI tells about its settings, as JSON texts by name; empty where this containerd has no CRI. */
  async criInfo(signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    const request = state.encodeVerbose();
    const ask = (): Promise<Buffer> => this.#call('criStatus', request, { signal, ms: LIMITS.connectMs });
    const answer = await this.#unless(STATUS.UNIMPLEMENTED, ask);
    return answer === undefined ? new Map() : this.#read(state.decodeCriInfo, answer, 'criStatus');
  }

  /** What the namespace has under a digest, or undefined. */
  async info(digest: string, signal: AbortSignal): Promise<wire.ContentInfo | undefined> {
    const answer = await this.#ask('info', digest, signal);
    return answer === undefined ? undefined : this.#read(wire.decodeInfo, answer, 'info');
  }

  /**
   * All content of the namespace, one by one as the server tells it: nothing of it is kept. Cheaper than a question for
   * each blob unless the namespace holds some hundred times more than is asked for.
   * @throws TARGET_FAILED for a list that does not end
   */
  async *listContent(signal: AbortSignal): AsyncGenerator<wire.ContentInfo> {
    const call = this.#begin('listContent');
    call.write([wire.encodeEmpty()]);
    call.end();
    const answers = decoded(call, (message) => message);
    const wait = { signal, what: this.#what('listContent'), cancel: () => call.cancel(), act: () => {} };
    try {
      for (let left = LIMITS.listedContent; left >= 0; left--) {
        const answer = await nextAnswer(answers, wait);
        if (answer === undefined) return;
        for (const info of this.#each(wire.decodeInfos, answer, 'listContent')) {
          if (left-- <= 0) break;
          yield info;
        }
      }
      throw endless(wait.what);
    } finally {
      call.cancel();
    }
  }

  /** Sets these labels of a blob; its others stay. */
  async updateLabels(digest: string, labels: wire.Labels, signal: AbortSignal): Promise<void> {
    await this.#call('update', wire.encodeUpdateLabels(digest, labels), { signal });
  }

  /** Drops an unfinished ingest; that there is none is fine. */
  async abort(ref: string, signal: AbortSignal): Promise<void> {
    await this.#ask('abort', ref, signal);
  }

  /** @returns the id that the server chose */
  async createLease(labels: wire.Labels, signal: AbortSignal): Promise<string> {
    const answer = await this.#call('createLease', wire.encodeCreateLease(labels), { signal });
    return this.#read(wire.decodeLease, answer, 'createLease');
  }

  /** Deletes a lease, and waits for the garbage collection that follows. */
  async deleteLease(id: string, signal: AbortSignal): Promise<void> {
    const request = wire.encodeDeleteLease(id, { sync: true });
    await this.#unless(STATUS.NOT_FOUND, () => this.#call('deleteLease', request, { signal }));
  }

  /** Protects a blob by the lease. The server does not check that the blob is there. */
  async addToLease(lease: string, digest: string, signal: AbortSignal): Promise<void> {
    await this.#call('addResource', wire.encodeAddContent(lease, digest), { signal });
  }

  async getImage(name: string, signal: AbortSignal): Promise<wire.ImageRecord | undefined> {
    const answer = await this.#ask('getImage', name, signal);
    return answer === undefined ? undefined : this.#read(wire.decodeImage, answer, 'getImage');
  }

  /** Removes an image record; that there is none is fine. Its content goes with a later garbage collection. */
  async deleteImage(name: string, signal: AbortSignal): Promise<void> {
    await this.#ask('deleteImage', name, signal);
  }

  /**
   * The image records of the namespace whose name is wanted.
   * @throws with the status RESOURCE_EXHAUSTED when all of them are more than one message holds
   */
  async listImages(
    signal: AbortSignal,
    isWanted: (name: string) => boolean = () => true,
  ): Promise<wire.ImageRecord[]> {
    const answer = await this.#call('listImages', wire.encodeEmpty(), { signal });
    const found: wire.ImageRecord[] = [];
    for (const record of this.#each(wire.decodeImages, answer, 'listImages')) {
      if (isWanted(record.name)) found.push(record);
    }
    return found;
  }

  /** Streams a blob from byte `offset`, unverified. */
  openRead(
    digest: string,
    options: { readonly offset: number; readonly signal: AbortSignal },
  ): AsyncGenerator<Uint8Array> {
    const { offset, signal } = options;
    const call = this.#begin('read');
    call.write([wire.encodeRead({ digest, offset })]);
    call.end();
    return readStream(call, { decode: wire.decodeRead, signal, what: this.#what('read') });
  }

  /**
   * Points an image record at its target and sets its labels; its other labels stay. Makes it when there is none.
   * @param options.isThere what is likely: it decides what is tried first
   */
  async putImage(
    record: wire.ImageRecord,
    { isThere, signal }: { readonly isThere: boolean; readonly signal: AbortSignal },
  ): Promise<void> {
    const update = (): Promise<Buffer> =>
      this.#call('updateImage', wire.encodeUpdateImage(record), { signal });
    const create = (): Promise<Buffer> =>
      this.#call('createImage', wire.encodeCreateImage(record), { signal });
    const tryUpdate = (): Promise<Buffer | undefined> => this.#unless(STATUS.NOT_FOUND, update);
    const tryCreate = (): Promise<Buffer | undefined> => this.#unless(STATUS.ALREADY_EXISTS, create);
    // Someone else may make or remove the record between two calls; then the third finds what the first expected.
    if (isThere) void ((await tryUpdate()) ?? (await tryCreate()) ?? (await update()));
    else void ((await tryCreate()) ?? (await tryUpdate()) ?? (await create()));
  }

  /** Sets these labels of an image record; its others, and what it points at, stay. @throws with the status NOT_FOUND */
  async labelImage(name: string, labels: wire.Labels, signal: AbortSignal): Promise<void> {
    const record = { name, labels, target: { mediaType: '', digest: '', size: 0 } };
    await this.#call('updateImage', wire.encodeUpdateImage(record, 'labels'), { signal });
  }

  /** Opens `Content.Write`; the caller ends it with `finish` or `cancel`. */
  openWrite(signal: AbortSignal): WriteStream {
    return new WriteStream(this.#begin('write'), { signal, what: this.#what('write') });
  }

  #what(method: Method): string {
    return `${this.#name}: ${METHOD[method]}`;
  }

  #begin(method: Method): GrpcCall {
    const lease = this.#lease === undefined ? {} : { 'containerd-lease': this.#lease };
    return this.#channel.call(pathOf(method), { 'containerd-namespace': this.#namespace, ...lease });
  }

  #read<T>(decode: (bytes: Uint8Array) => T, answer: Uint8Array, method: Method): T {
    try {
      return decode(answer);
    } catch (error) {
      throw callError(error, `${this.#what(method)}: the answer cannot be read`);
    }
  }

  *#each<T>(decode: (bytes: Uint8Array) => Iterable<T>, answer: Uint8Array, method: Method): Generator<T> {
    const all = decode(answer)[Symbol.iterator]();
    for (;;) {
      const next = this.#read(() => all.next(), answer, method);
      if (next.done === true) return;
      yield next.value;
    }
  }

  /** A call whose answer is one list, in field 1. */
  async #list<T>(
    method: Method,
    decode: (bytes: Uint8Array) => T,
    options: { readonly signal: AbortSignal; readonly request?: Buffer },
  ): Promise<T[]> {
    const answer = await this.#call(method, options.request ?? wire.encodeEmpty(), options);
    return [...this.#each((bytes) => state.listed(bytes, decode), answer, method)];
  }

  /** A call by name whose NOT_FOUND is an answer. */
  #ask(method: Method, name: string, signal: AbortSignal): Promise<Buffer | undefined> {
    return this.#unless(STATUS.NOT_FOUND, () => this.#call(method, wire.encodeName(name), { signal }));
  }

  async #unless(expected: Status, call: () => Promise<Buffer>): Promise<Buffer | undefined> {
    try {
      return await call();
    } catch (error) {
      if (statusOf(error) === expected) return undefined;
      throw error;
    }
  }

  /** A call with one message each way. */
  async #call(
    method: Method,
    request: Buffer,
    options: { readonly signal: AbortSignal; readonly ms?: number },
  ): Promise<Buffer> {
    const call = this.#begin(method);
    const wait = { ...options, cancel: () => call.cancel(), what: this.#what(method) };
    return waitFor(async () => {
      call.write([request]);
      call.end();
      let answer: Buffer | undefined;
      for await (const message of call.messages()) answer ??= message;
      if (answer !== undefined) return answer;
      throw new GrpcError(STATUS.INTERNAL, 'no answer before the end');
    }, wait);
  }
}

function endless(what: string): SealiftError {
  return new SealiftError('TARGET_FAILED', `${what}: more than ${LIMITS.listedContent} entries`, {
    hint: "look at containerd's own log (journalctl -u containerd)",
    side: 'destination',
  });
}
