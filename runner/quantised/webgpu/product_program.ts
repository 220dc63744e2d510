import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, unroll, workgroupIndex} from '../../../src/internal';
import {GROUP} from '../../gguf/block_values';
import type {PackedTensors} from '../ops';
import type {PackedType} from '../packed_type';
import {unpackText} from './unpack';

/** Invocations that share a row of the matrix, and rows of a workgroup. */
const LANES = 8;
const ROWS = 16;
const THREADS = LANES * ROWS;

interface ProductVariant {
  type: PackedType;
  /** Of x. */
  rows: number;
}

/** x · matrixᵀ for few rows of x: float32 `[rows, outputs]`. Each value of the matrix is unpacked once. */
export class PackedProductProgram extends AttentionProgram<ProductVariant> {
  constructor(x: TensorInfo, {type, shape, quants, scales}: PackedTensors<TensorInfo>) {
    const [rows] = x.shape;
    const [outputs] = shape;
    super({
      name: 'PackedProduct',
      inputs: {x: {tensor: x, components: 4}, quants: {tensor: quants}, scales: {tensor: scales}},
      outputShape: [rows, outputs],
      threads: THREADS,
      workgroups: Math.ceil(outputs / ROWS),
      variant: {type, rows},
    });
  }

  protected shader({type, rows}: ProductVariant): string {
    return `
// A workgroup computes ${ROWS} columns of the output, that is takes ${ROWS} rows of the matrix; ${LANES} invocations share one, each with every
// ${LANES}th group of its values, and a sum for each row of x in registers. The sums of a row are added up in workgroup memory.
${workgroupIndex}
${unpackText(type)}
var<workgroup> partials : array<f32, ${THREADS * rows}>;

fn main(index : i32) {
  let local = i32(localIndex);
  let lane = local % ${LANES};
  let outputs = uniforms.outShape.y;
  let output = workgroupIndex() * ${ROWS} + local / ${LANES};
  let groups = uniforms.xShape.y / ${GROUP};
  // Past the last row it is taken once more, for the barrier's sake.
  let firstGroup = min(output, outputs - 1) * groups;
  var sums = array<f32, ${rows}>();
  for (var g = lane; g < groups; g += ${LANES}) {
    let scale = scaleOf(firstGroup + g);
    ${unroll(
      GROUP / 4,
      (part) => `{
      let values = unpack4(firstGroup + g, ${part}, scale);
      ${unroll(rows, (r) => `sums[${r}] += dot(values, x[(${r} * groups + g) * ${GROUP / 4} + ${part}]);`)}
    }`,
    )}
  }
  ${unroll(rows, (r) => `partials[${r * THREADS} + local] = sums[${r}];`)}
  // Barrier: the first invocation of a row adds up what the others wrote.
  workgroupBarrier();
  if (lane == 0 && output < outputs) {
    for (var r = 0; r < ${rows}; r++) {
      var sum = 0.0;
      for (var i = 0; i < ${LANES}; i++) {
        sum += partials[r * ${THREADS} + local + i];
      }
      result[r * outputs + output] = sum;
    }
  }
}`;
  }
}
