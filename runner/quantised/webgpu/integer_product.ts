import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, unroll, workgroupIndex} from '../../../src/internal';
import {GROUP, QUANTISED_FORMS, type QuantisedType} from '../../gguf/block_values';
import {INTEGER_GROUP_WORDS} from '../integer_ops';
import type {PackedTensors} from '../ops';
import {unpackIntegersText} from './unpack';

const QUANTISE_THREADS = 64;

/** float32 `[rows, columns]` as `IntegerRows`. */
export class QuantiseRowsProgram extends AttentionProgram<object> {
  constructor(x: TensorInfo) {
    const [rows, columns] = x.shape;
    const groups = columns / GROUP;
    super({
      name: 'QuantiseRows',
      inputs: {x: {tensor: x, components: 4}},
      outputShape: [rows, groups, INTEGER_GROUP_WORDS],
      outputType: 'int32',
      threads: QUANTISE_THREADS,
      workgroups: Math.ceil((rows * groups) / QUANTISE_THREADS),
      variant: {},
    });
  }

  protected shader(): string {
    const vectors = GROUP / 4;
    return `
// An invocation takes a group of a row: its largest value becomes 127.
${workgroupIndex}
fn main(index : i32) {
  let group = workgroupIndex() * ${QUANTISE_THREADS} + i32(localIndex);
  let groups = uniforms.outShape.x * uniforms.outShape.y;
  if (group >= groups) {
    return;
  }
  var values = array<vec4<f32>, ${vectors}>();
  var largest = vec4<f32>(0.0);
  for (var i = 0; i < ${vectors}; i++) {
    values[i] = x[group * ${vectors} + i];
    largest = max(largest, abs(values[i]));
  }
  let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
  let scale = most / 127.0;
  let inverse = select(0.0, 127.0 / most, most > 0.0);
  var sum = vec4<i32>(0);
  for (var i = 0; i < ${vectors}; i++) {
    let q = vec4<i32>(round(values[i] * inverse));
    sum += q;
    result[group * ${vectors} + i] = bitcast<i32>(pack4xI8(q));
  }
  let at = groups * ${vectors} + 2 * group;
  result[at] = bitcast<i32>(scale);
  result[at + 1] = bitcast<i32>(scale * f32(sum.x + sum.y + sum.z + sum.w));
}`;
  }
}

/** Rows of x, and rows of the matrix, of a workgroup; what an invocation computes of each. */
const TILE = 64;
const EACH = 4;
const SIDE = TILE / EACH;
const THREADS = SIDE * SIDE;
/** Groups in workgroup memory at a time. */
const DEPTH = 2;

/** `x · matrixᵀ`, x `IntegerRows`: float32 `[rows, outputs]`. */
export class IntegerProductProgram extends AttentionProgram<{type: QuantisedType}> {
  constructor(x: TensorInfo, {type, shape, quants, scales}: PackedTensors<TensorInfo> & {type: QuantisedType}) {
    const [rows] = x.shape;
    const [outputs] = shape;
    super({
      name: 'IntegerProduct',
      inputs: {x: {tensor: x, components: 4}, quants, scales},
      outputShape: [rows, outputs],
      threads: THREADS,
      workgroups: Math.ceil(rows / TILE) * Math.ceil(outputs / TILE),
      variant: {type},
    });
  }

