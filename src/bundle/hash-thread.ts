import { serveJobs } from '../io/thread-side.ts';
import { hashRange } from './hash.ts';

serveJobs(hashRange);
