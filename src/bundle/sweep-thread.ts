import { parentPort, workerData } from 'node:worker_threads';
import { type SharedSweep, sweepJobs } from './sweep.ts';

// The thread that started this one sends what sweepJobs takes.
const shared: SharedSweep = workerData;
await sweepJobs(shared);
parentPort?.postMessage('done');
