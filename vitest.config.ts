import { defineConfig } from 'vitest/config';

/**
 * The floor rules (fast, part of `check`), the tests that need only Node, those that need real peers, and those that need
 * real Nexus servers.
 */
export default defineConfig({
  test: {
    projects: [
      // `npm test` runs it together with the unit tests: vitest wants one number of workers for both.
      { test: { name: 'architecture', include: ['test/architecture.test.ts'], maxWorkers: '100%' } },
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/peers/**', 'test/nexus/**', 'test/architecture.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          // vitest would leave one processor to itself, which waits: with two of them half the machine.
          maxWorkers: '100%',
          // It imports JSON as bundlers do.
          server: { deps: { inline: ['@actions/workflow-parser'] } },
        },
      },
      {
        test: {
          name: 'peers',
          include: ['test/peers/**/*.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'nexus',
          include: ['test/nexus/**/*.test.ts'],
          globalSetup: ['test/support/nexus-setup.ts'],
          testTimeout: 600_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
