/** A web page, where a program expects something else. */
export function isPage(text: string): boolean {
  return /^\s*<(?:!doctype|html|head|body)\b/i.test(text);
}

const MAX_LINE = 200;

/** What an answer says, as one short line: of a page its words. */
export function shortLine(text: string): string {
  const plain = isPage(text) ? text.replace(/<(script|style)\b[\s\S]*?(?:<\/\1>|$)|<[^>]*>/gi, ' ') : text;
  return plain.replace(/\s+/g, ' ').trim().slice(0, MAX_LINE).trim();
}
