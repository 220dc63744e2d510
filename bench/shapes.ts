/** Heads of a benchmark: batch is 1. */
export interface HeadShape {
  heads: number;
  keyValueHeads: number;
  headDim: number;
}

/** Query, key and value as values, in the order `[heads, length, headDim]`. */
export interface Values {
  query: Float32Array;
  key: Float32Array;
  value: Float32Array;
}

/** `8x64`, or `32/8x128` with grouped heads. */
export function shapeName({heads, keyValueHeads, headDim}: HeadShape): string {
  return `${heads}${keyValueHeads === heads ? '' : `/${keyValueHeads}`}x${headDim}`;
}

export function parseShape(text: string): HeadShape | undefined {
  const match = /^(\d+)(?:\/(\d+))?x(\d+)$/.exec(text);
  if (!match) return undefined;
  const heads = Number(match[1]);
  const keyValueHeads = Number(match[2] ?? heads);
  const headDim = Number(match[3]);
  const fits = heads > 0 && keyValueHeads > 0 && headDim > 0 && heads % keyValueHeads === 0;
  return fits ? {heads, keyValueHeads, headDim} : undefined;
}

/** Multiply-adds count as two; the causal half alone. */
export function causalFlops({heads, headDim}: HeadShape, length: number): number {
  return 4 * heads * headDim * (length * (length + 1)) * 0.5;
}

/** Bytes of float32 in a tensor of the query's shape. */
export function queryBytes({heads, headDim}: HeadShape, length: number): number {
  return 4 * heads * headDim * length;
}

/** Bytes of float32 in the score matrix that composed attention makes. */
export function scoreBytes({heads}: HeadShape, length: number): number {
  return 4 * heads * length * length;
}
