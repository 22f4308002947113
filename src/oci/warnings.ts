/** One warning is a line on the screen. */
const MAX_TEXT = 200;

const WARNING = /(?:^|,)\s*(\d{3}) +\S+ +"((?:[^"\\]|\\.)*)"/g;

/**
 * The texts of a Warning header that are for people: code 299 alone, `299 - "text"`, several joined by commas
 * (distribution-spec "Warnings", RFC 7234 5.5). What does not parse is nothing.
 */
export function warningTexts(header: string | undefined): string[] {
  return [...(header ?? '').matchAll(WARNING)].flatMap(([, code, quoted]) => {
    if (code !== '299' || quoted === undefined) return [];
    const text = quoted.replace(/\\(.)/g, '$1').replace(/\s+/g, ' ').trim().slice(0, MAX_TEXT);
    return text === '' ? [] : [text];
  });
}
