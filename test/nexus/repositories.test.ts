import { expect, it } from 'vitest';
import { onEachNexus } from '../support/nexus.ts';
import { askNexus, listAssets, makeRepository } from '../support/nexus-server.ts';

onEachNexus(['raw'], (nexus) => {
  it('keeps a file of a throw-away repository until the repository is removed', async () => {
    const repository = await makeRepository(nexus, 'raw');
    const put = () =>
      fetch(`${repository.url}/a/b.txt`, {
        method: 'PUT',
        body: 'hello',
        headers: {
          authorization: `Basic ${Buffer.from(`${nexus.username}:${nexus.password}`).toString('base64')}`,
        },
      });
    expect((await put()).status).toBe(201);
    expect(await listAssets(nexus, repository.name)).toEqual([
      'a/b.txt aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d',
    ]);
    // Not even the same bytes again: what is there must be looked at before a write.
    expect((await put()).status).toBe(400);
    await repository.remove();
    const { text } = await askNexus(nexus, { path: 'v1/repositories' });
    expect(text).not.toContain(repository.name);
  });
});
