import type {Uniforms} from '../runtime/program_spec.js';
import {i32} from '../runtime/program.js';
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

export function gridUniforms(call: WebGPUCall): Uniforms {
  const {blockSize, keyBlockSize, segmentSize, queryLength, queryOffset, keyBlocks} = call.geometry;
  const {causal, offset} = gridVariant(call);
  return {
    blockSize: i32(blockSize),
    keyBlockSize: i32(keyBlockSize),
    blocksPerSegment: i32(segmentSize / keyBlockSize),
    keyBlocks: i32(keyBlocks),
    ...(causal && {queryLength: i32(queryLength)}),
    ...(offset && {queryOffset: i32(queryOffset)}),
  };
}

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
  return position / (uniforms.blocksPerSegment * uniforms.keyBlockSize) * uniforms.blocksPerSegment;
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return blocksBefore(queryBlock * uniforms.blockSize);
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let lastRow = min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1;
  return min(blocksBefore(lastRow) + uniforms.blocksPerSegment, uniforms.keyBlocks);
}`;
}

/**
 * Shader text: writes the block that holds original key 0 of a head to `sinkBlock`. Reads `local`, `threads`, `head` and the uniforms of `gridUniforms`.
 *
 * @param keyLength expression: keys of a head.
 * @param exists expression: whether there is such a head.
 */
export const findSinkBlock = (keyLength: string, exists: string): string => `
  // Original key 0 stays in the first segment: the one invocation that meets it says in which block.
  let firstSegment = min(uniforms.blocksPerSegment * uniforms.keyBlockSize, ${keyLength});
  for (var i = local; i < firstSegment && ${exists}; i += threads) {
    if (keyIndices[head * ${keyLength} + i] == 0) {
      sinkBlock = i / uniforms.keyBlockSize;
    }
  }`;
