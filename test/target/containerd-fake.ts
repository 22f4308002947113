/**
 * A containerd in memory over a real gRPC server on a unix socket: enough of its behaviour for the paths that a real one
 * shows only by chance (locks, leftovers, races). It reads and writes the messages by field number on its own.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { digestOf } from '../../src/io/verify.ts';

type Value = Uint8Array | number;
export type Message = Map<number, Value[]>;

/** All fields of a message, whatever it is. */
export function parse(bytes: Uint8Array): Message {
  const message: Message = new Map();
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    const value = type === WireType.Varint ? Number(reader.uint64()) : reader.bytes();
    message.set(field, [...(message.get(field) ?? []), value]);
  }
  return message;
}

const str = (m: Message, field: number): string =>
  Buffer.from((m.get(field)?.[0] as Uint8Array) ?? []).toString();
const num = (m: Message, field: number): number => Number(m.get(field)?.[0] ?? 0);
const sub = (m: Message, field: number): Message =>
  parse((m.get(field)?.[0] as Uint8Array) ?? new Uint8Array());
const map = (m: Message, field: number): Map<string, string> =>
  new Map((m.get(field) ?? []).map((e) => parse(e as Uint8Array)).map((e) => [str(e, 1), str(e, 2)]));

type Part = string | number | Uint8Array | ReadonlyMap<string, string>;

/** A message from its fields. */
export function build(fields: Readonly<Record<number, Part>>): Buffer {
  const w = new BinaryWriter();
  for (const [key, part] of Object.entries(fields)) {
    const field = Number(key);
    if (typeof part === 'number') w.tag(field, WireType.Varint).int64(part);
    else if (typeof part === 'string') w.tag(field, WireType.LengthDelimited).string(part);
    else if (part instanceof Uint8Array) w.tag(field, WireType.LengthDelimited).bytes(part);
    else for (const [k, v] of part) w.tag(field, WireType.LengthDelimited).bytes(build({ 1: k, 2: v }));
  }
  return Buffer.from(w.finish());
}

export interface FakeBlob {
  readonly bytes: Buffer;
  labels: Map<string, string>;
}

export interface FakeImage {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly labels: Map<string, string>;
}

export interface FakeCall {
  /** `Content/Write`. */
  readonly method: string;
  readonly namespace: string;
  readonly lease: string;
  readonly request: Message;
}

/** What a hook may answer instead of the fake: a gRPC status, or nothing. */
export type Hook = (call: FakeCall) => status | undefined;

export interface Fake {
  readonly socket: string;
  readonly blobs: Map<string, FakeBlob>;
  readonly images: Map<string, FakeImage>;
  readonly ingests: Map<string, Buffer>;
  readonly leases: Map<string, { readonly labels: Map<string, string>; readonly content: Set<string> }>;
  /** Digests that another namespace has. */
  readonly shared: Map<string, Buffer>;
  readonly calls: FakeCall[];
  hook: Hook;
  /** What `Content/Read` sends of a blob; by default its bytes, 64 KiB at a time. */
  read: (bytes: Buffer) => Iterable<Buffer>;
  /** What the content plugin says of itself. */
  exports: Map<string, string>;
  /** What `Images/List` answers instead of the records. */
  list: Buffer | undefined;
  /** The messages of `Content/List`; by default two blobs in each. */
  infos: () => Iterable<Buffer>;
  /** The calls that change something. */
  writes(): string[];
  stop(): Promise<void>;
}

class Refused extends Error {
  readonly code: status;
  readonly details: string;
  constructor(code: status, details = `${status[code]} said the fake`) {
    super(details);
    this.code = code;
    this.details = details;
  }
}

const READS = new Set([
  'Introspection/Plugins',
  'Version/Version',
  'Content/Info',
  'Content/List',
  'Content/Read',
  'Images/Get',
  'Images/List',
]);

function* inPieces(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}

function* inTwos(messages: readonly Buffer[]): Generator<Buffer> {
  for (let at = 0; at < messages.length; at += 2) yield Buffer.concat(messages.slice(at, at + 2));
}

const same = (b: Buffer): Buffer => b;

function service(path: string, methods: readonly string[], stream: 'both' | 'answer' | 'none' = 'none') {
  return Object.fromEntries(
    methods.map((method) => [
      method,
      {
        path: `/containerd.services.${path}/${method}`,
        requestStream: stream === 'both',
        responseStream: stream !== 'none',
        requestSerialize: same,
        requestDeserialize: same,
        responseSerialize: same,
        responseDeserialize: same,
      },
    ]),
  );
}

