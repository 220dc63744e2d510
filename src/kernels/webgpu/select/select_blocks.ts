import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {PlanRule} from '../../../attention/attention_call.js';
import {leastScoreScale} from '../../../attention/sampled_estimate.js';
import {evenWork} from '../runtime/launches.js';
import {AttentionProgram, f32} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import type {GridVariant} from '../wgsl/block_grid.js';
import {findSinkBlock, gridFunctions, gridVariant} from '../wgsl/block_grid.js';
import {localOf, workgroupIndex} from '../wgsl/rows.js';
import {countUpTo, listThreads, writeList} from './block_lists.js';

/**
 * Stage 3, select blocks (paper section 3.3): block lists, int32 `[batch, heads, queryBlocks, keyBlocks + 1]` (the form is
 * described in `block_geometry.ts`).
 *
 * By the sampled estimate a query block keeps the key blocks whose score reaches `leastScore`; by the pooled one (the paper)
 * the shortest prefix of its key blocks, by descending score, whose scores add up to the threshold. It always keeps the blocks
 * of its own segment (under a causal mask; of every segment that its rows stand in) and the block that holds original key 0,
 * the attention sink. Nothing before the window is kept.
 */
export function selectBlocks(
  call: WebGPUCall,
  rule: SelectionRule,
  scores: TensorInfo,
  keyIndices: TensorInfo,
): TensorInfo {
  return new SelectBlocksProgram(call, rule, scores, keyIndices).run(call.backend);
}

type SelectionRule = Pick<PlanRule, 'threshold' | 'estimate'>;
type SelectVariant = GridVariant & Pick<PlanRule, 'estimate'>;

export class SelectBlocksProgram extends AttentionProgram<SelectVariant> {
  constructor(call: WebGPUCall, {threshold, estimate}: SelectionRule, scores: TensorInfo, keyIndices: TensorInfo) {
    const {batch, heads, queryBlocks, keyBlocks} = call.geometry;
    super({
      name: 'SelectBlocks',
      inputs: {scores, keyIndices},
      outputShape: [batch, heads, queryBlocks, keyBlocks + 1],
      outputType: 'int32',
      threads: listThreads,
      workgroups: batch * heads * queryBlocks,
      call,
      work: evenWork(call.planTimes?.select),
      uniforms: {leastScoreScale: f32(leastScoreScale(threshold)), threshold: f32(threshold)},
      variant: {...gridVariant(call), estimate},
    });
  }

  protected shader({estimate, ...grid}: SelectVariant): string {
    const sampled = estimate === 'sampled';
    return `
// A workgroup writes the list of one query block; an invocation decides on every 128th key block. The kept blocks of a round
// find their places in the list by a prefix sum over the invocations.${sampled ? '' : prefixComment}
${workgroupIndex}
const threads = ${listThreads};${sampled ? '' : '\nvar<workgroup> scoreTile : array<f32, threads>;'}
var<workgroup> sinkBlock : i32;
// Key blocks that compete for the query block, and key blocks that it may see: [0, x) and [0, y).
var<workgroup> blockCounts : vec2<i32>;
${gridFunctions(grid)}${sampled ? '' : scoresBefore}
${countUpTo}
fn main(index : i32) {
  ${localOf(listThreads)}
  let blocks = uniforms.keyBlocks;
  let row = workgroupIndex();
  let queryBlock = row % uniforms.queryBlocks;
  let head = row / uniforms.queryBlocks;
  let exists = head < uniforms.batch * uniforms.heads;
  if (local == 0) {
    blockCounts = select(vec2<i32>(0), vec2<i32>(scoredBlocks(queryBlock), visibleBlocks(queryBlock)), exists);
  }${findSinkBlock('exists')}
  // The loops hold barriers, so all invocations must agree on their length: hence the uniform load, which is also the
  // barrier between writing and reading the sink block.
  let counted = workgroupUniformLoad(&blockCounts);
  let candidates = counted.x;
  let end = counted.y;${grid.window ? '\n  let first = firstBlock(queryBlock);' : ''}${
    sampled
      ? `
  let leastScore = uniforms.leastScoreScale / sqrt(f32(${leastKeys(grid)}));`
      : ''
  }

  ${writeList(
    'end',
    `var score = 0.0;
    if (i < candidates) {
      score = scores[row * blocks + i];
    }
    // Written so that a NaN keeps the block.
    ${
      sampled
        ? 'let chosen = i < candidates && !(score < leastScore);'
        : `let before = scoresBefore(row, candidates, i, score);
    let chosen = i < candidates && !(before >= uniforms.threshold);`
    }
    let keep = ${grid.window ? 'i >= first && ' : ''}i < end && (chosen || ${grid.window ? '(i == sinkBlock && seesFirstKey(queryBlock))' : 'i == sinkBlock'} || i >= candidates);`,
  )}
}`;
  }
}

/** Expression: keys that count for the least score. */
const leastKeys = ({causal, window}: GridVariant) => {
  const candidates = window ? '(candidates - first)' : 'candidates';
  return causal || window ? `${candidates} * uniforms.keyBlockSize + uniforms.segmentSize` : 'uniforms.keyLength';
};

const prefixComment = `
//
// A key block belongs to the shortest prefix that reaches the threshold if the blocks before it, in descending order of
// score, do not reach it yet. So nothing is sorted: each invocation adds up the scores that come before its own block,
// which pass through workgroup memory in tiles.`;

const scoresBefore = `

// Sum of the scores that come before the score of block own in row, equal scores by index.
fn scoresBefore(row : i32, candidates : i32, own : i32, score : f32) -> f32 {
  var before = 0.0;
  for (var base = 0; base < candidates; base += threads) {
    let i = base + i32(localIndex);
    if (i < candidates) {
      scoreTile[localIndex] = scores[row * uniforms.keyBlocks + i];
    }
    // Barrier: every invocation reads the scores that all have loaded.
    workgroupBarrier();
    for (var j = 0; j < min(threads, candidates - base); j++) {
      let other = scoreTile[j];
      before += select(0.0, other, other > score || (other == score && base + j < own));
    }
    // Barrier: the next round overwrites the scores.
    workgroupBarrier();
  }
  return before;
}`;
