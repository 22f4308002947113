// Writes manifests/sealift.schema.json from the schema that the program checks manifests with. Needs dist/ (npm run build).
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';

const built = new URL('../dist/manifest/schema.js', import.meta.url);
const target = new URL('../manifests/sealift.schema.json', import.meta.url);

if (!existsSync(built)) {
  console.error('error: dist/ is absent\nhint: run `npm run build` first');
  process.exit(2);
}
const { manifestSchemaText } = await import(built.href);
await writeFile(target, manifestSchemaText());
console.log('wrote manifests/sealift.schema.json');
