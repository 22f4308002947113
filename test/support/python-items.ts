/** Items of packages made by hand, and the content behind them. */
import type { Digest } from '../../src/core/digest.ts';
import { normalizeProject } from '../../src/core/distribution.ts';
import { digestOf } from '../../src/io/verify.ts';
import type { ContentReader } from '../../src/oci/content.ts';
import type { PackageItem } from '../../src/target/target.ts';

export interface MadePackage {
  readonly fileName: string;
  readonly bytes: Buffer;
}

export interface Packages {
  readonly items: PackageItem[];
  readonly source: ContentReader;
  /** How often content was opened at its start. */
  reads(): number;
}

export function packages(
  made: readonly (MadePackage & {
    readonly name: string;
    readonly version: string;
    readonly requiresPython?: string;
  })[],
): Packages {
  const blobs = new Map<Digest, Buffer>();
  let reads = 0;
  const items = made.map(({ fileName, bytes, name, version, requiresPython }): PackageItem => {
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    const content = { mediaType: 'application/octet-stream', digest, size: bytes.length };
    const root = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest, size: bytes.length };
    return {
      kind: 'package',
      name: fileName,
      root,
      graph: { root, nodes: new Map() },
      project: normalizeProject(name),
      version,
      content,
      ...(requiresPython === undefined ? {} : { requiresPython }),
    };
  });
  return {
    items,
    reads: () => reads,
    source: {
      async *open({ digest }, { offset = 0 }) {
        const bytes = blobs.get(digest);
        if (bytes === undefined) throw new Error(`no ${digest}`);
        if (offset === 0) reads += 1;
        for (let at = offset; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
      },
    },
  };
}
