import { BlockList, isIP } from 'node:net';

/** This machine, its networks, and what a provider gives inside his own (RFC 1122, 1918, 3927, 6598). */
const IPV4 = new BlockList();
for (const [net, bits] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
] as const) {
  IPV4.addSubnet(net, bits);
}
// A list of its own: Node finds every IPv4 address in a list that holds ::ffff:0:0/96.
const IPV6 = new BlockList();
for (const [net, bits] of [
  ['::', 127],
  // No public server is written as a mapped address.
  ['::ffff:0:0', 96],
  ['fc00::', 7],
  ['fe80::', 10],
] as const) {
  IPV6.addSubnet(net, bits, 'ipv6');
}

/**
 * True for addresses that only mean something in one's own network, and for `localhost`. Other names are not looked up.
 * @param hostname as in a URL, IPv6 with or without its brackets
 */
export function isPrivateAddress(hostname: string): boolean {
  if (/^(?:.+\.)?localhost\.?$/i.test(hostname)) return true;
  const address = hostname.replace(/^\[|\]$/g, '');
  const family = isIP(address);
  if (family === 6) return IPV6.check(address, 'ipv6');
  return family === 4 && IPV4.check(address, 'ipv4');
}
