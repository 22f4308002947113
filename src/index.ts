/** The public library: the verbs that the program calls, with what they take and give. */

export type { Digest } from './core/digest.ts';
export {
  type ErrorCode,
  exitCodeOf,
  type Fault,
  isErrorCode,
  type Position,
  SealiftError,
} from './core/errors.ts';
export type { Context, Emit, Event } from './core/events.ts';
export type { Naming } from './core/naming.ts';
export type { DiffChange, DiffEntry, DiffKind, FactChange, Facts, LockDiff } from './lock/diff.ts';
export type { ChartLock, FileLock, ImageLock, Lock } from './lock/schema.ts';
export { type BundlePlace, formatBundlePlace, parseBundlePlace } from './ops/bundle-place.ts';
export { type DiffResult, type DiffSide, diff, type EntrySize } from './ops/diff.ts';
export {
  type AskPassword,
  type KeygenOptions,
  type KeygenResult,
  keygen,
  type SigningKey,
} from './ops/keys.ts';
export { type LoadedEntry, type LoadedTarget, type LoadOptions, type LoadResult, load } from './ops/load.ts';
export {
  checkLockFile,
  type LockCheckResult,
  type LockOptions,
  type LockResult,
  lock,
} from './ops/lock.ts';
export {
  type LoginOptions,
  type LoginResult,
  type LogoutResult,
  login,
  logout,
  parseLoginHost,
} from './ops/login.ts';
export { type Listed, type LsResult, ls } from './ops/ls.ts';
export { type MergeOptions, type MergeResult, merge } from './ops/merge.ts';
export { type PackOptions, type PackResult, pack } from './ops/pack.ts';
export { type PullOptions, type PullResult, pull } from './ops/pull.ts';
export { CHUNK_SIZE, type ChunkCount, type PushOptions, type PushResult, push } from './ops/push.ts';
export { parseRegistryUrl, type RegistryPlace } from './ops/registry-place.ts';
export { type ServeOptions, type ServeResult, type Serving, serve } from './ops/serve.ts';
export type { Snippet } from './ops/serve-snippets.ts';
export { type SignOptions, type SignResult, sign } from './ops/sign.ts';
export {
  type FoundTool,
  findTools,
  type PlacedTool,
  placeTools,
  type ToolChoice,
} from './ops/tool.ts';
export { type Chain, refuseDamaged, type VerifyOptions, type VerifyResult, verify } from './ops/verify.ts';
export { type RegistryOptions, type RunningRegistry, startRegistry } from './serve/registry.ts';
