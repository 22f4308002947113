import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { HttpClient } from '../../src/io/http.ts';
import { type FormOptions, fieldLength, multipartForm } from '../../src/io/multipart.ts';
import { testContext } from '../support/bundles.ts';

async function bytesOf(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Read by somebody else's parser. */
async function parsed(bytes: Buffer, contentType: string): Promise<FormData> {
  return new Response(bytes, { headers: { 'content-type': contentType } }).formData();
}

const CONTENT = Buffer.from('a\r\n--b\r\n\0\xff', 'latin1');

function options(more: Partial<FormOptions> = {}): FormOptions {
  return {
    boundary: 'boundary-1',
    fields: [
      { name: ':action', value: 'file_upload' },
      { name: 'classifiers', value: 'A :: B' },
      { name: 'classifiers', value: 'ä\r\nb' },
    ],
    file: {
      name: 'content',
      fileName: 'a-1.0-py3-none-any.whl',
      contentType: 'application/octet-stream',
      size: CONTENT.length,
      async *open() {
        yield CONTENT.subarray(0, 3);
        yield CONTENT.subarray(3);
      },
    },
    ...more,
  };
}

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

describe('a form with a file', () => {
  it('has the length that it says, and everything in it', async () => {
    const form = multipartForm(options());
    const bytes = await bytesOf(form.body());
    expect(bytes.length).toBe(form.contentLength);
    const data = await parsed(bytes, form.contentType);
    expect(data.getAll('classifiers')).toEqual(['A :: B', 'ä\r\nb']);
    const file = data.get('content');
    expect(file).toBeInstanceOf(File);
    if (!(file instanceof File)) return;
    expect(file.name).toBe('a-1.0-py3-none-any.whl');
    expect(Buffer.from(await file.arrayBuffer())).toEqual(CONTENT);
  });

  it('can be made again, byte for byte', async () => {
    const form = multipartForm(options());
    expect(await bytesOf(form.body())).toEqual(await bytesOf(form.body()));
  });

  it('takes fields behind the file that are known only then, within the room kept for them', async () => {
    const small = { name: 'md5_digest', value: 'f'.repeat(32) };
    const large = { name: 'description', value: 'x'.repeat(5_000) };
    const order: string[] = [];
    const { file } = options();
    const form = multipartForm(
      options({
        file: {
          ...file,
          async *open() {
            yield* file.open();
            order.push('file');
          },
        },
        late: {
          room: fieldLength(small, 'boundary-1') + 100,
          fields: async () => {
            order.push('fields');
            return [large, small];
          },
        },
      }),
    );
    const bytes = await bytesOf(form.body());
    expect(bytes.length).toBe(form.contentLength);
    expect(order).toEqual(['file', 'fields']);
    // The reader of the tests wants nothing behind the end; servers pass over it.
    const end = bytes.indexOf('--boundary-1--\r\n') + '--boundary-1--\r\n'.length;
    expect(bytes.subarray(end).toString()).toMatch(/^[\r\n]{90,110}$/);
    const data = await parsed(bytes.subarray(0, end), form.contentType);
    expect(data.get('md5_digest')).toBe(small.value);
    expect(data.get('description')).toBeNull();
  });

  it('lets no name end its quotes or its line', async () => {
    const { file } = options();
    const form = multipartForm(
      options({ fields: [{ name: 'a"\r\nx: y', value: '1' }], file: { ...file, fileName: 'b"\r\n.whl' } }),
    );
    const text = (await bytesOf(form.body())).toString('latin1');
    expect(text).toContain('name="a%22%0D%0Ax: y"');
    expect(text).toContain('filename="b%22%0D%0A.whl"');
  });

  it('refuses a boundary that is none', () => {
    for (const boundary of ['', 'a b', 'x'.repeat(71), 'a\r\n']) {
      expect(() => multipartForm(options({ boundary }))).toThrow(RangeError);
    }
  });

  it('is sent whole again where the first try broke', async () => {
    const seen: number[] = [];
    const server = createServer((req, res) => {
      let size = 0;
      req.on('data', (chunk: Buffer) => {
        size += chunk.length;
      });
      req.on('end', () => {
        seen.push(size);
        res.writeHead(seen.length === 1 ? 503 : 200, { 'retry-after': '0' }).end();
      });
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const http = new HttpClient(testContext());
    closing.push(async () => {
      await http.close();
      await new Promise((done) => server.close(done));
    });
    const form = multipartForm(options());
    const { port } = server.address() as AddressInfo;
    const response = await http.request({
      method: 'POST',
      url: new URL(`http://127.0.0.1:${port}/`),
      headers: { 'content-type': form.contentType },
      body: form.body,
      contentLength: form.contentLength,
    });
    await response.body.dump();
    expect(seen).toEqual([form.contentLength, form.contentLength]);
  });
});
