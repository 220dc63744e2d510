import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {firstVisibleBlock, visibleBlocks} from '../../../attention/block_geometry.js';
import type {Take} from '../../../attention/scratch.js';
import {sumColumns} from '../glsl/tiles.js';
import type {TensorTexture} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {newTensor, withTexture} from '../runtime/tensor_rows.js';
import type {WebGLCall, WebGLPlan} from '../webgl_call.js';
import type {RunningSums} from './attend_passes.js';
import {AttendScoresProgram, AttendStatisticsProgram, AttendValuesProgram} from './attend_passes.js';
import type {AttendWalk} from './attend_walk.js';
import {fewRows, groupsPerBlock, partsOf} from './attend_walk.js';
import type {WalkCut} from './each_walk.js';
import {forEachWalk} from './each_walk.js';
import {StoreLogSumExpProgram} from './store_log_sum_exp.js';
import {StoreAttentionProgram} from './store_attention.js';

/**
 * Stage 4, attend: float32 tensor `[batch, heads, queryLength, valueDim]`. Softmax attention of each query row over the keys
 * of the blocks in its list, or, without a plan, over all keys: exact attention. With a causal mask a row sees the keys
 * whose original index is not above its own position; a row that sees nothing gives zeros.
 *
 * Fragments share no memory, so that what one learns of a score is lost to the others unless it is drawn. Hence an online
 * softmax by rounds: all groups of four query rows together take their next few key blocks, draw the scores (each once),
 * then the new maximum and sum of each row, then the new weighted sums of values. The scores of a round are all that is
 * kept of them.
 *
 * Keys and values of a plan with one block of queries, which is one of decoding, can be read from their tensors, where it
 * keeps blocks and nowhere else; of other plans every block can be kept by some row.
 *
 * A group takes part in its first rounds and in none after, so the last round in which it took part says in which of two
 * textures, drawn in turns, its sums stand; nothing is copied for groups that are done.
 */
export function attend(call: WebGLCall, plan?: WebGLPlan): TensorInfo {
  const {context, tensors, geometry} = call;
  const {headDim, valueDim} = geometry;
  const kept = plan?.kept;
  if (!kept) {
    return plan ? attendTo(call, {plan, key: call.key, value: call.value}) : attendExactly(call);
  }
  const valueColumns = sumColumns(valueDim, context.drawBuffers);
  return withTexture(context, tensors.key, (key) =>
    withTexture(context, tensors.value!, (value) =>
      attendTo(call, {
        plan,
        key: {tensor: key, rowSize: headDim, columns: headDim, kept},
        value: {tensor: value, rowSize: valueDim, columns: valueColumns, kept},
      }),
    ),
  );
}

/** Exact attention with the natural logarithm of each row's sum of exp(score), float32 `[batch, heads, queryLength]`. */
export function attendWithLogSumExp(call: WebGLCall): TensorInfo[] {
  const {context, geometry} = call;
  const {batch, heads, queryLength} = geometry;
  const output: TensorInfo[] = [];
  const logSums = newTensor(context, {shape: [batch, heads, queryLength], dtype: 'float32'}, (target) => {
    output.push(attendExactly(call, target));
  });
  return [...output, logSums];
}

/** @param logSums to be drawn besides. */
const attendExactly = (call: WebGLCall, logSums?: TensorTexture): TensorInfo =>
  attendTo(call, {key: call.key, value: call.value, ...packedRows(call)}, logSums);

interface AttendedRows extends Pick<WalkCut, 'plan' | 'key' | 'value' | 'geometry'> {
  /** See `AttendWalk`. */
  rowsOfHead?: number;
}

/**
 * The few rows of all heads that read the same keys as those of one head, so that each key is read once: in memory they follow each other. Not
 * where heads have slopes, sinks or masks of their own.
 */
function packedRows({geometry, tensors}: WebGLCall): {geometry: BlockGeometry; rowsOfHead: number} | undefined {
  const {heads, keyValueHeads, queryLength} = geometry;
  const rows = (queryLength * heads) / keyValueHeads;
  if (heads === keyValueHeads || rows > fewRows || tensors.alibiSlopes || tensors.sinks || tensors.mask) {
    return undefined;
  }
  return {
    geometry: {...geometry, heads: keyValueHeads, queryLength: rows, blockSize: rows, queryBlocks: 1},
    rowsOfHead: queryLength,
  };
}

