/**
 * The rules of how registries must be spoken to (test/rules/registry-rules.json) and the tests that name them. A test names
 * a rule by its id in square brackets at the start of its title: `it('[A1] …')`, several as `'[A1, A5] …'`; a title of
 * `describe` counts for the tests inside. `npm run rules` writes docs/registry-rules.md; a test fails when it is stale.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';

const RULES = 'test/rules/registry-rules.json';
const LIST = 'docs/registry-rules.md';

/** What looks like ids at the start of a title; `[::1]` does not. */
const IDS = /^\[((?:A\d|1\.\d)[^\]]*)\]/;

export function readRules(root) {
  return JSON.parse(readFileSync(join(root, RULES), 'utf8'));
}

function testFiles(dir) {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return testFiles(path);
    return entry.name.endsWith('.test.ts') ? [path] : [];
  });
}

/** `it`, `describe`, `test` and their forms, but those that never run. */
function isTestCall(node) {
  let callee = node.expression;
  for (;;) {
    if (ts.isCallExpression(callee)) callee = callee.expression;
    else if (ts.isPropertyAccessExpression(callee)) {
      if (callee.name.text === 'skip' || callee.name.text === 'todo') return false;
      callee = callee.expression;
    } else break;
  }
  return ts.isIdentifier(callee) && ['it', 'test', 'describe'].includes(callee.text);
}

/** The ids that the titles of a test file name, in order. */
export function idsOf(text) {
  const ids = new Set();
  const visit = (node) => {
    if (ts.isCallExpression(node) && node.arguments[0] !== undefined && isTestCall(node)) {
      const [title] = node.arguments;
      const start = ts.isTemplateExpression(title) ? title.head.text : title.text;
      const named = typeof start === 'string' ? IDS.exec(start)?.[1] : undefined;
      for (const id of named?.split(/[\s,]+/) ?? []) ids.add(id);
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile('x.ts', text, ts.ScriptTarget.ESNext));
  return [...ids];
}

/** Which test files name which id; the order is that of the paths. */
export function namedIds(root) {
  const named = new Map();
  for (const path of testFiles(join(root, 'test')).sort()) {
    const text = readFileSync(path, 'utf8');
    // Parsing all tests takes a second; most name no rule.
    if (!/['"`]\[(?:A\d|1\.\d)/.test(text)) continue;
    for (const id of idsOf(text)) named.set(id, [...(named.get(id) ?? []), relative(root, path)]);
  }
  return named;
}

/** What is wrong: a rule without a test that needs no peer, an id that is no rule, an open rule that is closed. */
export function faultsOf(rules, named) {
  const known = new Map(rules.map((rule) => [rule.id, rule]));
  const faults = [...named].flatMap(([id, files]) =>
    known.has(id) ? [] : [`${files.join(', ')}: "${id}" is not a rule of ${RULES}`],
  );
  for (const { id, open } of rules) {
    const isTested = named.get(id)?.some((file) => !file.startsWith('test/peers/')) ?? false;
    if (open === undefined && !isTested) faults.push(`${id}: no test names it`);
    if (open !== undefined && isTested) faults.push(`${id}: has a test, so it is not open any more`);
  }
  if (known.size !== rules.length) faults.push(`${RULES}: an id is there twice`);
  return faults;
}

function cell(text) {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}

/** The text of the list. */
export function renderRules(rules, named) {
  const rows = rules.map(({ id, rule, open }) => {
    const files = (named.get(id) ?? []).map((file) => `[${file}](../${file})`).join('<br>');
    return `| ${id} | ${cell(rule)} | ${open === undefined ? files : `open: ${cell(open)}`} |`;
  });
  return `# How Sealift speaks to registries, rule by rule

Written by \`npm run rules\` from \`${RULES}\` and the titles of the tests. A test names its rule in square brackets, and a
test fails when a rule has none. Ids count as in the list of facts that the rules were made from: A1 to A10 are
authentication, 1.1 files with logins, 1.2 references, 1.3 pulling, 1.4 pushing, 1.5 referrers and signatures, 1.6 images
of which only some platforms are carried.

| Rule | What | Tests |
| --- | --- | --- |
${rows.join('\n')}
`;
}

/** Path of the list and the text that it must have. */
export function rulesList(root) {
  return { path: join(root, LIST), text: renderRules(readRules(root), namedIds(root)) };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const root = join(import.meta.dirname, '..');
  const { path, text } = rulesList(root);
  writeFileSync(path, text);
  const faults = faultsOf(readRules(root), namedIds(root));
  for (const fault of faults) console.error(fault);
  console.log(`${LIST} is written; ${faults.length} faults`);
  process.exitCode = faults.length > 0 ? 1 : 0;
}
