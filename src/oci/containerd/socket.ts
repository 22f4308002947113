import { access } from 'node:fs/promises';
import { connect } from 'node:net';
import { SealiftError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { errnoOf } from '../../io/files.ts';

/** Where the sockets of containerd are: its own, k3s and rke2, microk8s, k0s (registry.md 3.1). */
const KNOWN_SOCKETS = [
  '/run/containerd/containerd.sock',
  '/run/k3s/containerd/containerd.sock',
  '/var/snap/microk8s/common/run/containerd.sock',
  '/run/k0s/containerd.sock',
] as const;

/**
 * Opens the socket once by hand: gRPC says only "unavailable", the system says why.
 * @throws TARGET_UNREACHABLE; ABORTED
 */
export async function knock(socket: string, signal: AbortSignal): Promise<void> {
  const errno = await new Promise<string>((done) => {
    const connection = connect({ path: socket, signal, timeout: LIMITS.connectMs });
    const end = (code: string): void => {
      connection.destroy();
      done(code);
    };
    connection.once('connect', () => end(''));
    connection.once('timeout', () => end('ETIMEDOUT'));
    connection.once('error', (error) => end(signal.aborted ? 'ABORTED' : errnoOf(error)));
  });
  if (errno === '') return;
  if (errno === 'ABORTED') throw new SealiftError('ABORTED', 'stopped');
  const what = `containerd ${socket}`;
  if (errno === 'EACCES' || errno === 'EPERM') {
    throw new SealiftError('TARGET_UNREACHABLE', `${what}: not permitted to open the socket`, {
      hint: "containerd's socket belongs to root: run the same command with sudo",
      side: 'destination',
      details: { errno },
    });
  }
  const others = await existing(KNOWN_SOCKETS.filter((path) => path !== socket));
  const places =
    others.length > 0 ? `there is one at ${others.join(', ')}` : `usual places: ${KNOWN_SOCKETS.join(', ')}`;
  const why =
    errno === 'ENOENT' ? 'no such socket' : errno === 'ECONNREFUSED' ? 'nobody listens on it' : errno;
  throw new SealiftError('TARGET_UNREACHABLE', `${what}: ${why}`, {
    hint: `check that containerd runs, and the path (${places})`,
    side: 'destination',
    details: { errno },
  });
}

async function existing(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    paths.map((path) =>
      access(path).then(
        () => true,
        () => false,
      ),
    ),
  );
  return paths.filter((_, i) => found[i] === true);
}
