import {evenWork} from '../runtime/launches.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {positionOf} from './position_hooks.js';

/** What the text of the functions of this file depends on. */
export interface GridVariant {
  causal: boolean;
  /** Whether the first query row stands elsewhere than at the first key. */
  offset: boolean;
  /** Whether there is a window. */
  window?: true;
}

export const gridVariant = ({geometry, causal}: WebGPUCall): GridVariant => ({
  causal,
  offset: causal && geometry.queryOffset !== 0,
  ...(geometry.window !== undefined && {window: true}),
});

/** What it takes to score pairs of blocks. Under a causal mask the last rows of each head have twice as many as rows on average. */
export const scoringWork = ({planTimes, causal}: WebGPUCall) =>
  evenWork(planTimes && planTimes.score * (causal ? 2 : 1));

/** Shader text: `scoredBlocks` and `visibleBlocks` of `block_geometry.ts`, and with a window `firstBlock`, its `firstVisibleBlock`. */
export function gridFunctions({causal, offset, window}: GridVariant): string {
  if (window) {
    return windowedGrid(causal);
  }
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

const windowedGrid = (causal: boolean): string => `
// Key blocks before the segment in which a position lies.
fn blocksBefore(position : i32) -> i32 {
  return position / uniforms.segmentSize * (uniforms.segmentSize / uniforms.keyBlockSize);
}
fn firstBlock(queryBlock : i32) -> i32 {
  let firstKey = ${positionOf('queryBlock * uniforms.blockSize')} - uniforms.window + 1;
  return min(blocksBefore(max(0, firstKey)), uniforms.keyBlocks);
}
// Whether key 0 is in the window of the first row.
fn seesFirstKey(queryBlock : i32) -> bool {
  return ${positionOf('queryBlock * uniforms.blockSize')} < uniforms.window;
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let lastRow = min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1;
  let lastKey = ${positionOf('lastRow')}${causal ? '' : ' + uniforms.window - 1'};
  return min(blocksBefore(lastKey) + uniforms.segmentSize / uniforms.keyBlockSize, uniforms.keyBlocks);
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return ${causal ? `blocksBefore(${positionOf('queryBlock * uniforms.blockSize')})` : 'visibleBlocks(queryBlock)'};
}`;

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
