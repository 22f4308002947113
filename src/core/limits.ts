/** Every limit on what is read from outside, in one place. Bytes unless a name says otherwise. */
export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;

export const LIMITS = {
  /** An image manifest or index. Registries guarantee 4 MiB; oras-go stumbled over its own 4 MiB (registry.md 1.3). */
  manifest: 16 * MIB,
  /** A config blob that is parsed (image config, Chart.yaml as JSON). */
  config: 8 * MIB,
  /** Manifests below one index, and nesting of indexes. */
  indexChildren: 10_000,
  indexDepth: 4,
  layersPerManifest: 4_096,
  /** Signatures, attestations and other referrers that travel with one image, how deep they are followed, and pages of one list. */
  referrers: 1_000,
  referrerDepth: 4,
  referrerPages: 100,
  /** Addresses of one foreign layer. */
  foreignUrls: 16,
  /** Tags of one repository that are listed. */
  tags: 100_000,
  /** Repositories of one registry that are listed. */
  repositories: 100_000,
  /** Questions whether a repository that does not need a blob has it, of one load on one registry. */
  blobsElsewhere: 10_000,
  /** A token server's answer. */
  token: 128 * KIB,
  /** Tokens, challenges and credentials of one registry that are kept, each for one repository. */
  rememberedLogins: 1_000,
  /** An error body: only its start is kept. */
  errorBody: 8 * KIB,
  /** Different warnings of one registry that are shown. */
  registryWarnings: 20,
  /** A chart repository's index.yaml. */
  repositoryIndex: 64 * MIB,
  /** A chart archive as downloaded. */
  chartArchive: 64 * MIB,
  /** All files of a chart, unpacked; Helm's own limit (helm.md 1.2). */
  chartUnpacked: 100 * MIB,
  /** One file of a chart: above this Helm 3.17.3 and later refuse it, so it is a warning here. */
  chartFileWarn: 5 * MIB,
  chartFiles: 20_000,
  /** Chart.yaml, Chart.lock, requirements.yaml or .helmignore. */
  chartYaml: 1 * MIB,
  /** How deep charts inside charts are followed. */
  chartDepth: 8,
  provenance: 1 * MIB,
  /** What a wheel or source archive says of itself, its fields, the entries of one, and all that may come out of a source archive. */
  packageMetadata: 4 * MIB,
  packageFields: 10_000,
  packageEntries: 500_000,
  packageUnpacked: 8 * GIB,
  /** sealift.yaml, versions.lock, image lists. */
  manifestText: 8 * MIB,
  lockText: 64 * MIB,
  /** One line of versions.lock. */
  lockLine: 64 * KIB,
  /** Of the Python packages of a lock: files, and projects with their versions; requirements, files of them, indexes, Pythons, platforms. */
  packages: 20_000,
  requirements: 1_000,
  /** A package index's page about one project, and the files on it. */
  simplePage: 32 * MIB,
  simpleFiles: 100_000,
  /** Requirements and constraints files of one manifest, those that they include among them. */
  requirementFiles: 200,
  /** The program that resolves Python packages: its time, what it prints, what it writes. */
  resolverMs: 30 * 60_000,
  resolverText: 256 * KIB,
  resolverResult: 32 * MIB,
  /** Tokens of a YAML text, and nodes after its aliases are followed. */
  yamlNodes: 500_000,
  yamlDepth: 64,
  /** Files that the imageLists patterns of one manifest may match. */
  imageListFiles: 1_000,
  /** Targets of a receipt, and names and manifests that one entry of it added. */
  receiptTargets: 1_000,
  receiptNames: 20_000,
  /** JSON files beside a receipt that are looked at for later ones. */
  receiptsBeside: 1_000,
  /** Documents at the start of a bundle. */
  bundleDocument: 128 * MIB,
  bundleEntries: 1_000_000,
  /** Manifests of a bundle that is read from a pipe, all together and compressed: they are kept in memory. */
  streamedManifests: 32 * MIB,
  /** Bundles that one delta builds on. */
  bases: 100,
  /** Files that one bundle is split into. */
  volumes: 10_000,
  /** A key, a signature or a signature file of minisign's. */
  signatureText: 4 * KIB,
  /** One answer of Nexus's own API, the repositories and blob stores that it may list, the assets of a page, and pages. */
  nexusAnswer: 16 * MIB,
  nexusRepositories: 10_000,
  nexusPageItems: 10_000,
  nexusPages: 100_000,
  /** A file on a web server: up to this it is compared by reading it. */
  assetRead: 64 * KIB,
  /** From this on the server is asked for its checksum before anybody reads the file. */
  assetCompared: 16 * MIB,
  /** Something else under its name is read up to this for its digest. */
  assetOther: 64 * MIB,
  /** Up to this a file is sent out of memory. */
  assetInMemory: 256 * KIB,
  /** Until the index of a chart repository must list a chart that was uploaded, in milliseconds. */
  chartListedMs: 120_000,
  /** site.yaml, the policy of a site, and the keys that it may name. */
  siteText: 1 * MIB,
  trustedKeys: 100,
  /** A tar of another tool or a chart: one header record. Of another tool: all names together, and what may come out of a compressed one. */
  tarMeta: 1 * MIB,
  tarNames: 128 * MIB,
  archiveUnpacked: 256 * GIB,
  /** The list of checksums inside the tool that travels beside a bundle, and all that may come out of its tarball. */
  toolSums: 1 * MIB,
  toolUnpacked: 4 * GIB,
  /** Blobs of one containerd namespace that are listed. */
  listedContent: 1_000_000,
  /** Layers of all images of one docker save archive together. */
  savedLayers: 100_000,
  redirects: 10,
  /** Status line and headers of an answer. */
  answerHead: 64 * KIB,
  /** Tries of one request, the first included. */
  tries: 6,
  /** Questions whether a server takes writes again, before a load gives up. */
  writableAsks: 10,
  /** Uploads to one target at once, whatever is asked for. */
  writers: 20,
  /** Tries of one request that ends where a redirect led to and is refused there, the first included; each time a fresh redirect is asked for. */
  redirectedTries: 3,
  /** A transfer may break `tries` times in a row, and in all that often plus once for each of these bytes that came. */
  bytesPerCut: 256 * KIB,
  /** Fewer bytes than this within `idleMs` count as silence. */
  slowBytes: 1 * KIB,
  /** Chunks of an upload that was refused as a whole: the largest that is tried, and the smallest. */
  uploadChunk: 64 * MIB,
  uploadChunkFloor: 64 * KIB,
  /** The most that OCI-Chunk-Min-Length is believed. */
  uploadMinChunk: 1 * GIB,
  /** Longest wait that a server may ask for with Retry-After, except for a limit on requests (HTTP 429). */
  retryAfterMs: 900_000,
  /** Longest wait for a limit on requests, where its own window is not longer. */
  rateLimitMs: 6 * 3_600_000,
  /** A wait up to this is an ordinary one between two tries; a longer one is announced and can be refused (--no-wait). */
  briefWaitMs: 30_000,
  /** Between two questions whether a limit has ended whose end was not told. */
  limitProbeMs: 60_000,
  /** A request waits for others to the same host; after this long without an end of one it goes all the same. */
  patienceMs: 60_000,
  /** No byte for this long is a failure; a whole transfer has no limit. */
  idleMs: 60_000,
  /** Until the headers of an answer: a registry may commit a large blob for minutes after the last byte. */
  headersMs: 600_000,
  /** Bytes per second of a request's body that its answer is given time for, beside `idleMs`: they may still be on their way, or are being committed. */
  answerBytesPerS: 64 * KIB,
  connectMs: 15_000,
  /** For requests that only tidy up. */
  courtesyMs: 5_000,
  /** Until a proxy has opened a tunnel: it looks the host up and connects first. */
  tunnelMs: 60_000,
  /** Requests to one host at once: at the start, and the most that it grows to. */
  requestsAtFirst: 16,
  connectionsPerHost: 32,
  /** One file of certificates or a key. */
  certificates: 4 * MIB,
  /** The embedded registry: one uploaded blob on disk and in memory, unfinished uploads, tokens and logged requests at a time. */
  uploadedBlob: 64 * GIB,
  uploadedBlobInMemory: 1 * GIB,
  uploadSessions: 1_000,
  servedTokens: 10_000,
  requestLog: 100_000,
  /** A server: until a client has taken one piece of an answer (at most 256 KiB). */
  servedChunkMs: 120_000,
  /** `serve`: connections, answers at a time, bytes of a request's first line with its headers, and of its path and query. */
  servedConnections: 1_000,
  servedAnswers: 2_000,
  /** Names on one page of a catalog or of tags. */
  listPage: 1_000,
  /** Pages of folders that are kept, in bytes. */
  listingsKept: 32 * MIB,
  requestHead: 16 * KIB,
  requestTarget: 8 * KIB,
  /** Until the headers of a request are there, and all of it; and until a connection without a request ends. */
  requestHeadMs: 15_000,
  requestMs: 30_000,
  unusedConnectionMs: 75_000,
  /** Between two looks at which of these are late. */
  lateLookMs: 5_000,
  /** How long running answers may still take when it is stopped. */
  serveEndMs: 30_000,
  /** A htpasswd file, the cost of one of its hashes (2 to that power), passwords that wait for their check at a time. */
  passwordFile: 1 * MIB,
  passwordCost: 14,
  passwordsWaiting: 16,
  /** Between a wrong password and the check of the next. */
  wrongPasswordMs: 250,
  /** Log lines that a slow file has not taken yet; then lines are left out. */
  logWaiting: 1 * MIB,
} as const;
