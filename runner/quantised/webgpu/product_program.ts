import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, localOf, unroll, workgroupIndex} from '../../../src/internal';
import {GROUP} from '../../gguf/block_values';
import {MOST_ROWS, type PackedTensors} from '../ops';
import type {Activation} from '../../llama/kernels/gated_activation';
import {activationText} from '../../llama/kernels/webgpu/activation_text';
import type {PackedType} from '../packed_type';
import {unpackText} from './unpack';

const THREADS = 128;
/** Invocations that keep a large device busy: matrices of fewer rows have more invocations a row. A guess. */
const WANTED_INVOCATIONS = 65_536;
/** Invocations that share a group of values of a matrix, each with four of them. */
const PARTS = GROUP / 4;
const MOST_LANES = 32;

/** Invocations that share a row of a matrix. */
function lanesOf([outputs, inputs]: readonly [outputs: number, inputs: number], rowTiles: number): number {
  const wanted = Math.min(MOST_LANES, WANTED_INVOCATIONS / (outputs * rowTiles), inputs / 4);
  return Math.max(PARTS, 2 ** Math.floor(Math.log2(wanted)));
}

interface ProductVariant {
  type: PackedType;
  /** Of the second matrix, and the activation of the products with the first, its gates. */
  upType?: PackedType;
  activation: Activation;
  /** Of x that a workgroup takes, and how often x has so many. */
  rows: number;
  rowTiles: number;
  lanes: number;
  hasNorm: boolean;
  hasBias: boolean;
  hasUpBias: boolean;
  hasResidual: boolean;
}

/** What is multiplied, and what is done with the products. */
export interface PackedProductOptions {
  /** float32 `[rows, inputs]` */
  x: TensorInfo;
  matrix: PackedTensors<TensorInfo>;
  /** A second matrix of the same shape: the products become `activation(gate) · up`. */
  up?: PackedTensors<TensorInfo>;
  /** Default: `'silu'`. */
  activation?: Activation;
  /** float32 `[inputs]`: x goes through an RMS norm of this weight first. */
  norm?: {weight: TensorInfo; epsilon: number};
  /** float32: what is added to the products, with `firstBias` the first that is read; and to those of `up`. */
  bias?: TensorInfo;
  upBias?: TensorInfo;
  firstBias?: number;
  /** float32, like the output: is added to it. */
  residual?: TensorInfo;
  /** Columns of the whole output, and the first of them that this matrix computes. Default: those of the matrix. */
  columns?: number;
  firstColumn?: number;
}

/**
 * x · matrixᵀ for few rows of x, up to `MOST_ROWS` or a multiple of them: float32 `[rows, outputs]`. Each value of the matrix is unpacked
 * once for so many rows.
 */
export class PackedProductProgram extends AttentionProgram<ProductVariant> {
  constructor({x, matrix, up, norm, bias, residual, ...more}: PackedProductOptions) {
    const rows = Math.min(MOST_ROWS, x.shape[0]);
    const rowTiles = x.shape[0] / rows;
    const [outputs] = matrix.shape;
    const lanes = lanesOf(matrix.shape, rowTiles);
    const {activation = 'silu', upBias, columns = outputs, firstColumn = 0, firstBias = 0} = more;
    super({
      name: 'PackedProduct',
      inputs: {
        x: {tensor: x, components: 4},
        quants: matrix.quants,
        scales: matrix.scales,
        upQuants: up?.quants,
        upScales: up?.scales,
        norm: norm && {tensor: norm.weight, components: 4},
        bias,
        upBias,
        residual,
      },
      outputShape: [x.shape[0], columns],
      threads: THREADS,
      workgroups: rowTiles * Math.ceil((outputs * lanes) / THREADS),
      uniforms: {
        outputs: {type: 'i32', value: outputs},
        firstColumn: {type: 'i32', value: firstColumn},
        firstBias: {type: 'i32', value: firstBias},
        epsilon: {type: 'f32', value: norm?.epsilon ?? 0},
      },
      variant: {
        type: matrix.type,
        upType: up?.type,
        activation,
        rows,
        rowTiles,
        lanes,
        hasNorm: norm !== undefined,
        hasBias: bias !== undefined,
        hasUpBias: upBias !== undefined,
        hasResidual: residual !== undefined,
      },
    });
  }

