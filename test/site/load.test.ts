import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { SealiftError } from '../../src/core/errors.ts';
import { parseSiteFile } from '../../src/site/load.ts';
import { siteSchemaText } from '../../src/site/schema.ts';

const HEAD = 'apiVersion: sealift-site/v1\n';

const read = (body: string): ReturnType<typeof parseSiteFile> =>
  parseSiteFile(HEAD + body, '/etc/site/site.yaml');

/** Each fault as `line:column message | hint`. */
function faultsOf(body: string): string[] {
  try {
    read(body);
  } catch (error) {
    if (!(error instanceof SealiftError)) throw error;
    expect(error.code).toBe('SITE_INVALID');
    return error.faults.map(({ position, message, hint = '' }) => {
      expect(position?.file).toBe('/etc/site/site.yaml');
      return `${position?.line}:${position?.column} ${message} | ${hint}`;
    });
  }
  throw new Error('expected faults');
}

const target = (words: string): string => `targets:\n  - {${words}}\n`;

describe('the targets of a site', () => {
  it('are read as the example of the guide has them, with paths from the folder of the file', () => {
    const { targets, path } = read(`trust: {keys: [acme.pub], require: signature}
targets:
  - {type: nexus, name: nexus, url: "https://nexus.local", create: true,
     docker: {repository: docker-hosted, url: "https://nexus.local:5000"},
     helm: helm-hosted, pypi: pypi-hosted, raw: raw-hosted, credentials: {env: NEXUS}}
  - {type: registry, name: staging, url: "http://10.0.0.5:5001", naming: keep-host, tls: {caFile: ca.pem}}
  - {type: containerd, name: node, socket: /run/containerd/containerd.sock, namespace: k8s.io}
  - {type: chart-tree, name: charts, dir: charts/external}
  - {type: files, name: files, dir: /opt/files}
  - {type: devpi, name: pip, url: "http://devpi.local:3141/root/prod", credentials: {file: netrc}}
`);
    expect(path).toBe('/etc/site/site.yaml');
    expect(targets).toMatchObject([
      {
        type: 'nexus',
        url: new URL('https://nexus.local/'),
        create: true,
        docker: { repository: 'docker-hosted', url: new URL('https://nexus.local:5000/') },
        helm: 'helm-hosted',
        onConflict: 'fail',
        naming: 'drop-host',
        credentials: { kind: 'env', prefix: 'NEXUS' },
      },
      { type: 'registry', prefix: '', naming: 'keep-host', tls: { caFile: '/etc/site/ca.pem' } },
      { type: 'containerd', socket: '/run/containerd/containerd.sock', namespaces: ['k8s.io'], pin: false },
      { type: 'chart-tree', dir: '/etc/site/charts/external' },
      { type: 'files', dir: '/opt/files' },
      {
        type: 'devpi',
        url: new URL('http://devpi.local:3141/'),
        index: 'root/prod',
        create: false,
        credentials: { kind: 'file', path: '/etc/site/netrc' },
      },
    ]);
  });

  it('keep context paths, prefixes, numbers and namespaces', () => {
    const { targets } = read(`targets:
  - {type: nexus, name: n, url: https://host/nexus, parallel: 20, docker: {repository: d, url: https://host/d, httpPort: 5000}}
  - {type: registry, name: r, url: https://host/a/b}
  - {type: registry, name: s, url: https://host, prefix: a/b, credentials: prompt}
  - {type: containerd, name: c, socket: c.sock, namespaces: [k8s.io, moby], pin: true}
  - {type: devpi, name: p, url: https://host/pip/root/prod/, create: true, onConflict: keep}
`);
    expect(targets).toMatchObject([
      { url: new URL('https://host/nexus/'), parallel: 20, docker: { httpPort: 5000 } },
      { prefix: 'a/b', credentials: undefined },
      { prefix: 'a/b', credentials: { kind: 'prompt' } },
      { socket: '/etc/site/c.sock', namespaces: ['k8s.io', 'moby'], pin: true },
      { url: new URL('https://host/pip/'), index: 'root/prod', onConflict: 'keep' },
    ]);
  });

  it('may be none', () => {
    expect(read('trust: {keys: [a.pub]}\n').targets).toEqual([]);
    expect(read('targets: []\n').targets).toEqual([]);
  });
});