type Unary = (request: Message, lease: string) => Buffer;

/** Starts a fake containerd. Blobs and records are those of whatever namespace is asked. */
export async function startFake(): Promise<Fake> {
  const dir = mkdtempSync(join(tmpdir(), 'fake-'));
  const server = new Server({ 'grpc.max_receive_message_length': 16 * 1024 * 1024 });
  const fake: Fake = {
    socket: join(dir, 's'),
    blobs: new Map(),
    images: new Map(),
    ingests: new Map(),
    leases: new Map(),
    shared: new Map(),
    calls: [],
    hook: () => undefined,
    read: inPieces,
    list: undefined,
    exports: new Map(),
    infos: () => inTwos([...fake.blobs.keys()].map(info)),
    writes: () => fake.calls.map((c) => c.method).filter((m) => !READS.has(m)),
    async stop() {
      server.forceShutdown();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  const seen = (
    method: string,
    call: { metadata: { get(k: string): unknown[] } },
    request: Message,
  ): FakeCall => {
    const header = (key: string): string => String(call.metadata.get(key)[0] ?? '');
    const made = {
      method,
      namespace: header('containerd-namespace'),
      lease: header('containerd-lease'),
      request,
    };
    fake.calls.push(made);
    const refusal = fake.hook(made);
    if (refusal !== undefined) throw new Refused(refusal);
    return made;
  };
  const serve = (path: string, methods: Readonly<Record<string, Unary>>): void => {
    const name = path.split('.').at(-1) ?? '';
    const handlers = Object.entries(methods).map(([method, answer]) => [
      method,
      (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => {
        try {
          const { request, lease } = seen(`${name}/${method}`, call, parse(call.request));
          done(null, answer(request, lease));
        } catch (error) {
          done(error as Refused);
        }
      },
    ]);
    server.addService(service(path, Object.keys(methods)), Object.fromEntries(handlers));
  };
  const info = (digest: string): Buffer => {
    const blob = fake.blobs.get(digest);
    if (blob === undefined) throw new Refused(status.NOT_FOUND);
    return build({ 1: build({ 1: digest, 2: blob.bytes.length, 5: blob.labels }) });
  };
  const image = (name: string): Buffer => {
    const found = fake.images.get(name);
    if (found === undefined) throw new Refused(status.NOT_FOUND);
    const target = build({ 1: found.mediaType, 2: found.digest, 3: found.size });
    return build({ 1: build({ 1: name, 2: found.labels, 3: target }) });
  };
  const putImage = (request: Message): Buffer => {
    const record = sub(request, 1);
    const target = sub(record, 3);
    const before = fake.images.get(str(record, 1))?.labels ?? new Map<string, string>();
    fake.images.set(str(record, 1), {
      mediaType: str(target, 1),
      digest: str(target, 2),
      size: num(target, 3),
      labels: new Map([...before, ...map(record, 2)]),
    });
    return image(str(record, 1));
  };
  serve('introspection.v1.Introspection', {
    Plugins: () => build({ 1: build({ 1: 'io.containerd.content.v1', 2: 'content', 5: fake.exports }) }),
  });
  serve('version.v1.Version', { Version: () => build({ 1: 'v0.0-fake' }) });
  serve('leases.v1.Leases', {
    Create: (r) => {
      const id = `lease-${fake.leases.size + 1}`;
      fake.leases.set(id, { labels: map(r, 3), content: new Set() });
      return build({ 1: build({ 1: id }) });
    },
    Delete: (r) => {
      if (!fake.leases.delete(str(r, 1))) throw new Refused(status.NOT_FOUND);
      return build({});
    },
    AddResource: (r) => {
      const lease = fake.leases.get(str(r, 1));
      if (lease === undefined) throw new Refused(status.NOT_FOUND);
      lease.content.add(str(sub(r, 2), 1));
      return build({});
    },
  });
  serve('images.v1.Images', {
    Get: (r) => image(str(r, 1)),
    List: () => fake.list ?? Buffer.concat([...fake.images.keys()].map(image)),
    Create: (r) => {
      if (fake.images.has(str(sub(r, 1), 1))) throw new Refused(status.ALREADY_EXISTS);
      return putImage(r);
    },
    Update: (r) => {
      image(str(sub(r, 1), 1));
      return putImage(r);
    },
  });
  serve('content.v1.Content', {
    Info: (r) => info(str(r, 1)),
    Update: (r) => {
      const digest = str(sub(r, 1), 1);
      info(digest);
      const paths = (sub(r, 2).get(1) ?? []).map((p) => Buffer.from(p as Uint8Array).toString());
      const labels = fake.blobs.get(digest)?.labels;
      for (const [k, v] of map(sub(r, 1), 5)) if (paths.includes(`labels.${k}`)) labels?.set(k, v);
      return info(digest);
    },
    Abort: (r) => {
      if (!fake.ingests.delete(str(r, 1))) throw new Refused(status.NOT_FOUND);
      return build({});
    },
  });
  serveStreams(server, fake, seen);
  serveWrite(server, fake, seen);
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix:${fake.socket}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    );
  });
  return fake;
}