  protected shader({
    activation,
    type,
    upType,
    rows,
    rowTiles,
    lanes,
    hasNorm,
    hasBias,
    hasUpBias,
    hasResidual,
  }: ProductVariant): string {
    // Sums over the inputs, one of each for every row of x.
    const sums = ['products', ...(upType ? ['upProducts'] : []), ...(hasNorm ? ['squares'] : [])];
    const row = (r: number | string) => (rowTiles > 1 ? `(firstRow + ${r})` : r);
    const addRow = (r: number) => `{
      var value = x[(${row(r)} * groups + g) * ${PARTS} + part];
      ${hasNorm ? `squares[${r}] += dot(value, value); value *= norm[g * ${PARTS} + part];` : ''}
      products[${r}] += dot(values, value);
      ${upType ? `upProducts[${r}] += dot(upValues, value);` : ''}
    }`;
    return `
// A workgroup computes ${THREADS / lanes} columns of the output, that is takes ${THREADS / lanes} rows of the matrix. ${lanes} neighbouring invocations share one:
// ${PARTS} of them a group of its values, four each, so that they read x and the matrix side by side; they hold sums for each row of x in
// registers. The sums of a row are added up in workgroup memory. The norm's divisor is the same for all inputs, so it waits for the end.
${workgroupIndex}
${unpackText(type)}
${upType ? renamed(unpackText(upType), 'up') : ''}
// By sums, then by invocations.
var<workgroup> partials : array<array<f32, ${THREADS}>, ${rows * sums.length}>;

// Of the invocations of a row, from the first on.
fn total(which : i32, first : i32) -> f32 {
  var sum = 0.0;
  for (var i = 0; i < ${lanes}; i++) {
    sum += partials[which][first + i];
  }
  return sum;
}

fn main(index : i32) {
  ${localOf(THREADS)}
  let lane = local % ${lanes};
  ${
    rowTiles > 1
      ? `// Neighbouring workgroups take the same rows of the matrix.
  let firstRow = workgroupIndex() % ${rowTiles} * ${rows};
  let outputTile = workgroupIndex() / ${rowTiles};`
      : 'let outputTile = workgroupIndex();'
  }
  let output = outputTile * ${THREADS / lanes} + local / ${lanes};
  let groups = uniforms.xShape.y / ${GROUP};
  // Past the last row it is taken once more, for the barriers' sake.
  let firstGroup = min(output, uniforms.outputs - 1) * groups;
  ${sums.map((name) => `var ${name} = array<f32, ${rows}>();`).join('\n  ')}
  let part = lane % ${PARTS};
  for (var g = lane / ${PARTS}; g < groups; g += ${lanes / PARTS}) {
    let values = unpack4(firstGroup + g, part, scaleOf(firstGroup + g));
    ${upType ? 'let upValues = upUnpack4(firstGroup + g, part, upScaleOf(firstGroup + g));' : ''}
    ${unroll(rows, addRow)}
  }
  ${sums.map((name, i) => unroll(rows, (r) => `partials[${i * rows + r}][local] = ${name}[${r}];`)).join('\n  ')}
  // Barrier: the first invocation of a row adds up what the others wrote.
  workgroupBarrier();
  if (lane == 0 && output < uniforms.outputs) {
    for (var r = 0; r < ${rows}; r++) {
      var sum = total(r, local);
      ${upType ? `var up = total(${rows} + r, local);` : ''}
      ${
        hasNorm
          ? `let scale = inverseSqrt(total(${(sums.length - 1) * rows} + r, local) / f32(uniforms.xShape.y) + uniforms.epsilon);
      sum *= scale;
      ${upType ? 'up *= scale;' : ''}`
          : ''
      }
      ${hasBias ? 'sum += bias[uniforms.firstBias + output];' : ''}
      ${hasUpBias ? 'up += upBias[uniforms.firstBias + output];' : ''}
      ${upType ? `sum = ${activationText(activation, 'sum', '1.0')} * up;` : ''}
      let at = ${row('r')} * uniforms.outShape.y + uniforms.firstColumn + output;
      ${hasResidual ? 'sum += residual[at];' : ''}
      result[at] = sum;
    }
  }
}`;
  }
}

/** The functions and inputs of `unpackText` under other names, for a second matrix. */
function renamed(text: string, prefix: string): string {
  return text.replace(/\b(quants|scales|scaleOf|unpack4|bytesOf)\b/g, (name) => {
    return prefix + name[0].toUpperCase() + name.slice(1);
  });
}
