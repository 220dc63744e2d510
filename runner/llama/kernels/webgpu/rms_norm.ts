import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, localOf, rowComponents, workgroupIndex} from '../../../../src/internal';
import type {RMSNormOptions} from '../rms_norm';

interface RMSNormVariant {
  /** Elements of a row, each of so many components. */
  elements: number;
  components: 1 | 4;
  /** Invocations that share a row. */
  lanes: number;
  /** Rows of a workgroup. */
  rows: number;
  hasWeight: boolean;
  hasResidual: boolean;
}

/** Invocations of a workgroup of short rows, and most that share a row, which every WebGPU device allows. */
const [FEW, MOST] = [64, 256];

/** float32 `[rows, columns]`: each row divided by the root of its mean square, multiplied and added to as `RMSNormOptions` say. */
export class RMSNormProgram extends AttentionProgram<RMSNormVariant> {
  constructor(x: TensorInfo, epsilon: number, {weight, residual}: RMSNormOptions<TensorInfo> = {}) {
    const [rowCount, columns] = x.shape;
    const components = rowComponents(columns);
    const elements = columns / components;
    // About four elements an invocation, so that its loads overlap and few have to be added up across invocations.
    const lanes = Math.min(MOST, 2 ** Math.ceil(Math.log2(Math.max(1, elements / 4))));
    const rows = Math.max(1, FEW / lanes);
    const read = (tensor?: TensorInfo) => tensor && {tensor, components};
    super({
      name: 'RMSNorm',
      inputs: {x: {tensor: x, components}, weight: read(weight), residual: read(residual)},
      outputShape: x.shape,
      outputType: 'float32',
      outputComponents: components,
      threads: lanes * rows,
      workgroups: Math.ceil(rowCount / rows),
      uniforms: {epsilon: {type: 'f32', value: epsilon}},
      variant: {
        ...{elements, components, lanes, rows},
        hasWeight: weight !== undefined,
        hasResidual: residual !== undefined,
      },
    });
  }

  protected shader({elements, components, lanes, rows, hasWeight, hasResidual}: RMSNormVariant): string {
    const [type, squared] = components === 4 ? ['vec4<f32>', 'dot(sum, vec4<f32>(1.0))'] : ['f32', 'sum'];
    return `
// A workgroup takes ${rows} rows, and ${lanes} neighbouring invocations a row, side by side, so that they read and write
// neighbouring elements. An invocation adds up the squares of its elements in a register; the sums of a row are added up
// in workgroup memory. The elements are read a second time, from the cache, to be scaled.
${workgroupIndex}
var<workgroup> sums : array<f32, ${lanes * rows}>;

fn main(index : i32) {
  ${localOf(lanes * rows)}
  let lane = local % ${lanes};
  let row = workgroupIndex() * ${rows} + local / ${lanes};
  // Rows past the last one take part in the barriers, with nothing to add.
  let exists = row < uniforms.outShape.x;
  let first = row * ${elements};
  let end = select(0, ${elements}, exists);
  var sum = ${type}(0.0);
  for (var i = lane; i < end; i += ${lanes}) {
    let element = x[first + i];
    sum += element * element;
  }
  sums[local] = ${squared};
  for (var stride = ${Math.floor(lanes / 2)}; stride > 0; stride /= 2) {
    // Barrier: the sums to add are written by other invocations.
    workgroupBarrier();
    if (lane < stride) {
      sums[local] += sums[local + stride];
    }
  }
  // Barrier: all invocations of a row read its sum.
  workgroupBarrier();
  let scale = inverseSqrt(sums[local - lane] / ${elements * components}.0 + uniforms.epsilon);
  for (var i = lane; i < end; i += ${lanes}) {
    result[first + i] = x[first + i] * scale${hasWeight ? ' * weight[i]' : ''}${hasResidual ? ' + residual[first + i]' : ''};
  }
}`;
  }
}
