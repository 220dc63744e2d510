import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, workgroupIndex, workgroupReduce} from '../../../src/internal';
import type {LayerInputs} from './layer_inputs';
import {rotatedRow} from './rotated_row';

const THREADS = 256;
/** Workgroups that share the keys of a head: fixed, so that a recorded step fits every length. */
export const CHUNKS = 16;
/** Keys of a chunk at the least: with fewer keys some chunks have none. */
const LEAST_KEYS = 64;

interface AttendVariant {
  headDim: number;
  hasNorm: boolean;
}

/**
 * Attention of a new token to the keys of a chunk of a cache (see `StoreRowsProgram`), its own among them: states of the softmax,
 * float32 `[heads, CHUNKS, 4 + headDim]`: largest score in units of log2, sum of weights, two unused, sum of weighted values.
 */
export class AttendTokenProgram extends AttentionProgram<AttendVariant> {
  constructor({projected, position, rotary, norm, shape}: LayerInputs, cache: TensorInfo) {
    const {heads, headDim} = shape;
    super({
      name: 'AttendToken',
      inputs: {
        projected,
        position,
        cos: rotary.cos,
        signedSin: rotary.signedSin,
        norm: norm?.weight,
        cache: {tensor: cache, components: 4},
      },
      outputShape: [heads, CHUNKS, 4 + headDim],
      outputComponents: 4,
      threads: THREADS,
      workgroups: heads * CHUNKS,
      uniforms: {
        logitScale: {type: 'f32', value: Math.LOG2E / Math.sqrt(headDim)},
        epsilon: {type: 'f32', value: norm?.epsilon ?? 0},
      },
      variant: {headDim, hasNorm: norm !== undefined},
    });
  }

