import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Option } from 'commander';
import type { PlacedTool, ToolChoice } from '../ops/tool.ts';
import { bytesText, harmless } from './words.ts';

export interface ToolFlags {
  /** False with --no-tool. */
  readonly tool?: readonly string[] | false;
  readonly repair?: string;
}

/** The joined program, dist/program: what is beside it is looked for there. */
const PROGRAM = fileURLToPath(new URL('.', import.meta.url));

const NO_TOOL =
  'note: no sealift beside the bundle: name its tarball with --tool FILE (`npm run dist` makes it), or say --no-tool';

/** What `pack` takes for the tool. */
export function toolOptions(): readonly Option[] {
  const what =
    'a tarball of sealift to put beside the bundle; may be given twice (default: what `npm run dist` made)';
  return [
    new Option('--tool <file>', what).argParser((file: string, before: readonly string[] | undefined) => [
      ...(before ?? []),
      file,
    ]),
    new Option('--no-tool', 'put no sealift beside the bundle'),
  ];
}

/** Undefined where none is wanted: whoever asks for a repair has a tool, and waits for something small. */
export function toolChoice({ tool, repair }: ToolFlags): ToolChoice | undefined {
  if (tool === false || (tool === undefined && repair !== undefined)) return undefined;
  return tool === undefined ? { program: PROGRAM } : { files: tool };
}

/** @param tools null where none is wanted */
export function toolLines(tools: readonly PlacedTool[] | null): string[] {
  if (tools === null) return [];
  if (tools.length === 0) return [NO_TOOL];
  return tools.map(({ path, size, outcome }) => {
    const name = harmless(basename(path));
    return `  tool ${name}: ${outcome === 'present' ? 'was beside it already' : bytesText(size)}`;
  });
}
