/** One text field of a form. */
export interface FormField {
  readonly name: string;
  readonly value: string;
}

/** The one file of a form. */
export interface FormFile {
  readonly name: string;
  /** Shown to the server as the file's own name. */
  readonly fileName: string;
  readonly contentType: string;
  /** Bytes that `open` gives. */
  readonly size: number;
  /** Its bytes from the start; called anew for each try. */
  readonly open: () => AsyncIterable<Uint8Array>;
}

/** Fields that are known only once the file has passed. */
export interface LateFields {
  /** Bytes that are kept free for them, each counted with `fieldLength`. */
  readonly room: number;
  /** Asked for when the file's last byte was given; those that do not fit any more are left out. */
  readonly fields: () => Promise<readonly FormField[]>;
}

export interface FormOptions {
  /** A word that is nowhere in the form: letters, digits and `-`, at most 70 (RFC 2046 5.1.1). */
  readonly boundary: string;
  readonly fields: readonly FormField[];
  readonly file: FormFile;
  readonly late?: LateFields;
}

/** A form as the body of a request: its length is exact, and it can be made again for another try. */
export interface Form {
  readonly contentType: string;
  /** Bytes. */
  readonly contentLength: number;
  readonly body: () => AsyncIterable<Uint8Array>;
}

const BOUNDARY = /^[A-Za-z0-9-]{1,70}$/;

/** A name inside quotes, as browsers write it (WHATWG HTML, "Multipart form data"). */
function quoted(name: string): string {
  return name.replaceAll('"', '%22').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
}

function fieldBytes({ name, value }: FormField, boundary: string): Buffer {
  const head = `--${boundary}\r\nContent-Disposition: form-data; name="${quoted(name)}"\r\n\r\n`;
  return Buffer.from(`${head}${value}\r\n`);
}

/** Bytes that a field takes. */
export function fieldLength(field: FormField, boundary: string): number {
  return fieldBytes(field, boundary).length;
}

/**
 * A form with one file that is streamed (RFC 7578). Fields may stand behind the file: the room for them is part of the
 * length, and what of it is not used becomes the epilogue, which every reader passes over (RFC 2046 5.1.1).
 */
export function multipartForm({ boundary, fields, file, late }: FormOptions): Form {
  if (!BOUNDARY.test(boundary)) throw new RangeError(`not a boundary: ${JSON.stringify(boundary)}`);
  const disposition = `form-data; name="${quoted(file.name)}"; filename="${quoted(file.fileName)}"`;
  const head = Buffer.concat([
    ...fields.map((field) => fieldBytes(field, boundary)),
    Buffer.from(
      `--${boundary}\r\nContent-Disposition: ${disposition}\r\nContent-Type: ${file.contentType}\r\n\r\n`,
    ),
  ]);
  const end = Buffer.from(`--${boundary}--\r\n`);
  const room = late?.room ?? 0;
  const body = async function* (): AsyncGenerator<Uint8Array> {
    yield head;
    yield* file.open();
    const tail: Buffer[] = [Buffer.from('\r\n')];
    let left = room;
    for (const field of (await late?.fields()) ?? []) {
      const bytes = fieldBytes(field, boundary);
      if (bytes.length > left) continue;
      left -= bytes.length;
      tail.push(bytes);
    }
    yield Buffer.concat([...tail, end, Buffer.alloc(left, '\r\n')]);
  };
  return {
    contentType: `multipart/form-data; boundary=${boundary}`,
    contentLength: head.length + file.size + 2 + room + end.length,
    body,
  };
}
