import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, localOf, unroll, workgroupIndex} from '../../../src/internal';
import type {Activation} from '../../llama/kernels/gated_activation';
import type {ProductInputs} from '../product_ops';
import {epilogueText, type EpilogueVariant} from './product_epilogue';

// A workgroup's tile: 12.5 KiB and 128 invocations, which fits every WebGPU device. Others were no faster (docs/performance.md).
const ROWS = 64;
const COLUMNS = 128;
/** Inputs that lie in workgroup memory at a time. */
const DEPTH = 16;
/** Sums of an invocation, by rows and columns. */
const [OWN_ROWS, OWN_COLUMNS] = [8, 8];
const ACROSS = COLUMNS / OWN_COLUMNS;
const DOWN = ROWS / OWN_ROWS;
const THREADS = ACROSS * DOWN;
/** From one input to the next in workgroup memory, in vec4: one more, so that neighbours begin in different banks. */
const X_STRIDE = ROWS / 4 + 1;
const WEIGHT_STRIDE = COLUMNS / 4 + 1;

/**
 * `x · weight` in float32: the kernels `Product` and, with `up`, `GatedProduct` (`product_ops.ts`). Inputs are a multiple of 16,
 * outputs one of 4.
 *
 * @param headDim columns of a matrix of the output; 0: the output is one matrix.
 * @param activation of the gates, with `up`.
 */
export class ProductFloat32Program extends AttentionProgram<EpilogueVariant> {
  constructor(inputs: ProductInputs<TensorInfo>, headDim: number, activation: Activation = 'silu') {
    const {x, weight, up, bias, residual} = inputs;
    const [rows] = x.shape;
    const [, outputs] = weight.shape;
    const read = (tensor?: TensorInfo) => tensor && {tensor, components: 4 as const};
    super({
      name: 'ProductFloat32',
      inputs: {x: read(x), weight: read(weight), up: read(up), bias: read(bias), residual: read(residual)},
      outputShape: headDim ? [outputs / headDim, rows, headDim] : [rows, outputs],
      outputComponents: 4,
      threads: THREADS,
      workgroups: Math.ceil(rows / ROWS) * Math.ceil(outputs / outputsOf(up !== undefined)),
      variant: {gated: up && activation, biased: bias !== undefined, added: residual !== undefined, headDim},
    });
  }

