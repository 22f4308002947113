// The whole job on one machine with only Node: lock → pack → verify → load, between two embedded registries.
// Uses only dist/, as a user would. Everything that it makes stays in demo-out/ to be looked at.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeFleet, pushImage } from './fleet.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const out = join(root, 'demo-out');
const bin = join(root, 'bin', 'sealift.js');
const socket = process.env.SEALIFT_DEMO_CONTAINERD;

if (!existsSync(join(root, 'dist', 'cli', 'main.js'))) {
  console.error('error[NOT_BUILT]: dist/ is absent, so there is no program to show');
  console.error('hint: run `npm ci` (or `npm run build`) first');
  process.exit(1);
}
const { startRegistry } = await import('../dist/serve/registry.js');
const { packChartDirectory } = await import('../dist/helm/pack-dir.js');

/** Runs the real program in demo-out/ and shows it as a person would type it. */
function sealift(...args) {
  console.log(`\n\x1b[1m$ sealift ${args.join(' ')}\x1b[0m`);
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [bin, ...args], { cwd: out, stdio: 'inherit' });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve();
      else reject(new Error(`sealift ${args[0]} ended with exit code ${code}`));
    });
  });
}

async function writeChart(dir, files) {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    await writeFile(join(dir, path), text);
  }
}

const TEMPLATE = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}-{{ .Chart.Name }}
spec:
  selector: {matchLabels: {app: {{ .Chart.Name }}}}
  template:
    metadata: {labels: {app: {{ .Chart.Name }}}}
    spec:
      containers:
        - name: main
          image: {{ .Values.image | quote }}
`;

/** Two charts: `store` in the chart repository, and `shop` in a folder, which depends on it. */
async function makeCharts(source, images) {
  const ref = (image) => `${source.host}/${image.name}:${image.tag}`;
  const store = join(out, 'connected', 'store');
  await writeChart(store, {
    'Chart.yaml':
      'apiVersion: v2\nname: store\nversion: 0.4.0\nappVersion: "7.2"\ndescription: a dependency\n',
    'values.yaml': `image: ${ref(images[1])}\n`,
    'templates/deployment.yaml': TEMPLATE,
  });
  const chunks = [];
  await packChartDirectory(store, { write: (chunk) => void chunks.push(Buffer.from(chunk)) });
  await source.addChart('store-0.4.0.tgz', Buffer.concat(chunks));
  await writeChart(join(out, 'charts', 'custom', 'shop'), {
    'Chart.yaml': `apiVersion: v2\nname: shop\nversion: 1.10.0\ndescription: our own chart\ndependencies:\n  - {name: store, version: ^0.4.0, repository: "${source.url}/charts"}\n`,
    'values.yaml': `image: ${ref(images[0])}\n`,
    'templates/deployment.yaml': TEMPLATE,
  });
}

async function writeManifest(source, images) {
  const refs = images.slice(0, 3).map((i) => `  - ${source.host}/${i.name}:${i.tag}`);
  await mkdir(join(out, 'imagelists'), { recursive: true });
  const list = images.slice(3).map((i) => `${source.host}/${i.name}:${i.tag}   # from a list\n`);
  await writeFile(join(out, 'imagelists', 'more.txt'), `# images of the platform\n\n${list.join('')}`);
  const text = `apiVersion: sealift/v1
name: demo
version: "2026.11"
platforms: [linux/amd64, linux/arm64]
images:
${refs.join('\n')}
imageLists: ["imagelists/*.txt"]
charts:
  - {name: store, version: 0.4.0, repo: "${source.url}/charts"}
  - {path: charts/custom/shop}
files:
  - {url: "${source.url}/files/kubectl", name: bin/kubectl, mode: "0755"}
`;
  await writeFile(join(out, 'sealift.yaml'), text);
  console.log(`\n\x1b[1m$ cat sealift.yaml\x1b[0m\n${text.trimEnd()}`);
}

async function showFiles(dir, depth = 0) {
  for (const d of (await readdir(dir, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(dir, d.name);
    if (d.isDirectory() && depth < 3) await showFiles(path, depth + 1);
    else if (d.isFile())
      console.log(`${String((await stat(path)).size).padStart(12)}  ${relative(root, path)}`);
  }
}

async function main() {
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  const source = await startRegistry({ storage: { dir: join(out, 'connected', 'registry') } });
  const target = await startRegistry({ storage: { dir: join(out, 'closed', 'registry') } });
  try {
    const images = makeFleet({
      images: 6,
      layerSizes: [400_000, 200_000],
      sharedBases: 2,
      baseSize: 600_000,
      seed: 3,
    });
    for (const image of images) await pushImage(source.host, image);
    source.addFile('kubectl', '#!/bin/sh\necho a stand-in for a real program\n');
    await makeCharts(source, images);
    console.log(`connected side: registry and chart repository ${source.url}, ${images.length} images`);
    console.log(`closed side:    registry ${target.url}, empty`);
    await writeManifest(source, images);
    await sealift('lock');
    await sealift('lock', '--check');
    await sealift('pack', '-o', 'demo.tar');
    await sealift('verify', 'demo.tar', '--lock', 'versions.lock');
    await sealift('ls', 'demo.tar');
    const targets = [
      '--registry',
      target.host,
      '--chart-tree',
      'closed/charts/external',
      '--files',
      'closed/files',
    ];
    const containerd = socket === undefined ? [] : ['--containerd', socket];
    await sealift('load', 'demo.tar', ...targets, ...containerd, '--dry-run');
    await sealift('load', 'demo.tar', ...targets, ...containerd, '--receipt', 'receipt.json');
    console.log('\nOnce more: everything is there, so nothing is sent.');
    await sealift('load', 'demo.tar', ...targets, ...containerd);
    console.log('\nFiles of the demo:');
    await showFiles(out);
  } finally {
    await source.close();
    await target.close();
  }
}

await main();
