import { describe, expect, it } from 'vitest';
import { quotaOf, refusalOf } from '../../src/io/rate-limit.ts';

const HOUR = 3_600_000;
const now = Date.parse('2026-01-01T00:00:00Z');

describe('the limit that a server tells (registry.md 1.3, Docker Hub)', () => {
  it('[1.3-hub-headers] is read with its window and by what it counts', () => {
    const headers = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' };
    expect(quotaOf({ ...headers, 'docker-ratelimit-source': '203.0.113.7' })).toEqual({
      limit: 100,
      remaining: 76,
      windowMs: 6 * HOUR,
      byLogin: false,
    });
    const byLogin = (source: string) => quotaOf({ ...headers, 'docker-ratelimit-source': source })?.byLogin;
    expect(byLogin('2001:db8::1')).toBe(false);
    expect(byLogin('f3c1a2b4-0000-4000-8000-000000000000')).toBe(true);
    expect(quotaOf(headers)?.byLogin).toBeUndefined();
  });

  it('is read where something is missing, and is none where nothing is said', () => {
    expect(quotaOf({ 'ratelimit-remaining': '0' })).toMatchObject({ remaining: 0, limit: undefined });
    expect(quotaOf({ 'ratelimit-remaining': ' 5 ; w=60 ' })).toMatchObject({
      remaining: 5,
      windowMs: 60_000,
    });
    expect(quotaOf({ 'ratelimit-remaining': '5, 5;w=60' })).toMatchObject({
      remaining: 5,
      windowMs: undefined,
    });
    for (const text of ['', 'many', '-1', 'w=60', 'NaN;w=60']) {
      expect(quotaOf({ 'ratelimit-remaining': text })).toBeUndefined();
    }
    expect(quotaOf({ 'ratelimit-limit': '100;w=21600' })).toBeUndefined();
  });
});

describe('how long a refusal is meant', () => {
  const refusal = (status: number, headers: Readonly<Record<string, string>>) =>
    refusalOf({ status, headers }, now);

  it('is what Retry-After says, in seconds, as a date, or as a point in time', () => {
    for (const text of ['7200', 'Thu, 01 Jan 2026 02:00:00 GMT', String(now / 1000 + 7200)]) {
      expect(refusal(429, { 'retry-after': text })).toMatchObject({
        waitMs: 2 * HOUR,
        until: now + 2 * HOUR,
      });
    }
    expect(refusal(503, { 'retry-after': '-3' })).toMatchObject({ waitMs: 0, until: now });
  });

  it('[1.3-retry-after] is the window of the limit where a 429 says nothing else, asked for a few times until then', () => {
    const headers = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '0;w=21600' };
    expect(refusal(429, headers)).toEqual({ waitMs: HOUR / 4, until: now + 6 * HOUR, boundMs: 6 * HOUR });
    expect(refusal(429, { 'ratelimit-limit': '10;w=60' })).toMatchObject({
      waitMs: 60_000,
      until: now + 60_000,
    });
    expect(refusal(503, headers)).toBeUndefined();
    expect(refusal(429, { ...headers, 'retry-after': '60' })).toMatchObject({ waitMs: 60_000 });
  });

  it('has a bound: the window, but no more than a day', () => {
    expect(refusal(429, { 'ratelimit-limit': '1;w=43200' })?.boundMs).toBe(12 * HOUR);
    expect(refusal(429, { 'ratelimit-limit': '1;w=999999999' })?.boundMs).toBe(24 * HOUR);
    expect(refusal(429, { 'retry-after': '1' })?.boundMs).toBe(6 * HOUR);
    expect(refusal(503, { 'retry-after': '1' })?.boundMs).toBe(HOUR / 4);
  });

  it('is not known where nothing is stated', () => {
    expect(refusal(429, {})).toBeUndefined();
    for (const text of ['soon', '1e999', 'NaN'])
      expect(refusal(503, { 'retry-after': text })).toBeUndefined();
  });
});
