// Writes the JSON schemas of manifests/ from those that the program checks with. Needs dist/ (npm run build).
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';

const dist = new URL('../dist/', import.meta.url);
if (!existsSync(new URL('site/schema.js', dist))) {
  console.error('error: dist/ is absent\nhint: run `npm run build` first');
  process.exit(2);
}
const { manifestSchemaText } = await import(new URL('manifest/schema.js', dist).href);
const { siteSchemaText } = await import(new URL('site/schema.js', dist).href);
const texts = { 'sealift.schema.json': manifestSchemaText(), 'site.schema.json': siteSchemaText() };
for (const [name, text] of Object.entries(texts)) {
  await writeFile(new URL(`../manifests/${name}`, import.meta.url), text);
  console.log(`wrote manifests/${name}`);
}
