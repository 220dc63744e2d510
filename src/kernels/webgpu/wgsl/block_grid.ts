import {evenWork} from '../runtime/launches.js';
import type {WebGPUCall} from '../webgpu_call.js';

/** What the text of the functions of this file depends on. */
export interface GridVariant {
  causal: boolean;
  /** Whether the first query row stands elsewhere than at the first key. */
  offset: boolean;
}

export const gridVariant = ({geometry, causal}: WebGPUCall): GridVariant => ({
  causal,
  offset: causal && geometry.queryOffset !== 0,
});

/** What it takes to score pairs of blocks. Under a causal mask the last rows of each head have twice as many as rows on average. */
export const scoringWork = ({planTimes, causal}: WebGPUCall) =>
  evenWork(planTimes && planTimes.score * (causal ? 2 : 1));

/** Shader text: `scoredBlocks` and `visibleBlocks` of `block_geometry.ts`. */
export function gridFunctions({causal, offset}: GridVariant): string {
  if (!causal) {
    return `
fn scoredBlocks(queryBlock : i32) -> i32 {
  return uniforms.keyBlocks;
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  return uniforms.keyBlocks;
}`;
  }
  return `
// Key blocks before the segment in which a query row stands.
fn blocksBefore(row : i32) -> i32 {
  let position = ${offset ? 'uniforms.queryOffset + row' : 'row'};
  return position / uniforms.segmentSize * (uniforms.segmentSize / uniforms.keyBlockSize);
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return blocksBefore(queryBlock * uniforms.blockSize);
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let lastRow = min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1;
  return min(blocksBefore(lastRow) + uniforms.segmentSize / uniforms.keyBlockSize, uniforms.keyBlocks);
}`;
}

/**
 * Shader text: writes the block that holds original key 0 of a head to `sinkBlock`. Reads `local`, `threads` and `head`.
 *
 * @param exists expression: whether there is such a head.
 */
export const findSinkBlock = (exists: string): string => `
  // Original key 0 stays in the first segment: the one invocation that meets it says in which block.
  let firstSegment = min(uniforms.segmentSize, uniforms.keyLength);
  for (var i = local; i < firstSegment && ${exists}; i += threads) {
    if (keyIndices[head * uniforms.keyLength + i] == 0) {
      sinkBlock = i / uniforms.keyBlockSize;
    }
  }`;
