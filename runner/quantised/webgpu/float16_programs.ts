import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, localOf, workgroupIndex} from '../../../src/internal';
import {GROUP} from '../../gguf/block_values';
import type {PackedTensors} from '../ops';
import type {PackedType} from '../packed_type';
import {packText} from './float16';
import {unpackText} from './unpack';

// Each of these programs writes float16, two a word, and an invocation eight values at a time: 16 bytes.

const THREADS = 64;

/** A packed matrix as float16 `[outputs, inputs]`. */
export class UnpackFloat16Program extends AttentionProgram<{type: PackedType}> {
  constructor({type, shape, quants, scales}: PackedTensors<TensorInfo>) {
    const [outputs, inputs] = shape;
    super({
      name: 'UnpackFloat16',
      inputs: {quants: {tensor: quants}, scales: {tensor: scales}},
      outputShape: [outputs, inputs / 2],
      outputType: 'int32',
      outputComponents: 4,
      threads: THREADS,
      workgroups: Math.ceil((outputs * inputs) / (8 * THREADS)),
      variant: {type},
    });
  }

  protected shader({type}: {type: PackedType}): string {
    const vectors = GROUP / 8;
    return `
// An invocation unpacks eight values, a quarter of a group.
${workgroupIndex}
${unpackText(type)}
${packText}

fn main(index : i32) {
  let item = workgroupIndex() * ${THREADS} + i32(localIndex);
  if (item >= uniforms.outShape.x * uniforms.outShape.y / 4) {
    return;
  }
  let group = item / ${vectors};
  let part = 2 * (item % ${vectors});
  let scale = scaleOf(group);
  result[item] = float16Words(unpack4(group, part, scale), unpack4(group, part + 1, scale));
}`;
  }
}

interface NormaliseVariant {
  /** Eights of values of a row. */
  vectors: number;
  /** Invocations that share a row. */
  lanes: number;
  /** Rows of a workgroup. */
  rows: number;
}

/** Most invocations of a workgroup that every WebGPU device allows. */
const MOST = 256;

/** float32 `[rows, columns]` as float16: each row divided by the root of its mean square, times the norm's weight. */
export class NormaliseFloat16Program extends AttentionProgram<NormaliseVariant> {
  constructor(x: TensorInfo, norm: TensorInfo, epsilon: number) {
    const [rowCount, columns] = x.shape;
    const vectors = columns / 8;
    // About two vectors an invocation, so that its loads overlap and few sums have to be added up across invocations.
    const lanes = Math.min(MOST, 2 ** Math.ceil(Math.log2(Math.max(1, vectors / 2))));
    const rows = Math.max(1, THREADS / lanes);
    super({
      name: 'NormaliseFloat16',
      inputs: {x: {tensor: x, components: 4}, norm: {tensor: norm, components: 4}},
      outputShape: [rowCount, columns / 2],
      outputType: 'int32',
      outputComponents: 4,
      threads: lanes * rows,
      workgroups: Math.ceil(rowCount / rows),
      uniforms: {epsilon: {type: 'f32', value: epsilon}},
      variant: {vectors, lanes, rows},
    });
  }

  protected shader({vectors, lanes, rows}: NormaliseVariant): string {
    return `
// A workgroup takes ${rows} rows, and ${lanes} neighbouring invocations a row, side by side, each of them ${lanes < vectors ? `every ${lanes}th` : 'one'} eight of values. An
// invocation adds up squares in a register; the sums of a row are added up in workgroup memory. The values are read a second
// time, from the cache, to be scaled.
${workgroupIndex}
${packText}
var<workgroup> sums : array<f32, ${lanes * rows}>;

fn main(index : i32) {
  ${localOf(lanes * rows)}
  let lane = local % ${lanes};
  let row = workgroupIndex() * ${rows} + local / ${lanes};
  // Rows past the last one take part in the barriers, with nothing to add.
  let exists = row < uniforms.outShape.x;
  let first = row * ${vectors};
  let end = select(0, ${vectors}, exists);
  var sum = 0.0;
  for (var i = lane; i < end; i += ${lanes}) {
    let a = x[2 * (first + i)];
    let b = x[2 * (first + i) + 1];
    sum += dot(a, a) + dot(b, b);
  }
  sums[local] = sum;
  for (var stride = ${Math.floor(lanes / 2)}; stride > 0; stride /= 2) {
    // Barrier: the sums to add are written by other invocations.
    workgroupBarrier();
    if (lane < stride) {
      sums[local] += sums[local + stride];
    }
  }
  // Barrier: all invocations of a row read its sum.
  workgroupBarrier();
  let scale = inverseSqrt(sums[local - lane] / ${8 * vectors}.0 + uniforms.epsilon);
  for (var i = lane; i < end; i += ${lanes}) {
    let a = x[2 * (first + i)] * scale * norm[2 * i];
    let b = x[2 * (first + i) + 1] * scale * norm[2 * i + 1];
    result[first + i] = float16Words(a, b);
  }
}`;
  }
}

/** float32 `[1, heads, rows, headDim]` as float16 `[rows, heads * headDim]`. */
export class JoinHeadsFloat16Program extends AttentionProgram<object> {
  constructor(x: TensorInfo) {
    const [, heads, rows, headDim] = x.shape;
    super({
      name: 'JoinHeadsFloat16',
      inputs: {x: {tensor: x, components: 4}},
      outputShape: [rows, (heads * headDim) / 2],
      outputType: 'int32',
      outputComponents: 4,
      threads: THREADS,
      workgroups: Math.ceil((heads * rows * headDim) / (8 * THREADS)),
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation brings eight values of a row of a head to their place in the row of all heads.
${workgroupIndex}
${packText}

fn main(index : i32) {
  let item = workgroupIndex() * ${THREADS} + i32(localIndex);
  let vectors = uniforms.outShape.y / 4;
  let row = item / vectors;
  if (row >= uniforms.outShape.x) {
    return;
  }
  let vectorsOfHead = uniforms.xShape.w / 8;
  let head = item % vectors / vectorsOfHead;
  let source = 2 * ((head * uniforms.outShape.x + row) * vectorsOfHead + item % vectorsOfHead);
  result[item] = float16Words(x[source], x[source + 1]);
}`;
  }
}
