/** containerd's rule for identifiers: at most 76 characters (containerd pkg/identifiers). */
const NAMESPACE = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const NAMESPACE_LIMIT = 76;

/** True for a name that containerd accepts for a namespace. */
export function isNamespace(text: string): boolean {
  return text.length <= NAMESPACE_LIMIT && NAMESPACE.test(text);
}
