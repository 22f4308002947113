import { describe, expect, it } from 'vitest';
import { indexesOfPipConfig, indexOfPipHelp } from '../../src/source/python-pip.ts';

const hrefs = (urls: readonly URL[]): string[] => urls.map(({ href }) => href);

describe('the indexes of pip', () => {
  it('are those of its configuration, where what is for `install` beats what is for all', () => {
    const text = [
      "global.index-url='https://all.test/simple'",
      "install.index-url='https://install.test/simple'",
      "global.extra-index-url='https://more.test/a\\nhttps://more.test/b'",
      "global.timeout='5'",
    ].join('\n');
    expect(hrefs(indexesOfPipConfig(text))).toEqual([
      'https://install.test/simple',
      'https://more.test/a',
      'https://more.test/b',
    ]);
  });

  it('is the one of its own help where nobody configured one', () => {
    const text = [
      'Package Index Options:',
      '  -i, --index-url <url>       Base URL of the Python Package Index (default',
      '                              https://packages.test/simple). This should point to a',
      '  --extra-index-url <url>     Extra URLs of package indexes (default https://wrong.test/)',
    ].join('\n');
    expect(hrefs(indexOfPipHelp(text))).toEqual(['https://packages.test/simple']);
    expect(indexOfPipHelp('  --extra-index-url <url>   Extra (default https://wrong.test/)')).toEqual([]);
    expect(indexOfPipHelp('no help')).toEqual([]);
  });
});
