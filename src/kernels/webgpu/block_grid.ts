import type {BlockGrid} from '../block_geometry.js';
import type {ProgramSpec} from './program.js';

/** What the text of the functions of this file depends on. */
export interface GridVariant {
  causal: boolean;
  /** Whether the first query row stands elsewhere than at the first key, so that a query block may lie in two segments. */
  offset: boolean;
}

export const gridVariant = ({queryOffset}: BlockGrid, causal: boolean): GridVariant => ({
  causal,
  offset: causal && queryOffset !== 0,
});

export function gridUniforms(
  {blockSize, segmentSize, queryLength, queryOffset}: BlockGrid,
  {offset}: GridVariant,
): ProgramSpec<never>['uniforms'] {
  return {
    blockSize: {type: 'i32', value: blockSize},
    blocksPerSegment: {type: 'i32', value: segmentSize / blockSize},
    ...(offset && {
      queryLength: {type: 'i32', value: queryLength},
      queryOffset: {type: 'i32', value: queryOffset},
    }),
  };
}

const segmentOf = (row: string) => `(uniforms.queryOffset + ${row}) / (uniforms.blocksPerSegment * uniforms.blockSize)`;

/** An expression: `scoredBlocks` of `block_geometry.ts` for the block in the variable `queryBlock`. */
export function scoredBlocks({causal, offset}: GridVariant, keyBlocks: string): string {
  if (!causal) {
    return keyBlocks;
  }
  const segment = offset ? segmentOf('queryBlock * uniforms.blockSize') : 'queryBlock / uniforms.blocksPerSegment';
  return `(${segment}) * uniforms.blocksPerSegment`;
}

/** The same of `visibleBlocks`; `scored` is the variable that holds the scored blocks. */
export function visibleBlocks({causal, offset}: GridVariant, keyBlocks: string, scored: string): string {
  if (!causal) {
    return keyBlocks;
  }
  const lastRow = 'min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1';
  const ownSegments = offset ? `(${segmentOf(lastRow)}) * uniforms.blocksPerSegment` : scored;
  return `min(${ownSegments} + uniforms.blocksPerSegment, ${keyBlocks})`;
}

/** Shader text: both as functions of a query block. Reads `uniforms.keyBlocks`. */
export const gridFunctions = (grid: GridVariant): string => `
fn scoredBlocks(queryBlock : i32) -> i32 {
  return ${scoredBlocks(grid, 'uniforms.keyBlocks')};
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let scored = scoredBlocks(queryBlock);
  return ${visibleBlocks(grid, 'uniforms.keyBlocks', 'scored')};
}`;
