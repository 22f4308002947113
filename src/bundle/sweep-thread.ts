import { parentPort } from 'node:worker_threads';
import { type SharedSweep, sweepJobs } from './sweep-jobs.ts';

// The thread that started this one sends one message: what sweepJobs takes.
parentPort?.once('message', async (shared: SharedSweep) => {
  await sweepJobs(shared);
  parentPort?.postMessage('done');
});