  protected shader({headDim, hasNorm}: AttendVariant): string {
    /** Vectors of four words, that is eight values, of a row. */
    const vectors = headDim / 8;
    /** Invocations that add up values of the same eight columns, each over keys of its own: a power of two. */
    const slices = 2 ** Math.floor(Math.log2(THREADS / vectors));
    return `
// A workgroup takes a chunk of the keys for one head and walks over it, ${THREADS} keys a round, with an online softmax. First an invocation
// computes the score of a key, in a register; its weight goes to workgroup memory. Then it adds up eight columns of the values over
// every ${slices}th key, in registers; these sums are added up at the end.
${workgroupIndex}
${workgroupReduce(THREADS)}
${rotatedRow(headDim, hasNorm)}
var<workgroup> query : array<vec4<f32>, ${headDim / 4}>;
var<workgroup> weights : array<f32, ${THREADS}>;
var<workgroup> sums : array<array<vec4<f32>, 2>, ${slices * vectors}>;
var<workgroup> isEmpty : u32;
const lowest = -1e38;

fn unpacked(words : vec2<i32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(bitcast<u32>(words.x)), unpack2x16float(bitcast<u32>(words.y)));
}

fn main(index : i32) {
  let local = i32(localIndex);
  let heads = uniforms.outShape.x;
  // A workgroup too many computes the last one again.
  let item = min(workgroupIndex(), heads * ${CHUNKS} - 1);
  let head = item / ${CHUNKS};
  let keyHeads = uniforms.cacheShape.y;
  let keyHead = head / (heads / keyHeads);
  let capacity = uniforms.cacheShape.z;
  let keys = position[0] + 1;
  let chunk = max(${LEAST_KEYS}, (keys + ${CHUNKS - 1}) / ${CHUNKS});
  let first = (item % ${CHUNKS}) * chunk;
  let end = min(keys, first + chunk);
  let at = item * ${1 + headDim / 4};
  if (local == 0) {
    isEmpty = select(0u, 1u, first >= keys);
  }
  if (workgroupUniformLoad(&isEmpty) == 1u) {
    // Weightless: what the values are does not matter.
    if (local == 0) {
      result[at] = vec4<f32>(lowest, 0.0, 0.0, 0.0);
    }
    return;
  }
  if (local < ${headDim / 4}) {
    let scale = rowScale(head);
    for (var i = 0; i < 4; i++) {
      query[local][i] = rotated(head, 4 * local + i, scale) * uniforms.logitScale;
    }
  }
  let vector = local % ${vectors};
  let slice = local / ${vectors};
  var rowMax = lowest;
  var rowSum = 0.0;
  var output = array<vec4<f32>, 2>();
  // Barrier: all read the query.
  workgroupBarrier();
  // As many rounds for every chunk, which the barriers need: the last chunk may have fewer keys.
  for (var round = 0; round * ${THREADS} < chunk; round++) {
    let start = first + round * ${THREADS};
    let key = start + local;
    var score = lowest;
    if (key < end) {
      score = 0.0;
      let row = (keyHead * capacity + key) * ${vectors};
      for (var v = 0; v < ${vectors}; v++) {
        let words = cache[row + v];
        score += dot(query[2 * v], unpacked(words.xy)) + dot(query[2 * v + 1], unpacked(words.zw));
      }
    }
    // Its barriers also keep the weights of the round before until everybody has read them.
    let newMax = workgroupMax(max(score, rowMax));
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    let weight = select(0.0, exp2(score - newMax), key < end);
    rowSum = rowSum * rescale + weight;
    weights[local] = weight;
    // Barrier: the values take weights that others wrote.
    workgroupBarrier();
    output[0] *= rescale;
    output[1] *= rescale;
    if (slice < ${slices}) {
      let count = min(${THREADS}, end - start);
      for (var i = slice; i < count; i += ${slices}) {
        let words = cache[((keyHeads + keyHead) * capacity + start + i) * ${vectors} + vector];
        output[0] += weights[i] * unpacked(words.xy);
        output[1] += weights[i] * unpacked(words.zw);
      }
    }
  }
  let total = workgroupSum(rowSum);
  if (slice < ${slices}) {
    sums[local] = output;
  }
  for (var stride = ${slices / 2}; stride > 0; stride /= 2) {
    // Barrier: the sums to add are written by other invocations.
    workgroupBarrier();
    if (slice < stride) {
      sums[local][0] += sums[local + stride * ${vectors}][0];
      sums[local][1] += sums[local + stride * ${vectors}][1];
    }
  }
  // No barrier: an invocation writes out what it added up itself.
  if (local == 0) {
    result[at] = vec4<f32>(rowMax, total, 0.0, 0.0);
  }
  if (slice == 0) {
    result[at + 1 + 2 * vector] = sums[local][0];
    result[at + 2 + 2 * vector] = sums[local][1];
  }
}`;
  }
}

/** The output of states, float32 `[1, heads * headDim]`. */
export class MergeChunksProgram extends AttentionProgram<{headDim: number}> {
  constructor(states: TensorInfo) {
    const [heads, , size] = states.shape;
    const headDim = size - 4;
    super({
      name: 'MergeChunks',
      inputs: {states},
      outputShape: [1, heads * headDim],
      threads: 64,
      workgroups: Math.ceil((heads * headDim) / 64),
      variant: {headDim},
    });
  }

  protected shader({headDim}: {headDim: number}): string {
    return `
// An invocation computes one value: the sums of the chunks, each brought to the largest maximum.
${workgroupIndex}
fn main(index : i32) {
  let item = workgroupIndex() * 64 + i32(localIndex);
  if (item >= uniforms.outShape.y) {
    return;
  }
  let first = (item / ${headDim}) * ${CHUNKS * (4 + headDim)};
  var rowMax = states[first];
  for (var chunk = 1; chunk < ${CHUNKS}; chunk++) {
    rowMax = max(rowMax, states[first + chunk * ${4 + headDim}]);
  }
  var sum = 0.0;
  var output = 0.0;
  for (var chunk = 0; chunk < ${CHUNKS}; chunk++) {
    let at = first + chunk * ${4 + headDim};
    let scale = exp2(states[at] - rowMax);
    sum = fma(states[at + 1], scale, sum);
    // A chunk without keys has written no values.
    if (scale > 0.0) {
      output = fma(states[at + 4 + item % ${headDim}], scale, output);
    }
  }
  result[item] = output / sum;
}`;
  }
}
