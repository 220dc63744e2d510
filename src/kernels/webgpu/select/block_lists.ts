import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {localOf, workgroupIndex} from '../wgsl/rows.js';

/** Invocations of a workgroup that writes a list. */
export const listThreads = 128;

/**
 * A dense mask, bool `[batch, heads, queryBlocks, keyBlocks]`, as block lists (the form is described in
 * `block_geometry.ts`): the inverse of `blockMask`.
 */
export function blockLists({backend}: WebGPUCall, blockMask: TensorInfo): TensorInfo {
  return new BlockListsProgram(blockMask).run(backend);
}

export class BlockListsProgram extends AttentionProgram<object> {
  constructor(blockMask: TensorInfo) {
    const [batch, heads, queryBlocks, keyBlocks] = blockMask.shape;
    super({
      name: 'BlockLists',
      inputs: {blockMask},
      outputShape: [batch, heads, queryBlocks, keyBlocks + 1],
      outputType: 'int32',
      threads: listThreads,
      workgroups: batch * heads * queryBlocks,
      variant: {},
    });
  }

  protected shader(): string {
    return `
// A workgroup writes the list of one query block, an invocation looks at every 128th key block. The kept blocks of a round
// find their places in the list by a prefix sum over the invocations.
${workgroupIndex}
const threads = ${listThreads};
${countUpTo}
fn main(index : i32) {
  ${localOf(listThreads)}
  let blocks = uniforms.blockMaskShape.w;
  let row = workgroupIndex();
  let exists = row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z;
  ${writeList(
    'blocks',
    `var keep = false;
    if (exists && i < blocks) {
      keep = blockMask[row * blocks + i] != 0;
    }`,
  )}
}`;
  }
}

/**
 * Statements: writes the list `row`, with the blocks `i` of [0, end) that `decide` (statements) keeps. All invocations of a
 * workgroup run them together. They need `local`, `blocks`, and `exists`: whether there is such a list.
 */
export const writeList = (end: string, decide: string): string => `var kept = 0;
  for (var base = 0; base < ${end}; base += threads) {
    let i = base + local;
    ${decide}
    let place = kept + countUpTo(keep);
    if (keep) {
      result[row * (blocks + 1) + place] = i;
    }
    kept += counts[threads - 1];
    // Barrier: the next round overwrites the counts.
    workgroupBarrier();
  }
  if (local == 0 && exists) {
    result[row * (blocks + 1)] = kept;
  }`;

/** Prefix sum over a workgroup of `threads` invocations, a constant of the shader; `counts` of the last one is the total. */
export const countUpTo = `
var<workgroup> counts : array<i32, threads>;

// Number of invocations up to this one, itself included, for which keep holds.
fn countUpTo(keep : bool) -> i32 {
  ${localOf(listThreads)}
  var count = select(0, 1, keep);
  counts[local] = count;
  for (var step = 1; step < threads; step *= 2) {
    // Barriers: read what others wrote in the round before; then let all read before anyone writes.
    workgroupBarrier();
    if (local >= step) {
      count += counts[local - step];
    }
    workgroupBarrier();
    counts[local] = count;
  }
  workgroupBarrier();
  return count;
}`;
