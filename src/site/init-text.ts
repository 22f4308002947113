/** A repository that a Nexus has, or shall get, as it stands in the file. */
export interface FoundRepository {
  readonly name: string;
  /** Of docker: where images are pushed. */
  readonly url?: string;
}

/** What a key of a Nexus target may be: the first one is written, the others stand beside it as comments. */
export type Candidates = readonly FoundRepository[];

export interface NexusFacts {
  readonly name: string;
  readonly url: string;
  readonly create: boolean;
  readonly docker: Candidates;
  readonly helm: Candidates;
  readonly pypi: Candidates;
  readonly raw: Candidates;
  /** Lines about what could not be found out. */
  readonly remarks: readonly string[];
}

export interface ServerFacts {
  /** Name of the two variables with the login. */
  readonly variables: string | undefined;
  readonly tls: Readonly<Record<string, string | boolean>>;
}

/** What a site's file shall say. Paths are as they stand in the file. */
export interface SiteFacts {
  readonly nexus: (NexusFacts & ServerFacts) | undefined;
  readonly devpi: (ServerFacts & { readonly url: string; readonly name: string }) | undefined;
  readonly containerd: string | undefined;
  readonly chartTree: string | undefined;
  readonly files: string | undefined;
}

/** A text of YAML: plain where nothing else could be read in it. */
function word(text: string): string {
  const isPlain =
    /^[A-Za-z/.][A-Za-z0-9_/.-]*$/.test(text) && !/^(?:true|false|null|yes|no|on|off)$/i.test(text);
  return isPlain ? text : JSON.stringify(text);
}

function repositoryText({ name, url }: FoundRepository): string {
  return url === undefined ? word(name) : `{repository: ${word(name)}, url: ${JSON.stringify(url)}}`;
}

function candidateLines(key: string, candidates: Candidates): string[] {
  return candidates.map((one, i) => `    ${i === 0 ? '' : '# '}${key}: ${repositoryText(one)}`);
}

function serverLines({ variables, tls }: ServerFacts): string[] {
  const words = Object.entries(tls).map(
    ([key, value]) => `${key}: ${typeof value === 'string' ? word(value) : value}`,
  );
  return [
    ...(words.length === 0 ? [] : [`    tls: {${words.join(', ')}}`]),
    ...(variables === undefined
      ? ['    # credentials: {env: NEXUS}   # NEXUS_USERNAME and NEXUS_PASSWORD; or {file: netrc}, or prompt']
      : [`    credentials: {env: ${variables}}   # ${variables}_USERNAME and ${variables}_PASSWORD`]),
  ];
}

function nexusLines(nexus: NexusFacts & ServerFacts): string[] {
  return [
    '  - type: nexus',
    `    name: ${word(nexus.name)}`,
    `    url: ${JSON.stringify(nexus.url)}`,
    ...(nexus.create ? ['    create: true   # makes the repositories below that are not there'] : []),
    ...nexus.remarks.map((remark) => `    # ${remark}`),
    ...candidateLines('docker', nexus.docker),
    ...candidateLines('helm', nexus.helm),
    ...candidateLines('pypi', nexus.pypi),
    ...candidateLines('raw', nexus.raw),
    ...serverLines(nexus),
  ];
}

/** The text of a site's file. */
export function siteText(facts: SiteFacts): string {
  const { nexus, devpi, containerd, chartTree, files } = facts;
  const targets = [
    ...(nexus === undefined ? [] : nexusLines(nexus)),
    ...(devpi === undefined
      ? []
      : [
          '  - type: devpi',
          `    name: ${word(devpi.name)}`,
          `    url: ${JSON.stringify(devpi.url)}`,
          '    # create: true   # makes the index when it is not there',
          ...serverLines(devpi),
        ]),
    ...(containerd === undefined ? [] : [`  - {type: containerd, name: node, socket: ${word(containerd)}}`]),
    ...(chartTree === undefined ? [] : [`  - {type: chart-tree, name: charts, dir: ${word(chartTree)}}`]),
    ...(files === undefined ? [] : [`  - {type: files, name: files, dir: ${word(files)}}`]),
  ];
  return [
    '# Where `sealift load BUNDLE` loads to, and what is trusted here. All keys: manifests/site.schema.json',
    'apiVersion: sealift-site/v1',
    '# trust: {keys: [release.pub], require: signature}   # who must have signed what is loaded here',
    ...(targets.length === 0 ? ['targets: []'] : ['targets:', ...targets]),
    '',
  ].join('\n');
}
