import { describe, expect, it } from 'vitest';
import { isPrivateAddress } from '../../src/io/private-address.ts';

describe('an address', () => {
  it.each([
    '0.0.0.0',
    '10.1.2.3',
    '100.64.0.1',
    '100.127.255.255',
    '127.0.0.1',
    '169.254.169.254',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '::',
    '::1',
    '[::1]',
    '::ffff:10.0.0.1',
    '[::ffff:a00:1]',
    '::ffff:8.8.8.8',
    'fd00::1',
    '[fe80::1]',
    'localhost',
    'LOCALHOST',
    'localhost.',
    'db.localhost',
  ])('that only means something in the own network is private: %s', (address) => {
    expect(isPrivateAddress(address)).toBe(true);
  });

  it.each([
    '8.8.8.8',
    '11.0.0.1',
    '100.63.255.255',
    '100.128.0.1',
    '172.15.0.1',
    '172.32.0.1',
    '2001:db8::1',
    '[2001:db8::1]',
    '10.example.com',
    'localhost.example',
    'mylocalhost',
    '',
  ])('or a name of the outer world is not: %s', (address) => {
    expect(isPrivateAddress(address)).toBe(false);
  });
});
