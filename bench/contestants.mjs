/**
 * Sealift and its peers: for each stage the commands that a person would type. A stage that a contestant does not have is
 * left out; where it has one command for two stages, the second is the name of the first. Every command works in the
 * contestant's own folder; `place` says where everything is:
 *
 * - `dir`: its folder, empty before the first pack; what it packed stays there for the stages that need it
 * - `source`, `target`: HOST:PORT of the registries; `socket`: containerd's
 * - `delivery`: what to pack (`images`, and `manifest`, the folder with sealift.yaml and versions.lock)
 * - `bundle`: the bundle that Sealift packed, for those that read the same file
 * - `scratch`: an empty folder, made anew for each run
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { floors } from './floors.mjs';
import { locate } from './tools.mjs';

const SEALIFT = fileURLToPath(new URL('../bin/sealift.js', import.meta.url));

const referenceOf = (host) => (image) => `${host}/${image.name}:${image.tag}`;
const labelOf = (image) => `${image.name}-${image.tag}`.replaceAll('/', '-');
const tar = (dir, folder, file) => ({ argv: ['tar', '-cf', join(dir, file), '-C', join(dir, folder), '.'] });

function sealift() {
  const run = (...args) => ({ argv: [process.execPath, SEALIFT, '--progress', 'none', ...args] });
  const quiet = ({ dir }) => ({ HOME: dir, DOCKER_CONFIG: dir, XDG_RUNTIME_DIR: dir });
  const one = (place, ...args) => [{ ...run(...args), env: quiet(place) }];
  return {
    name: 'sealift',
    program: SEALIFT,
    version: [process.execPath, SEALIFT, '--version'],
    output: 'bundle.tar',
    start: () => [{ argv: [process.execPath, SEALIFT, '--version'] }],
    lock: (place) => {
      writeFileSync(join(place.scratch, 'sealift.yaml'), place.delivery.text);
      return one(place, 'lock').map((step) => ({ ...step, cwd: place.scratch }));
    },
    pack: (place) =>
      one(place, 'pack', '-o', join(place.dir, 'bundle.tar')).map((step) => ({
        ...step,
        cwd: place.delivery.manifest,
      })),
    verify: (place) => one(place, 'verify', place.bundle),
    deep: (place) => one(place, 'verify', '--deep', place.bundle),
    load: (place) => one(place, 'load', place.bundle, '--registry', place.target),
    containerd: (place) => one(place, 'load', place.bundle, '--containerd', place.socket),
  };
}

function hauler(program) {
  const run = (place, ...args) => ({
    argv: [program, ...args],
    env: { HAULER_DIR: join(place.dir, 'home'), HOME: place.dir, DOCKER_CONFIG: place.dir },
  });
  return {
    name: 'hauler',
    program,
    version: [program, 'version'],
    output: 'haul.tar.zst',
    start: (place) => [run(place, 'version')],
    pack: (place) => {
      const { dir, delivery, source } = place;
      const names = delivery.images.map((image) => `    - name: ${referenceOf(source)(image)}\n`);
      const head = 'apiVersion: content.hauler.cattle.io/v1\nkind: Images\nmetadata: {name: bench}\nspec:\n';
      writeFileSync(join(dir, 'images.yaml'), `${head}  images:\n${names.join('')}`);
      const store = ['-s', join(dir, 'store')];
      return [
        run(place, 'store', 'sync', ...store, '-f', join(dir, 'images.yaml'), '--no-progress'),
        run(place, 'store', 'save', ...store, '-f', join(dir, 'haul.tar.zst')),
      ];
    },
    verify: (place) => [run(place, 'store', 'info', '-s', join(place.dir, 'store'), '--check')],
    deep: 'verify',
    load: (place) => {
      const store = ['-s', join(place.scratch, 'store')];
      return [
        run(place, 'store', 'load', ...store, '-f', join(place.dir, 'haul.tar.zst')),
        run(place, 'store', 'copy', ...store, '--plain-http', `registry://${place.target}`),
      ];
    },
  };
}

function zarf(program) {
  const run = (place, ...args) => ({
    argv: [
      program,
      ...args,
      '--plain-http',
      '-a',
      'amd64',
      '--cache',
      join(place.dir, 'cache'),
      '--no-color',
    ],
    env: { HOME: place.dir, DOCKER_CONFIG: place.dir, KUBECONFIG: join(place.dir, 'none') },
  });
  const file = 'zarf-package-bench-amd64-1.tar.zst';
  return {
    name: 'zarf',
    note: 'one platform',
    program,
    version: [program, 'version'],
    output: file,
    start: (place) => [{ argv: [program, 'version'], env: { HOME: place.dir } }],
    pack: (place) => {
      const { dir, delivery, source } = place;
      const names = delivery.images.map((image) => `      - ${referenceOf(source)(image)}\n`);
      const head = 'kind: ZarfPackageConfig\nmetadata: {name: bench, version: "1"}\n';
      const text = `${head}components:\n  - name: all\n    required: true\n    images:\n${names.join('')}`;
      mkdirSync(join(dir, 'package'), { recursive: true });
      writeFileSync(join(dir, 'package', 'zarf.yaml'), text);
      return [run(place, 'package', 'create', join(dir, 'package'), '--confirm', '--skip-sbom', '-o', dir)];
    },
    load: (place) => {
      const how = ['--confirm', '--images', '--no-img-checksum', '--registry-url', place.target];
      return [run(place, 'package', 'mirror-resources', join(place.dir, file), ...how)];
    },
  };
}

function skopeo(program) {
  const layout = (place, image) => `oci:${join(place.dir, 'layout')}:${labelOf(image)}`;
  return {
    name: 'skopeo',
    program,
    version: [program, '--version'],
    output: 'layout.tar',
    start: () => [{ argv: [program, '--version'] }],
    pack: (place) => {
      const copies = place.delivery.images.map((image) => {
        const from = `docker://${referenceOf(place.source)(image)}`;
        const how = ['copy', '--all', '--quiet', '--src-tls-verify=false'];
        return { argv: [program, ...how, from, layout(place, image)] };
      });
      return [...copies, tar(place.dir, 'layout', 'layout.tar')];
    },
    load: (place) =>
      place.delivery.images.map((image) => {
        const how = ['copy', '--all', '--quiet', '--dest-tls-verify=false'];
        const to = `docker://${referenceOf(place.target)(image)}`;
        return { argv: [program, ...how, layout(place, image), to] };
      }),
  };
}

function regctl(program) {
  const copy = (host, from, to) => ({
    argv: [program, '--host', `reg=${host},tls=disabled`, '-v', 'error', 'image', 'copy', from, to],
  });
  const layout = (place, image) => `ocidir://${join(place.dir, 'layout')}:${labelOf(image)}`;
  return {
    name: 'regctl',
    program,
    version: [program, 'version'],
    output: 'layout.tar',
    start: () => [{ argv: [program, 'version'] }],
    pack: (place) => {
      const copies = place.delivery.images.map((image) =>
        copy(place.source, referenceOf(place.source)(image), layout(place, image)),
      );
      return [...copies, tar(place.dir, 'layout', 'layout.tar')];
    },
    load: (place) =>
      place.delivery.images.map((image) =>
        copy(place.target, layout(place, image), referenceOf(place.target)(image)),
      ),
  };
}

function crane(program) {
  return {
    name: 'crane',
    program,
    version: [program, 'version'],
    output: 'layout.tar',
    start: () => [{ argv: [program, 'version'] }],
    pack: (place) => {
      const names = place.delivery.images.map(referenceOf(place.source));
      const how = ['pull', '--insecure', '--format=oci', '--annotate-ref'];
      return [
        { argv: [program, ...how, ...names, join(place.dir, 'layout')] },
        tar(place.dir, 'layout', 'layout.tar'),
      ];
    },
  };
}

function ctr(program) {
  const how = ['-n', 'k8s.io', 'images', 'import', '--all-platforms', '--no-unpack'];
  return {
    name: 'ctr',
    program,
    version: [program, '--version'],
    start: () => [{ argv: [program, '--version'] }],
    containerd: (place) => [{ argv: [program, '-a', place.socket, ...how, place.bundle] }],
  };
}

/** Sealift, every peer, and the floors, each with the path of its program or without one when it is missing. */
export function contestants() {
  const peers = { hauler, zarf, skopeo, regctl, crane, ctr };
  const found = Object.entries(peers).map(([name, make]) => make(locate(name)));
  return [sealift(), ...found, ...floors()];
}
