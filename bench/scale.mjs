export async function scale() {
  return true;
}