describe('what is wrong in a site', () => {
  it.each([
    [
      'an unknown key, with the nearest',
      target('type: files, name: f, dirr: x'),
      ['3:5 targets[0]: "dir" is missing', '3:28 targets[0]: unknown key "dirr"; did you mean "dir"?'],
    ],
    [
      'an unknown type, with the nearest',
      target('type: nexsus, name: n'),
      [
        '3:12 targets[0].type: expected one of nexus, registry, containerd, chart-tree, files, devpi; did you mean "nexus"?, found "nexsus"',
      ],
    ],
    ['a type that lacks', target('name: n'), ['3:5 targets[0].type: expected one of nexus,']],
    [
      'a name that is taken',
      'targets:\n  - {type: files, name: f, dir: x}\n  - {type: files, name: f, dir: y}\n',
      ['4:25 targets[1].name: the name "f" is taken by targets[0]'],
    ],
    [
      'a password in an address',
      target('type: registry, name: r, url: "https://a:hunter2@host"'),
      [
        '3:36 targets[0].url: "https://***@host" has a user name or a password in it | leave them out and write credentials: {env: NAME}',
      ],
    ],
    [
      'an address without an index, and one with a query',
      'targets:\n  - {type: devpi, name: d, url: "http://devpi:3141"}\n  - {type: nexus, name: n, url: "http://n/?a=b", raw: r}\n',
      [
        '3:33 targets[0].url: "http://devpi:3141" names no index',
        '4:33 targets[1].url: "http://n/?a=b" has "?" or "#" in it',
      ],
    ],
    [
      'a Nexus with no repository',
      target('type: nexus, name: n, url: "https://n"'),
      ['3:5 targets[0]: names no repository | write at least one of docker, helm, pypi and raw'],
    ],
    [
      'words that are none of those that are known',
      target(
        'type: nexus, name: n, url: "https://n", raw: r, onConflict: never, naming: x, parallel: 21, create: yes',
      ),
      [
        '3:66 targets[0].onConflict: expected',
        '3:81 targets[0].naming: expected',
        '3:94 targets[0].parallel: "21": expected a number from 1 to 20',
        '3:106 targets[0].create: expected true or false, found "yes"',
      ],
    ],
    [
      'a prefix twice, a pair that is torn, namespaces twice',
      `targets:
  - {type: registry, name: r, url: "https://h/a", prefix: b, tls: {clientCert: c}}
  - {type: containerd, name: c, socket: s, namespace: a, namespaces: [b]}
`,
      [
        '3:59 targets[0].prefix: the address has a path already',
        '3:80 targets[0].tls.clientCert: clientCert stands without clientKey',
        '4:55 targets[1].namespace: namespace and namespaces contradict each other',
      ],
    ],
    [
      'credentials of an unknown kind, and a password in the file',
      `targets:
  - {type: registry, name: r, url: "https://h", credentials: ask}
  - {type: registry, name: s, url: "https://h", credentials: {user: ann, password: x}}
`,
      [
        '3:62 targets[0].credentials: expected',
        '4:62 targets[1].credentials: expected one of env and file',
        '4:63 targets[1].credentials: unknown key "user" | allowed keys: env, file',
        '4:74 targets[1].credentials: unknown key "password"',
      ],
    ],
    ['targets that are no list', 'targets: {a: b}\n', ['2:10 targets: expected a list, found a map']],
    [
      'trust that asks for a signature of nobody',
      'trust: {require: signature}\n',
      ['2:18 trust: a signature is required'],
    ],
    ['a key at the top', 'target: []\n', ['2:1 unknown key "target"; did you mean "targets"?']],
  ])('is told with its place: %s', (_, body, expected) => {
    const found = faultsOf(body);
    expect(found).toEqual(expected.map((start) => expect.stringContaining(start)));
    expect(found.join()).not.toContain('hunter2');
  });
});

describe('the JSON schema of a site', () => {
  it('in manifests/ is what the code makes: after a change run `npm run build && npm run schema`', async () => {
    const written = await readFile(new URL('../../manifests/site.schema.json', import.meta.url), 'utf8');
    expect(written).toBe(siteSchemaText());
  });

  it('describes every key of every target', () => {
    const schema = JSON.parse(siteSchemaText());
    const kinds: { properties: Record<string, unknown> }[] = schema.properties.targets.items.oneOf;
    expect(kinds).toHaveLength(6);
    for (const { properties } of kinds) {
      const { type, ...more } = properties;
      expect(type).toHaveProperty('const');
      for (const [key, value] of Object.entries(more)) expect(value, key).toHaveProperty('description');
    }
  });
});
