import { type ErrorCode, SealiftError } from '../../core/errors.ts';
import { GrpcError, STATUS, type Status, statusName } from './grpc.ts';

/** Characters that are kept of a text that the server sent. */
const TEXT_LIMIT = 300;

interface Mapped {
  readonly code: ErrorCode;
  readonly hint: string;
}

const OTHER: Mapped = {
  code: 'TARGET_FAILED',
  hint: "look at containerd's own log (journalctl -u containerd) and at the free space of its disk, then run the same command again: it goes on where it stopped",
};

const MAPPED: Readonly<Partial<Record<Status, Mapped>>> = {
  [STATUS.UNAVAILABLE]: {
    code: 'TARGET_UNREACHABLE',
    hint: 'check that containerd runs (systemctl status containerd), then run the same command again: it goes on where it stopped',
  },
  [STATUS.DEADLINE_EXCEEDED]: {
    code: 'TARGET_UNREACHABLE',
    hint: 'containerd does not answer: check its load and its disk, then run the same command again',
  },
  [STATUS.UNIMPLEMENTED]: {
    code: 'TARGET_UNREACHABLE',
    hint: 'the socket is not that of containerd 1.0 or later: give the containerd socket itself, not that of dockerd or a CRI proxy',
  },
  [STATUS.PERMISSION_DENIED]: { code: 'AUTH_DENIED', hint: 'run as a user that containerd lets in: root' },
  [STATUS.UNAUTHENTICATED]: { code: 'AUTH_DENIED', hint: 'run as a user that containerd lets in: root' },
  [STATUS.RESOURCE_EXHAUSTED]: { code: 'TARGET_FAILED', hint: 'free some space or memory on the machine' },
};

/** A text of the server, on one line and not longer than a person reads. */
export function bounded(text: string): string {
  const line = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();
  return line.length > TEXT_LIMIT ? `${line.slice(0, TEXT_LIMIT)}…` : line;
}

/** The gRPC status behind an error of a call, also after `callError` wrapped it. */
export function statusOf(error: unknown): Status | undefined {
  const cause = error instanceof SealiftError ? error.cause : error;
  return cause instanceof GrpcError ? cause.status : undefined;
}

/** An error of a call as ours: the status decides the code and the hint; what the server said is kept, bounded. */
export function callError(error: unknown, what: string): SealiftError {
  if (error instanceof SealiftError) return error;
  const code = statusOf(error);
  const mapped = (code === undefined ? undefined : MAPPED[code]) ?? OTHER;
  const said = error instanceof Error ? error.message : String(error);
  return new SealiftError(mapped.code, `${what}: ${bounded(said)}`, {
    hint: mapped.hint,
    cause: error,
    side: 'destination',
    ...(code === undefined ? {} : { details: { grpcStatus: statusName(code) } }),
  });
}
