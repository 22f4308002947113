/** What to do about a bundle whose bytes are damaged or lack. */
export const COPY_AGAIN =
  'copy it again from where it was made, or ask for what is bad: `sealift verify BUNDLE --write-request repair.json`';

/** What to do about a volume that has another one's bytes. */
export const OWN_NUMBER = 'give each volume its own number again, or copy it once more';

/** What to do about something in a bundle that its lock does not imply. */
export const NOT_OURS =
  'a bundle holds exactly what its lock says: somebody changed this one, or it was not made by sealift; copy it again from where it was made';

/** What to do where the disk itself cannot read something. */
export const OTHER_DISK =
  'the disk itself may be damaged: copy the bundle to another one, or ask for what is bad: `sealift verify BUNDLE --write-request repair.json`';

/** What to do about a bundle on a server that is not whole. */
export const PUT_AGAIN = 'put the bundle there once more, from where it was made';
