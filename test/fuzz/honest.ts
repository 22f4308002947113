/** What an accepted bundle must be. */
import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import type { PlannedEntry } from '../../src/bundle/plan.ts';
import { openBundle } from '../../src/bundle/reader.ts';
import { tarHeader } from '../../src/io/tar.ts';
import { digestOf } from '../../src/io/verify.ts';
import { contextOf, type Packed } from '../bundle/site.ts';
import { joined, partsOf } from '../bundle/tar-parts.ts';
import type { Origin } from './bundles.ts';
import { modelOf, partsOfModel } from './model.ts';

const { signal } = contextOf();

/** What was accepted is one of the bundles it was made of, or byte for byte what its own lock implies. */
export async function expectHonest(path: string, origins: readonly Origin[], where: string): Promise<void> {
  const bytes = readFileSync(path);
  if (origins.some((o) => o.bytes.equals(bytes))) return;
  const bundle = await openBundle(path, { signal });
  await bundle.close();
  const { plan } = bundle;
  if (plan === undefined) throw new Error(`${where}: accepted without a plan`);
  expect(plan.size, where).toBe(bytes.length);
  const parts = partsOf({ path, bytes, entries: [...plan.entries] });
  for (const [index, { name, body, header }] of parts.entries()) {
    const { text, digest } = plan.entries.at(index);
    expect(header.equals(tarHeader(name, body.length)), `${where}: ${name}`).toBe(true);
    if (digest !== undefined) expect(digestOf(body), `${where}: ${name}`).toBe(digest);
    if (text !== undefined) expect(digestOf(body), `${where}: ${name}`).toBe(text.digest);
  }
  expect(
    joined(parts.map((p) => ({ ...p, padding: Buffer.alloc(p.padding.length) }))).equals(bytes),
    where,
  ).toBe(true);
  expect(
    joined(partsOfModel(modelOf({ path, bytes, entries: [...plan.entries] }))).equals(bytes),
    where,
  ).toBe(true);
}

/** A bundle that is packed already, also one that leaves something out. */
export async function readPacked(path: string): Promise<Packed> {
  const bundle = await openBundle(path, { signal });
  await bundle.close();
  const entries = [...bundle.medium.entries].map((e) => bundle.plan?.entries.find(e.name) ?? e);
  return { path, bytes: readFileSync(path), entries: entries as PlannedEntry[] };
}