  protected shader({type}: {type: QuantisedType}): string {
    const {zero, scales} = QUANTISED_FORMS[type];
    const isHalved = scales === 'float32 of 16';
    const hasOffset = zero === undefined;
    const ofEach = (text: (i: number) => string) => unroll(EACH, text);
    // Of a group of the matrix: scales of its halves, and its offset.
    const groupScales = isHalved
      ? 'vec4<f32>(scale.x, scale.y, 0.0, 0.0)'
      : `vec4<f32>(scale.x, scale.x, ${hasOffset ? 'scale.y' : '0.0'}, 0.0)`;
    const dotOf = (r: number, c: number, half: number) =>
      unroll(4, (i) => `dot4I8Packed(x${half}_${r}[${i}], w${half}_${c}[${i}])`, ' + ');
    const product = (r: number, c: number) =>
      isHalved
        ? `scales${c}.x * f32(${dotOf(r, c, 0)}) + scales${c}.y * f32(${dotOf(r, c, 1)})`
        : `scales${c}.x * f32(${dotOf(r, c, 0)} + ${dotOf(r, c, 1)})`;
    return `
// A workgroup computes ${TILE} rows of the product with ${TILE} rows of the matrix, an invocation (px, py) those of every ${SIDE}th of each, ${EACH} by ${EACH}. It walks
// along the inputs, ${DEPTH} groups at a time: all whole numbers of a group are multiplied and added as whole numbers, four a word, and only
// the group's sum is scaled.
//
// Workgroup memory: of ${DEPTH} groups the whole numbers of all rows, half a group a vector, by halves and then by rows, so that
// neighbours read side by side; and their scales.
${workgroupIndex}
${unpackIntegersText(type)}
var<workgroup> xs : array<vec4<u32>, ${TILE * DEPTH * 2}>;
var<workgroup> xScales : array<vec2<f32>, ${TILE * DEPTH}>;
var<workgroup> ws : array<vec4<u32>, ${TILE * DEPTH * 2}>;
var<workgroup> wScales : array<vec4<f32>, ${TILE * DEPTH}>;

fn main(index : i32) {
  let local = i32(localIndex);
  let rows = uniforms.outShape.x;
  let outputs = uniforms.outShape.y;
  let groups = uniforms.xShape.y;
  let tilesAcross = (outputs + ${TILE - 1}) / ${TILE};
  // Neighbouring workgroups take the same rows of x. Rows past the last one are the last one again, and are not written.
  let firstRow = workgroupIndex() / tilesAcross * ${TILE};
  let firstOutput = workgroupIndex() % tilesAcross * ${TILE};
  let px = local % ${SIDE};
  let py = local / ${SIDE};
  // Half a group of a row each, when they are loaded: ${TILE} rows, ${DEPTH} groups, 2 halves.
  let loadRow = local % ${TILE};
  let loadGroup = local / ${TILE} / 2;
  let loadHalf = local / ${TILE} % 2;
  let xRow = min(firstRow + loadRow, rows - 1);
  let wRow = min(firstOutput + loadRow, outputs - 1);
  let scalesAt = uniforms.xShape.x * groups * 2;
  var sums = array<array<f32, ${EACH}>, ${EACH}>();
  for (var first = 0; first < groups; first += ${DEPTH}) {
    let group = first + loadGroup;
    let place = (loadGroup * 2 + loadHalf) * ${TILE} + loadRow;
    xs[place] = bitcast<vec4<u32>>(x[(xRow * groups + group) * 2 + loadHalf]);
    let w = wRow * groups + group;
    ws[place] = vec4<u32>(${unroll(4, (i) => `pack4xI8(integersOf(w, 4 * loadHalf + ${i}))`, ', ')});
    if (loadHalf == 0) {
      let at = xRow * groups + group;
      let pair = bitcast<vec4<f32>>(x[scalesAt + at / 2]);
      xScales[loadGroup * ${TILE} + loadRow] = select(pair.xy, pair.zw, at % 2 == 1);
      let scale = scaleOf(w);
      wScales[loadGroup * ${TILE} + loadRow] = ${groupScales};
    }
    // Barrier: all read what others loaded.
    workgroupBarrier();
    for (var g = 0; g < ${DEPTH}; g++) {
      ${unroll(2, (half) => ofEach((i) => `let w${half}_${i} = ws[(2 * g + ${half}) * ${TILE} + px + ${i * SIDE}];`))}
      ${ofEach((i) => `let scales${i} = wScales[g * ${TILE} + px + ${i * SIDE}];`)}
      ${ofEach(
        (r) => `{
        let xScale = xScales[g * ${TILE} + py + ${r * SIDE}];
        ${unroll(2, (half) => `let x${half}_${r} = xs[(2 * g + ${half}) * ${TILE} + py + ${r * SIDE}];`)}
        ${ofEach((c) => `sums[${r}][${c}] += xScale.x * (${product(r, c)})${hasOffset ? ` + xScale.y * scales${c}.z` : ''};`)}
      }`,
      )}
    }
    // Barrier: the next groups overwrite these.
    workgroupBarrier();
  }
  ${ofEach((r) =>
    ofEach(
      (c) => `if (firstRow + py + ${r * SIDE} < rows && firstOutput + px + ${c * SIDE} < outputs) {
    result[(firstRow + py + ${r * SIDE}) * outputs + firstOutput + px + ${c * SIDE}] = sums[${r}][${c}];
  }`,
    ),
  )}
}`;
  }
}
