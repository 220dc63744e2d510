import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {Uniforms} from '../runtime/program.js';

/** Shader text: key blocks `[0, candidates)` compete for a query block. Needs the uniforms of `candidateUniforms`. */
export function candidateBlocks(causal: boolean): string {
  const count = causal ? '(queryOffset + queryBlock * blockSize) / segmentSize * blocksPerSegment' : 'blocks';
  return `
int candidateBlocks(int queryBlock) {
  return ${count};
}`;
}

/** Shader text: key blocks `[0, visibleBlocks)` can hold a key that a row of a query block may see. Same uniforms. */
export function visibleBlocks(causal: boolean): string {
  return `
int visibleBlocks(int queryBlock) {
  ${
    causal
      ? `int lastRow = min((queryBlock + 1) * blockSize, queryLength) - 1;
  return min(((queryOffset + lastRow) / segmentSize + 1) * blocksPerSegment, blocks);`
      : 'return blocks;'
  }
}`;
}

export function candidateUniforms(geometry: BlockGeometry, causal: boolean): Uniforms {
  const {keyBlocks, queryBlocks, queryLength, queryOffset, segmentSize, blockSize, keyBlockSize} = geometry;
  return {
    blocks: keyBlocks,
    queryBlocks,
    ...(causal && {queryLength, queryOffset, blockSize, segmentSize, blocksPerSegment: segmentSize / keyBlockSize}),
  };
}
