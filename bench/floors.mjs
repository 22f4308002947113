/**
 * What the wire and the servers can do at best: four curl processes at once, each with an equal share of the bytes over
 * one kept connection, checking nothing. Plus the plain programs that hash one file.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { blobsOf, dataOf } from './fleet.mjs';
import { locate } from './tools.mjs';

const LANES = 4;

/** Deals things to the lanes, the largest first, each to the lane with the fewest bytes so far. */
function deal(things) {
  const lanes = Array.from({ length: LANES }, () => ({ size: 0, things: [] }));
  for (const thing of [...things].sort((a, b) => b.size - a.size)) {
    const lane = lanes.reduce((least, other) => (other.size < least.size ? other : least));
    lane.size += thing.size;
    lane.things.push(thing);
  }
  return lanes.map((lane) => lane.things);
}

/** A file for `curl --config` for each lane; returns the shell words that run all lanes and wait for them. */
function lanes(dir, { name, things, lines, command }) {
  mkdirSync(dir, { recursive: true });
  deal(things).forEach((some, i) => {
    writeFileSync(join(dir, `${name}.${i}`), some.map((thing) => `${lines(thing).join('\n')}\n`).join(''));
  });
  const numbers = Array.from({ length: LANES }, (_, i) => i).join(' ');
  return `for i in ${numbers}; do ( ${command} ) & pids="$pids $!"; done; for p in $pids; do wait $p; done; pids=`;
}

const shell = (cwd, lines) => [{ argv: ['sh', '-ec', lines.join('\n')], cwd }];

/** Every blob of a delivery to a file of its own. */
function fetchAll({ dir, source, delivery }) {
  const blobs = join(dir, 'blobs');
  mkdirSync(blobs, { recursive: true });
  const things = blobsOf(delivery.images);
  const lines = ({ repository, digest }) => [
    `url = "http://${source}/v2/${repository}/blobs/${digest}"`,
    `output = "${join(blobs, digest.slice('sha256:'.length))}"`,
  ];
  return shell(dir, [lanes(dir, { name: 'get', things, lines, command: 'curl -sfS -K get.$i' })]);
}

/** POST and PUT for each blob, a mount where another repository has it already. */
function blobLines({ dir, target, content, delivery }) {
  const base = `http://${target}/v2`;
  const blobs = blobsOf(delivery.images);
  const first = new Map(blobs.map((blob) => [blob.digest, blob.repository]));
  const mounts = delivery.images.flatMap((image) =>
    image.blobs
      .filter((blob) => first.get(blob.digest) !== image.name)
      .map((blob) => ({ ...blob, repository: image.name, from: first.get(blob.digest) })),
  );
  const post = ({ repository }) => [`url = "${base}/${repository}/blobs/uploads/"`];
  const where = ({ digest }) => [`${digest} ${dataOf(content, digest)}`];
  const mount = ({ repository, digest, from }) => [
    `url = "${base}/${repository}/blobs/uploads/?mount=${digest}&from=${from}"`,
  ];
  const open = `curl -sfS -X POST -d '' -o /dev/null -w '%header{location}\\n' -K post.$i > location.$i`;
  const pair = `paste -d' ' location.$i where.$i | while read -r l d f; do printf 'url = "%s&digest=%s"\\nupload-file = "%s"\\n' "$l" "$d" "$f"; done > put.$i`;
  const send = `curl -sfS -H 'Expect:' -H 'Content-Type: application/octet-stream' -K put.$i`;
  lanes(dir, { name: 'where', things: blobs, lines: where, command: '' });
  return [
    lanes(dir, { name: 'post', things: blobs, lines: post, command: `${open}; ${pair}; ${send}` }),
    lanes(dir, {
      name: 'mount',
      things: mounts,
      lines: mount,
      command: `test ! -s mount.$i || curl -sfS -X POST -d '' -K mount.$i`,
    }),
  ];
}

function manifestLines(dir, { target, name, things }) {
  const all = things.map((thing, i) => {
    const file = join(dir, `${name}-${i}.json`);
    writeFileSync(file, thing.text);
    return { ...thing, file, size: thing.text.length };
  });
  const lines = ({ repository, reference, file }) => [
    `url = "http://${target}/v2/${repository}/manifests/${reference}"`,
    `upload-file = "${file}"`,
  ];
  const type = things[0]?.mediaType ?? 'application/json';
  const command = `test ! -s ${name}.$i || curl -sfS -H 'Expect:' -H 'Content-Type: ${type}' -K ${name}.$i`;
  return lanes(dir, { name, things: all, lines, command });
}

/** The same as a load into an empty registry: all blobs, then the manifests of the platforms, then the indexes by tag. */
function sendAll({ dir, target, content, delivery }) {
  mkdirSync(dir, { recursive: true });
  const { images } = delivery;
  const children = images.flatMap((image) =>
    image.manifests.map((m) => ({ ...m, repository: image.name, reference: m.digest })),
  );
  const roots = images.map((image) => ({ ...image.root, repository: image.name, reference: image.tag }));
  return shell(dir, [
    ...blobLines({ dir, target, content, delivery }),
    manifestLines(dir, { target, name: 'manifest', things: children }),
    manifestLines(dir, { target, name: 'index', things: roots }),
  ]);
}

/** The floors, in the form of contestants; see contestants.mjs. */
export function floors() {
  return [
    { name: 'curl ×4', floor: true, program: locate('curl'), pack: fetchAll, load: sendAll },
    {
      name: 'b3sum',
      floor: true,
      program: locate('b3sum'),
      verify: ({ bundle }) => [{ argv: ['b3sum', bundle] }],
    },
    {
      name: 'sha256sum',
      floor: true,
      program: locate('sha256sum'),
      deep: ({ bundle }) => [{ argv: ['sha256sum', bundle] }],
    },
  ];
}
