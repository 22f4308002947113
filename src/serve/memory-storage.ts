import { type Digest, hexOf } from '../core/digest.ts';
import { SealiftError } from '../core/errors.ts';
import { streamOf } from './content.ts';
import { type Incoming, isSafePath, type Storage } from './storage.ts';

function checked(folder: string, name = 'x'): string {
  if (isSafePath(folder) && isSafePath(name)) return folder;
  throw new SealiftError('INTERNAL', `"${folder}/${name}" is not a name that storage takes`);
}

/** Storage that lives as long as the process. For tests and demonstrations: blobs are held in memory. */
export function memoryStorage(): Storage {
  const blobs = new Map<string, Buffer>();
  const folders = new Map<string, Map<string, string>>();

  const receive = async (): Promise<Incoming> => {
    let chunks: Uint8Array[] = [];
    return {
      async write(chunk) {
        chunks.push(chunk);
      },
      async commit(digest) {
        blobs.set(hexOf(digest), Buffer.concat(chunks));
        chunks = [];
      },
      async discard() {
        chunks = [];
      },
    };
  };

  return {
    receive,
    blobSize: async (digest: Digest) => blobs.get(hexOf(digest))?.length,
    async openBlob(digest, span) {
      const bytes = blobs.get(hexOf(digest));
      if (bytes === undefined) throw new SealiftError('CONTENT_NOT_FOUND', `${digest}: no such blob`);
      return streamOf(bytes, span);
    },
    readDocument: async (folder, name) => folders.get(checked(folder, name))?.get(name),
    async writeDocument(folder, name, { text }) {
      const documents = folders.get(checked(folder, name)) ?? new Map<string, string>();
      documents.set(name, text);
      folders.set(folder, documents);
    },
    removeDocument: async (folder, name) => folders.get(checked(folder, name))?.delete(name) ?? false,
    listDocuments: async (folder) => [...(folders.get(checked(folder))?.keys() ?? [])].sort(),
    async listFolders(folder) {
      const prefix = `${checked(folder)}/`;
      const names = new Set<string>();
      for (const path of folders.keys()) {
        if (path.startsWith(prefix)) names.add(path.slice(prefix.length).split('/', 1)[0] ?? '');
      }
      return [...names].sort();
    },
  };
}
