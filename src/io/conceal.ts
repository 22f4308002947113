/** Shorter secrets are words of every text. */
const SHORTEST_SECRET = 3;

/** A text without secrets, in any form in which a server may repeat what it was sent (registry.md A10). */
export function conceal(text: string, secrets: readonly string[]): string {
  const forms = secrets.flatMap((s) => [s, encodeURIComponent(s), JSON.stringify(s).slice(1, -1)]);
  const long = [...new Set(forms)].filter((s) => s.length >= SHORTEST_SECRET);
  return long.sort((a, b) => b.length - a.length).reduce((t, secret) => t.replaceAll(secret, '***'), text);
}