  protected shader(variant: EpilogueVariant): string {
    const gated = variant.gated !== undefined;
    const outputs = outputsOf(gated);
    // An invocation carries four inputs of four rows of x, and a vec4 of the weights of several inputs.
    const xUnits = (ROWS / 4) * (DEPTH / 4);
    const weightRounds = ((COLUMNS / 4) * DEPTH) / THREADS;
    const roundsOfMatrix = weightRounds / (gated ? 2 : 1);
    const vectorsOfRow = outputs / 4;
    const weightOf = (j: number) => {
      const matrix = Math.floor(j / roundsOfMatrix);
      const unit = `(local + ${(j % roundsOfMatrix) * THREADS})`;
      return {
        tensor: matrix ? 'up' : 'weight',
        input: `${unit} / ${vectorsOfRow}`,
        vector: `${unit} % ${vectorsOfRow}`,
        first: matrix * vectorsOfRow,
      };
    };
    const fetch = `if (local < ${xUnits}) {
      ${unroll(4, (r) => `xs[${r}] = x[xAt${r} + input / 4];`, '\n      ')}
    }
    ${unroll(weightRounds, (j) => {
      const {tensor, input, vector} = weightOf(j);
      return `weights[${j}] = ${tensor}[(input + ${input}) * vectors + min(firstVector + ${vector}, vectors - 1)];`;
    })}`;
    const storeX = (c: number) =>
      `xTile[(4 * xVector + ${c}) * ${X_STRIDE} + xRow] = vec4<f32>(${unroll(4, (r) => `xs[${r}][${c}]`, ', ')});`;
    const storeWeight = (j: number) => {
      const {input, vector, first} = weightOf(j);
      return `weightTile[(${input}) * ${WEIGHT_STRIDE} + ${first} + ${vector}] = weights[${j}];`;
    };
    const rowVectors = OWN_ROWS / 4;
    const columnVectors = OWN_COLUMNS / 4;
    const sums = (r: number, g: number) => `sum${r}_${g}`;
    const everySum = (text: (r: number, g: number) => string) =>
      unroll(OWN_ROWS, (r) => unroll(columnVectors, (g) => text(r, g), '\n  '), '\n  ');
    const addProducts = (k: number) => `{
      ${unroll(rowVectors, (g) => `let a${g} = xTile[${k * X_STRIDE + g * DOWN} + y];`, ' ')}
      ${unroll(columnVectors, (g) => `let b${g} = weightTile[${k * WEIGHT_STRIDE + g * ACROSS} + across];`, ' ')}
      ${everySum((r, g) => `${sums(r, g)} = fma(vec4<f32>(a${Math.floor(r / 4)}[${r % 4}]), b${g}, ${sums(r, g)});`)}
    }`;
    const rowOfSum = (r: number) => `firstRow + 4 * (y + ${Math.floor(r / 4) * DOWN}) + ${r % 4}`;
    const writes = gated
      ? unroll(OWN_ROWS, (r) => `write(${rowOfSum(r)}, firstOutput + 4 * across, ${sums(r, 0)}, ${sums(r, 1)});`)
      : everySum((r, g) => `write(${rowOfSum(r)}, firstOutput + 4 * (across + ${g * ACROSS}), ${sums(r, g)});`);
    return `
// A workgroup computes ${ROWS} rows of the product with ${outputs} columns${gated ? ' of each of two matrices, gates and ups of the same outputs' : ' of the matrix'}. It walks along the
// inputs, ${DEPTH} at a time. An invocation owns ${OWN_ROWS} x ${OWN_COLUMNS} sums in registers, four neighbouring rows by four neighbouring columns at a time, so that
// two reads of 16 bytes from workgroup memory feed 16 multiply-adds.
//
// Workgroup memory: xTile holds the inputs of all rows, weightTile of all columns, by inputs; what the next step needs is read from
// global memory while this one is computed.
${workgroupIndex}
var<workgroup> xTile : array<vec4<f32>, ${DEPTH * X_STRIDE}>;
var<workgroup> weightTile : array<vec4<f32>, ${DEPTH * WEIGHT_STRIDE}>;
${epilogueText(variant, false)}

fn main(index : i32) {
  ${localOf(THREADS)}
  // Eight by four neighbours own neighbouring columns and rows, and share what they read.
  let across = local / 32 % 2 * 8 + local % 8;
  let y = local / 64 * 4 + local / 8 % 4;
  // Neighbouring workgroups take the same rows of x. Those past the last row take it once more, and write nothing.
  let tilesAcross = (uniforms.weightShape.y + ${outputs - 1}) / ${outputs};
  let firstRow = workgroupIndex() / tilesAcross * ${ROWS};
  let firstOutput = workgroupIndex() % tilesAcross * ${outputs};
  let firstVector = firstOutput / 4;
  let vectors = uniforms.weightShape.y / 4;
  let inputs = uniforms.xShape.y;
  let xRow = local % ${ROWS / 4};
  let xVector = local / ${ROWS / 4} % ${DEPTH / 4};
  ${unroll(4, (r) => `let xAt${r} = min(firstRow + 4 * xRow + ${r}, uniforms.xShape.x - 1) * (inputs / 4) + xVector;`, '\n  ')}
  var xs : array<vec4<f32>, 4>;
  var weights : array<vec4<f32>, ${weightRounds}>;
  var input = 0;
  {
    ${fetch}
  }
  ${everySum((...of) => `var ${sums(...of)} = vec4<f32>();`)}

  let steps = inputs / ${DEPTH};
  for (var step = 0; step < steps; step++) {
    if (local < ${xUnits}) {
      ${unroll(4, storeX, '\n      ')}
    }
    ${unroll(weightRounds, storeWeight)}
    // Barrier: an invocation reads what others stored.
    workgroupBarrier();
    // After the last step it reads the last inputs once more.
    input = min(step + 1, steps - 1) * ${DEPTH};
    ${fetch}
    ${unroll(DEPTH, addProducts)}
    // Barrier: the next step overwrites the tiles.
    workgroupBarrier();
  }
  ${writes}
}`;
  }
}

/** Columns of the output that a workgroup computes: half of its columns of weights where these are gates and ups. */
const outputsOf = (gated: boolean): number => (gated ? COLUMNS / 2 : COLUMNS);
