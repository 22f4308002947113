import { describe, expect, it } from 'vitest';
import { createPaint } from '../../src/cli/paint.ts';
import { errorDocument, errorLines, shownError } from '../../src/cli/render-error.ts';
import { errorOf, fault, SealiftError } from '../../src/core/errors.ts';

const paint = createPaint({ isTerminal: false, env: {}, wanted: true });
const show = (error: SealiftError, debug = false): string[] => errorLines(error, { paint, debug });
const at = (line: number): { position: { file: string; line: number; column: number } } => ({
  position: { file: 'sealift.yaml', line, column: 5 },
});

describe('an error on the screen', () => {
  it('looks as the design shows it', () => {
    const hint = 'run `sealift lock` to update it, or `sealift lock --diff` to see what would change';
    const faults = [
      fault('LOCK_STALE', 'images[3] asks for redis:7.4, the lock has redis:7.2', { hint, ...at(14) }),
      fault('LOCK_STALE', 'image x is in the lock, but nothing asks for it', { hint }),
    ];
    expect(show(errorOf(faults, 'versions.lock does not match sealift.yaml'))).toEqual([
      'error[LOCK_STALE]: versions.lock does not match sealift.yaml',
      '  sealift.yaml:14:5  images[3] asks for redis:7.4, the lock has redis:7.2',
      '  image x is in the lock, but nothing asks for it',
      `hint: ${hint}`,
    ]);
  });

  it('says a single fault once, with its place, and names codes that differ from the headline', () => {
    expect(show(errorOf([fault('MANIFEST_INVALID', 'unknown key', at(3))], 'unused'))).toEqual([
      'error[MANIFEST_INVALID]: unknown key',
      '  sealift.yaml:3:5',
    ]);
    const mixed = [fault('NETWORK_FAILED', 'a', { hint: 'h1' }), fault('AUTH_DENIED', 'b', { hint: 'h2' })];
    expect(show(errorOf(mixed, 'two', 'NETWORK_FAILED'))).toEqual([
      'error[NETWORK_FAILED]: two',
      '  a',
      '  [AUTH_DENIED] b',
      'hint: h1',
      'hint: h2',
    ]);
  });

  it('shows anything else as INTERNAL, its stack only when asked, secrets never', () => {
    const error = shownError(new TypeError('x is not a function at https://u:pw@host/'), false);
    expect(error.code).toBe('INTERNAL');
    expect(show(error)).toHaveLength(2);
    const debug = show(error, true).join('\n');
    expect(debug).toContain('TypeError');
    expect(debug).toContain('render-error.test');
    expect(debug).not.toContain('pw@');
    expect(shownError('just text', false).message).toBe('just text');
  });

  it('is the stop and nothing else once the person stopped it', () => {
    expect(shownError(new SealiftError('NETWORK_FAILED', 'socket closed'), true).code).toBe('ABORTED');
  });
});

describe('an error for a program', () => {
  it('has every field, with secrets taken out of the details too', () => {
    const error = new SealiftError('NETWORK_FAILED', 'm', {
      details: { urls: ['https://u:pw@host/?token=abc'] },
    });
    expect(errorDocument(error)).toEqual({
      code: 'NETWORK_FAILED',
      message: 'm',
      hint: null,
      details: { urls: ['https://***@host/?token=***'] },
      faults: [],
    });
  });
});
