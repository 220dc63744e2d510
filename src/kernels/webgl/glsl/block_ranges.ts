/** Shader text: key blocks before `firstVisibleBlock(queryBlock)` lie outside of the window of all its rows. */
export const firstBlock = `
int firstVisibleBlock(int queryBlock) {
  int firstKey = max(0, queryOffset + queryBlock * blockSize - window + 1);
  return min(firstKey / segmentSize * segmentSize / keyBlockSize, keyBlocks);
}`;

/** Shader text: whether key 0 is in the window of a query block's first row. */
export const seesFirstKey = `
bool seesFirstKey(int queryBlock) {
  return queryOffset + queryBlock * blockSize < window;
}`;

/** Expression: key blocks up to the last that the window of a row reaches, where it reaches behind the row. */
const endOfWindow =
  'min(((queryOffset + min((queryBlock + 1) * blockSize, queryLength) + window - 2) / segmentSize + 1) * segmentSize / keyBlockSize, keyBlocks)';

/** Shader text: key blocks `[0, candidates)` compete for a query block. */
export function candidateBlocks(causal: boolean, window?: true): string {
  const ofRows = '(queryOffset + queryBlock * blockSize) / segmentSize * segmentSize / keyBlockSize';
  const count = causal ? ofRows : window ? endOfWindow : 'keyBlocks';
  return `
int candidateBlocks(int queryBlock) {
  return ${count};
}`;
}

/** Shader text: key blocks `[0, visibleBlocks)` can hold a key that a row of a query block may see. */
export function visibleBlocks(causal: boolean, window?: true): string {
  return `
int visibleBlocks(int queryBlock) {
  ${
    causal
      ? `int lastRow = min((queryBlock + 1) * blockSize, queryLength) - 1;
  return min(((queryOffset + lastRow) / segmentSize + 1) * segmentSize / keyBlockSize, keyBlocks);`
      : window
        ? `return ${endOfWindow};`
        : 'return keyBlocks;'
  }
}`;
}
