/** Shader text: key blocks before `firstBlock(queryBlock)` lie outside of the window of all its rows. */
export const firstBlock = `
int firstBlock(int queryBlock) {
  int firstKey = max(0, queryOffset + queryBlock * blockSize - window + 1);
  return min(firstKey / segmentSize * segmentSize / keyBlockSize, keyBlocks);
}`;

/** Shader text: key blocks `[0, candidates)` compete for a query block. */
export function candidateBlocks(causal: boolean): string {
  const count = causal
    ? '(queryOffset + queryBlock * blockSize) / segmentSize * segmentSize / keyBlockSize'
    : 'keyBlocks';
  return `
int candidateBlocks(int queryBlock) {
  return ${count};
}`;
}

/** Shader text: key blocks `[0, visibleBlocks)` can hold a key that a row of a query block may see. */
export function visibleBlocks(causal: boolean): string {
  return `
int visibleBlocks(int queryBlock) {
  ${
    causal
      ? `int lastRow = min((queryBlock + 1) * blockSize, queryLength) - 1;
  return min(((queryOffset + lastRow) / segmentSize + 1) * segmentSize / keyBlockSize, keyBlocks);`
      : 'return keyBlocks;'
  }
}`;
}
