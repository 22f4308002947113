import { workerData } from 'node:worker_threads';
import { receiving } from './receive.ts';
import { serveJobs } from './thread-side.ts';

// The main thread starts this one with its environment, whose values are texts.
const env = workerData as Readonly<Record<string, string | undefined>>;
serveJobs(receiving(env).handler);