/** `Content/Read`, the blob from an offset on, and `Content/List`. */
function serveStreams(
  server: Server,
  fake: Fake,
  seen: (method: string, call: ServerWritableStream<Buffer, Buffer>, request: Message) => FakeCall,
): void {
  const streamed =
    (method: string, answers: (request: Message) => Iterable<Buffer>) =>
    async (call: ServerWritableStream<Buffer, Buffer>): Promise<void> => {
      try {
        const { request } = seen(`Content/${method}`, call, parse(call.request));
        const cancelled = new Promise((done) => call.once('cancelled', done));
        for (const answer of answers(request)) {
          if (call.cancelled) return;
          const isFull = !call.write(answer);
          if (isFull) await Promise.race([cancelled, new Promise((done) => call.once('drain', done))]);
        }
        call.end();
      } catch (error) {
        call.emit('error', error);
      }
    };
  const Read = streamed('Read', function* (request) {
    const blob = fake.blobs.get(str(request, 1));
    if (blob === undefined) throw new Refused(status.NOT_FOUND);
    let at = num(request, 2);
    for (const data of fake.read(blob.bytes.subarray(at))) {
      yield build({ 1: at, 2: data });
      at += data.length;
    }
  });
  const List = streamed('List', () => fake.infos());
  server.addService(service('content.v1.Content', ['Read', 'List'], 'answer'), { Read, List });
}

type Stream = ServerDuplexStream<Buffer, Buffer>;

/** `Content/Write` after contentserver.go and metadata/content.go: lock, leftovers, shared content, lock-step. */
function serveWrite(
  server: Server,
  fake: Fake,
  seen: (method: string, call: Stream, request: Message) => FakeCall,
): void {
  const locked = new Set<string>();
  const Write = (call: Stream): void => {
    let ref = '';
    let held: Buffer | undefined;
    let over = false;
    const step = (data: Buffer): void => {
      const request = parse(data);
      const { lease } = seen('Content/Write', call, request);
      const [expected, total, offset] = [str(request, 4), num(request, 3), num(request, 5)];
      if (held === undefined) {
        if (locked.has(str(request, 2))) throw new Refused(status.UNAVAILABLE);
        if (fake.blobs.has(expected)) {
          fake.leases.get(lease)?.content.add(expected);
          throw new Refused(status.ALREADY_EXISTS);
        }
        ref = str(request, 2);
        locked.add(ref);
        held = fake.shared.get(expected) ?? fake.ingests.get(ref) ?? Buffer.alloc(0);
      }
      const action = num(request, 1);
      if (action > 0) {
        if (offset !== held.length) throw new Refused(status.OUT_OF_RANGE);
        held = Buffer.concat([held, (request.get(6)?.[0] as Uint8Array) ?? Buffer.alloc(0)]);
      }
      fake.ingests.set(ref, held);
      if (action === 2) {
        if (held.length !== total || digestOf(held) !== expected)
          throw new Refused(status.FAILED_PRECONDITION);
        fake.ingests.delete(ref);
        fake.blobs.set(expected, { bytes: held, labels: map(request, 7) });
        fake.leases.get(lease)?.content.add(expected);
      }
      call.write(build({ 1: action, 4: held.length, 5: total }));
      // The real one sends the last answer twice.
      if (action === 2) close(() => call.write(build({ 1: action, 4: total })));
    };
    const close = (last: () => void = () => {}): void => {
      if (over) return;
      over = true;
      locked.delete(ref);
      last();
      call.end();
    };
    call.on('data', (data: Buffer) => {
      if (over) return;
      try {
        step(data);
      } catch (error) {
        over = true;
        locked.delete(ref);
        call.emit('error', error);
      }
    });
    call.on('end', () => close());
    call.on('cancelled', () => close());
  };
  server.addService(service('content.v1.Content', ['Write'], 'both'), { Write });
}
