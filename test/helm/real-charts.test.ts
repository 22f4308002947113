/** The published archives in ../shared/data/charts, which are no part of the repository: skipped where they are absent. */
import { createReadStream, existsSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { readChartArchive } from '../../src/helm/archive.ts';
import { chartArtifact } from '../../src/helm/artifact.ts';
import { isLockInStep } from '../../src/helm/chart-lock.ts';
import { type ChartContent, missingDependencies } from '../../src/helm/content.ts';
import { findChart, parseRepositoryIndex } from '../../src/helm/index-file.ts';
import { digestOf } from '../../src/io/verify.ts';

const data = fileURLToPath(new URL('../../../shared/data/charts', import.meta.url));
const absent = !existsSync(data);
const archives = absent
  ? []
  : readdirSync(data, { recursive: true, encoding: 'utf8' }).filter((p) => p.endsWith('.tgz'));

const read = (path: string): Promise<ChartContent> =>
  readChartArchive(createReadStream(join(data, path)), { what: path });

async function mismatches(repo: string): Promise<string[]> {
  const index = parseRepositoryIndex(await readFile(join(data, repo, 'index.yaml')), repo);
  const wrong: string[] = [];
  for (const file of archives.filter((p) => p.startsWith(`${repo}/`))) {
    const { chart } = await read(file);
    const listed = findChart(index, { name: chart.name, version: chart.version }).digest;
    if (listed !== digestOf(await readFile(join(data, file)))) wrong.push(`${chart.name} ${chart.version}`);
  }
  return wrong;
}

describe.skipIf(absent)(
  `published charts (skipped without ${absent ? '../shared/data/charts' : 'nothing'})`,
  () => {
    it('has archives to read', () => expect(archives).not.toHaveLength(0));

    it.each(archives)('reads %s and needs nothing from outside', async (path) => {
      const content = await read(path);
      const version = `${content.chart.name}-${content.chart.version}.tgz`;
      expect(path.endsWith(version)).toBe(true);
      expect(missingDependencies(content)).toEqual([]);
      expect(content.warnings).toEqual([]);
      if (content.lock !== undefined)
        expect(isLockInStep(content.chart.dependencies, content.lock)).toBe(true);
      const blob = { digest: content.tree, size: 1 };
      const made = chartArtifact(content.chart, { archive: blob });
      expect(JSON.parse(made.config.toString()).name).toBe(content.chart.name);
    });

    it('has the tree hash that was measured for csi-driver-nfs 4.13.4', async () => {
      const { tree, files } = await read('csi-driver-nfs/csi-driver-nfs-4.13.4.tgz');
      expect(tree).toBe('sha256:df962a3c9b85970e2c001e6b9b31df43d873151955d443d8fc3f03e8d0342a30');
      expect(files).toBe(14);
    });

    it('has charts inside charts', async () => {
      const { vendored } = await read('more/metallb-0.16.1.tgz');
      expect(vendored.map((v) => v.path)).toEqual([
        'charts/crds',
        'charts/frr-k8s',
        'charts/frr-k8s/charts/crds',
      ]);
    });

    it('differs from its index where that is known', async () => {
      expect(await mismatches('csi-driver-nfs')).toEqual(['csi-driver-nfs v0.0.0']);
      expect(await mismatches('gpu-operator')).toEqual(['gpu-operator v23.9.0']);
      expect(await mismatches('artifact-hub')).toEqual([]);
    });
  },
);
