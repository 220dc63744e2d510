/** Takes hold of something to free, and gives it back as it is. */
export type Take<Resource> = <R extends Resource>(resource: R) => R;

/**
 * Runs `body`, then frees everything that it handed to `scratch`; and, if it throws, also what it handed to `keep`, which
 * nobody else will get.
 */
export function runWithScratch<Resource, T>(
  free: (resource: Resource) => void,
  body: (scratch: Take<Resource>, keep: Take<Resource>) => T,
): T {
  const scratch: Resource[] = [];
  const kept: Resource[] = [];
  const take =
    (resources: Resource[]): Take<Resource> =>
    (resource) => {
      resources.push(resource);
      return resource;
    };
  try {
    return body(take(scratch), take(kept));
  } catch (error) {
    kept.forEach(free);
    throw error;
  } finally {
    scratch.forEach(free);
  }
}
