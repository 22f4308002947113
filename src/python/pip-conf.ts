/** How pip is told to ask one index and nobody else. */
export interface PipSettings {
  /** Of `/etc/pip.conf` or `~/.config/pip/pip.conf`. */
  readonly file: string;
  /** The same as environment variables, for pods. */
  readonly env: Readonly<Record<string, string>>;
}

/** Whether pip takes an address only when it is told to: plain HTTP, but not from the machine itself (pip: `SECURE_ORIGINS`). */
function isTrustNeeded({ protocol, hostname }: URL): boolean {
  if (protocol !== 'http:') return false;
  return hostname !== 'localhost' && hostname !== '[::1]' && !/^127(?:\.\d{1,3}){3}$/.test(hostname);
}

/**
 * The text of a pip.conf for an index. No login is ever part of it: pip takes one from `~/.netrc` or its keyring.
 * @param index of the simple index: `http://devpi.local:3141/root/prod/+simple/`
 */
export function pipSettings(index: URL): PipSettings {
  const url = new URL(index);
  url.username = '';
  url.password = '';
  url.hash = '';
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  const host = url.host;
  const lines = ['[global]', `index-url = ${url.href}`];
  const env: Record<string, string> = { PIP_INDEX_URL: url.href };
  if (isTrustNeeded(url)) {
    lines.push(`trusted-host = ${host}`);
    env.PIP_TRUSTED_HOST = host;
  }
  return { file: `${lines.join('\n')}\n`, env };
}