/** @param logSums to be drawn besides. */
function attendTo(call: WebGLCall, {rowsOfHead, ...rows}: AttendedRows, logSums?: TensorTexture): TensorInfo {
  const {context, geometry} = call;
  const {batch, heads, queryLength, valueDim} = geometry;
  return newTensor(context, {shape: [batch, heads, queryLength, valueDim], dtype: 'float32'}, (target) => {
    forEachWalk(call, {...rows, textures: 1, dim: valueDim}, (wholeWalk, scratch) => {
      const walk = {...wholeWalk, parts: partsOf(wholeWalk), rowsOfHead};
      const sums = attendGroups(walk, scratch);
      new StoreAttentionProgram(walk, sums).drawTensor(context, target);
      if (logSums) {
        new StoreLogSumExpProgram(walk, sums).drawTensor(context, logSums);
      }
    });
  });
}

/**
 * Runs the rounds; gives both textures of sums, the first of which holds those of the first, third, … round. Without values
 * there are statistics alone.
 */
export function attendGroups(walk: AttendWalk, scratch: Take<RowTexture>): RunningSums[] {
  const {call, slotsPerRound, parts} = walk;
  const {context} = call;
  const slots = mostSlots(walk);
  const sums: RunningSums[] = [];
  let scores: RowTexture | undefined;
  for (let round = 0; round * slotsPerRound < slots; ++round) {
    const firstSlot = round * slotsPerRound;
    const [first, end] = groupsThatReach(walk, firstSlot);
    const partRows = [first * parts, end * parts] as const;
    const before = sums[(round + 1) % 2] as RunningSums | undefined;
    const drawn = sums[round % 2] as RunningSums | undefined;
    scores = new AttendScoresProgram(walk, firstSlot).drawInto(context, scores, scratch, first, end);
    const statisticsPass = new AttendStatisticsProgram(walk, firstSlot, scores, before?.statistics);
    const statistics = statisticsPass.drawInto(context, drawn?.statistics, scratch, ...partRows);
    const valuesPass = walk.values && new AttendValuesProgram(walk, firstSlot, scores, statistics, before);
    const values = valuesPass?.drawInto(context, drawn?.values, scratch, ...partRows);
    sums[round % 2] = {statistics, values};
    // What a round draws is enough for one piece of work on the GPU.
    context.gl.flush();
  }
  return sums;
}

/** Slots of a query block at the most: without a window the last block of the range has most. */
function mostSlots(walk: AttendWalk): number {
  const {call, firstGroup, endGroup} = walk;
  const geometry = ofOneHead(walk);
  const last = blockOf(walk, endGroup - 1);
  const first = geometry.window === undefined ? last : blockOf(walk, firstGroup);
  // Every group has sums, those of no key where it sees none.
  let most = 1;
  for (let block = first; block <= last; ++block) {
    most = Math.max(most, visibleBlocks(geometry, call.causal, block) - firstVisibleBlock(geometry, block));
  }
  return most;
}

/** The geometry as it says which rows see which blocks. */
const ofOneHead = ({geometry, rowsOfHead}: AttendWalk): BlockGeometry =>
  rowsOfHead === undefined ? geometry : {...geometry, queryLength: rowsOfHead};

const blockOf = ({geometry, heads}: AttendWalk, group: number) =>
  Math.floor(group / (groupsPerBlock(geometry) * heads));

/**
 * Groups `[first, end)`, counted from the first of the range, past those whose query block sees none of the slots from `slot`
 * on.
 */
function groupsThatReach(walk: AttendWalk, slot: number): [number, number] {
  const {call, heads, firstGroup, endGroup} = walk;
  const geometry = ofOneHead(walk);
  let block = blockOf(walk, firstGroup);
  if (geometry.window !== undefined) {
    // All: those that have no more slots draw nothing.
    return [0, endGroup - firstGroup];
  }
  while (visibleBlocks(geometry, call.causal, block) <= slot) {
    ++block;
  }
  const reaching = block * groupsPerBlock(walk.geometry) * heads;
  return [Math.max(reaching - firstGroup, 0), endGroup - firstGroup];
}
