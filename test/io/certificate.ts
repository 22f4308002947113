/** A certificate for 127.0.0.1 (and names) that signs itself, made when a test needs it, so that no key lies in the repository. */
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';

function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  const size = body.length;
  const length = size < 128 ? [size] : size < 256 ? [0x81, size] : [0x82, size >> 8, size & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}

const sequence = (...parts: readonly Buffer[]): Buffer => der(0x30, ...parts);
const oid = (hex: string): Buffer => der(0x06, Buffer.from(hex, 'hex'));
const time = (text: string): Buffer => der(0x17, Buffer.from(text, 'latin1'));

const ECDSA_SHA256 = sequence(oid('2a8648ce3d040302'));
const NAME = sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from('sealift test')))));

/** X.509 version 3 with the address and the DNS names as its subject alternative names (RFC 5280 4.1). */
function certificate(publicKey: KeyObject, privateKey: KeyObject, names: readonly string[]): Buffer {
  const dns = names.map((name) => der(0x82, Buffer.from(name, 'latin1')));
  const altName = sequence(der(0x87, Buffer.from([127, 0, 0, 1])), ...dns);
  const extensions = sequence(sequence(oid('551d11'), der(0x04, altName)));
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([1])),
    ECDSA_SHA256,
    NAME,
    sequence(time('200101000000Z'), time('491231235959Z')),
    NAME,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, extensions),
  );
  const signature = sign('sha256', body, privateKey);
  return sequence(body, ECDSA_SHA256, der(0x03, Buffer.from([0]), signature));
}

/** Key and certificate as PEM. @param names that it is also valid for */
export function selfSigned(...names: readonly string[]): { readonly key: string; readonly cert: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const lines = certificate(publicKey, privateKey, names)
    .toString('base64')
    .replace(/.{64}(?=.)/g, '$&\n');
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    cert: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
  };
}
