import type { Answer } from './answer.ts';

/** Text as it stands in HTML, also between quotes. */
function escaped(text: string): string {
  const names: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return text.replace(/[&<>"']/g, (c) => names[c] ?? c);
}

/** A path whose parts stand in a URL as they are meant. */
export function urlPath(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/');
}

/** A page in memory. */
export interface Page extends Answer {
  readonly body: Uint8Array;
}

/** A link, with attributes that programs read. */
export interface Link {
  readonly href: string;
  readonly text: string;
  /** Name → value; those without a value are left out. */
  readonly attributes?: Readonly<Record<string, string | undefined>>;
}

function linkLine({ href, text, attributes = {} }: Link): string {
  const more = Object.entries(attributes).flatMap(([name, value]) =>
    value === undefined ? [] : ` ${name}="${escaped(value)}"`,
  );
  return `<a href="${escaped(href)}"${more.join('')}>${escaped(text)}</a><br>`;
}

/** A page of links, one a line, that needs nothing from anywhere. */
export function linksPage(
  title: string,
  links: Iterable<Link>,
  options: { readonly type?: string; readonly head?: string } = {},
): Page {
  const lines = [
    '<!DOCTYPE html>',
    `<html><head><meta charset="utf-8">${options.head ?? ''}<title>${escaped(title)}</title></head>`,
    `<body><h1>${escaped(title)}</h1>`,
  ];
  for (const link of links) lines.push(linkLine(link));
  lines.push('</body></html>', '');
  return {
    status: 200,
    headers: {
      'content-type': options.type ?? 'text/html; charset=utf-8',
      'content-security-policy': "default-src 'none'",
    },
    body: Buffer.from(lines.join('\n')),
  };
}
