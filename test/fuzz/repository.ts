/** A file of this repository, by its path there; also in a bundle in build/gpu, which is as deep. */
export const fileOfRepository = (path: string): URL => new URL(`../../${path}`, import.meta.url);
