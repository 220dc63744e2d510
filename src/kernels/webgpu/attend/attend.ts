import type {TensorInfo} from '@tensorflow/tfjs-core';
import {unroll} from '../../unroll.js';
import {matrixUnitsOf} from '../runtime/device_features.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import type {WebGPUCall, WebGPUCallShape, WebGPUPlan} from '../webgpu_call.js';
import {headVectors} from '../wgsl/rows.js';
import {shortCap} from '../wgsl/soft_cap.js';
import {sinkWeight} from '../wgsl/softmax_state.js';
import type {Tile} from '../wgsl/tile.js';
import {columnOf, invocationPlace, rowOf, tileQueries, tileThreads} from '../wgsl/tile.js';
import {ifInRow, partsOfRow} from '../wgsl/tile_products.js';
import type {AttentionArithmetic} from './arithmetic.js';
import {arithmeticOf} from './arithmetic.js';
import type {AttendForm} from './attend_form.js';
import {AttendDecodeProgram} from './attend_decode.js';
import {attendForm, attendSpec} from './attend_form.js';
import {AttendMatrixProgram} from './attend_matrix.js';
import {chooseMatrixTile} from './attend_matrix_tile.js';
import {attendMemory, products} from './attend_products.js';
import {AttendRows, ifInHead} from './attend_rows.js';
import type {AttendOptions, Split} from './attend_split.js';
import {float16Layout, Float16RowsProgram, rowUniforms} from './float16_rows.js';
import {CombineStatesProgram, splitOf} from './attend_split.js';
import {LogSumExpProgram} from './log_sum_exp.js';
import type {ElementType} from './attend_tile.js';
import {chooseAttendTile, chooseFewRowTile, headWords, wordValues} from './attend_tile.js';
import {attendWalk, keyTile, ownedRows, scoresOfProducts} from './attend_walk.js';
import {findSeenByAll, giveBackWithheld, withheldFunctions, withholdWords} from './withheld_values.js';

/**
 * Stage 4, attend: float32 `[batch, heads, queryLength, valueDim]`. Softmax attention of each query row over the keys of
 * the blocks in its list, with an online softmax (paper algorithm 1); without a plan over all keys, exact attention. With a
 * causal mask a row sees the keys whose original index is not above its own position; a row that sees nothing gives zeros.
 *
 * Few query rows and many keys are split by keys (`attend_split.ts`).
 *
 * Where float16 was asked for: on the matrix units of the device if there are some, else in the float16 of its shaders
 * if there is one, else in float32.
 */
export function attend(call: WebGPUCall, plan?: WebGPUPlan): TensorInfo {
  const {backend, geometry, precision} = call;
  const arithmetic = arithmeticOf(backend.device, geometry, precision);
  const split = splitOf(call, arithmetic, plan !== undefined);
  if (split) {
    return withScratch(backend, (scratch) => {
      const states = scratch(statesProgram(call, split, plan).run(backend));
      return new CombineStatesProgram(states, geometry, call.sinks && call.headForms).run(backend);
    });
  }
  const blockSize = plan && geometry.blockSize;
  if (arithmetic === 'float32') {
    const fewRows = plan ? undefined : chooseFewRowTile(call, geometry.queryLength);
    return new AttendProgram(call, {tile: fewRows ?? chooseAttendTile(call, 'float32', blockSize), plan}).run(backend);
  }
  return withScratch(backend, (scratch) => {
    const rows = scratch(new Float16RowsProgram(call, arithmetic === 'matrix units').run(backend));
    if (arithmetic === 'float16') {
      return new AttendProgram(call, {tile: chooseAttendTile(call, 'float16', blockSize), rows, plan}).run(backend);
    }
    const tile = chooseMatrixTile(call, matrixUnitsOf(backend.device)!, plan !== undefined);
    return new AttendMatrixProgram(call, {rows, tile, plan}).run(backend);
  });
}

/**
 * Exact attention with the natural logarithm of each row's sum of exp(score), float32 `[batch, heads, queryLength]`: the states of the softmax
 * say both. In float16 without matrix units, which hand on no states.
 */
export function attendWithLogSumExp(call: WebGPUCall): TensorInfo[] {
  const {backend, geometry, sinks, headForms} = call;
  const arithmetic = arithmeticOfStates(call);
  const split = splitOf(call, arithmetic, false);
  return withScratch(backend, (scratch, keep) => {
    const whole = () => {
      const rows = arithmetic === 'float32' ? undefined : scratch(new Float16RowsProgram(call, false).run(backend));
      const tile = chooseAttendTile(call, rows ? 'float16' : 'float32');
      return new AttendProgram(call, {tile, rows, chunks: 1});
    };
    const states = scratch((split ? statesProgram(call, split) : whole()).run(backend));
    const forms = sinks && headForms;
    return [
      keep(new CombineStatesProgram(states, geometry, forms).run(backend)),
      new LogSumExpProgram(states, geometry, forms).run(backend),
    ];
  });
}

/** What states are computed in: matrix units hand on none. */
function arithmeticOfStates({backend, geometry, precision}: WebGPUCallShape): 'float32' | 'float16' {
  return arithmeticOf(backend.device, geometry, precision) === 'float32' ? 'float32' : 'float16';
}

const statesProgram = (call: WebGPUCall, {tile, chunks, teams}: Split, plan?: WebGPUPlan) =>
  teams ? new AttendDecodeProgram(call, {teams, chunks}) : new AttendProgram(call, {tile, chunks, plan});

/** What `attend` multiplies with. */
export function arithmeticOfCall(call: WebGPUCallShape, sparse: boolean): AttentionArithmetic {
  const arithmetic = arithmeticOf(call.backend.device, call.geometry, call.precision);
  return splitOf(call, arithmetic, sparse) ? 'float32' : arithmetic;
}

/** Shape of the rows of float16 that `attend`, or `attendWithLogSumExp`, makes for a call, if it does. */
export function float16RowsShape(
  call: WebGPUCallShape,
  {sparse, withLogSumExp}: {sparse: boolean; withLogSumExp: boolean},
): number[] | undefined {
  const arithmetic = withLogSumExp
    ? arithmeticOfStates(call)
    : arithmeticOf(call.backend.device, call.geometry, call.precision);
  const areMade = arithmetic !== 'float32' && !splitOf(call, arithmetic, sparse);
  return areMade ? [4 * float16Layout(call, arithmetic === 'matrix units').end] : undefined;
}

/** Whether exact attention is that of decoding, whose program reads packed keys and values as they are. */
export function decodes(call: WebGPUCall): boolean {
  return splitOf(call, arithmeticOf(call.backend.device, call.geometry, call.precision), false)?.teams !== undefined;
}

interface AttendVariant extends AttendForm {
  tile: Tile;
  elementType: ElementType;
}

/** The output; or, given a number of chunks, states of the softmax: `[batch * heads * queryLength, chunks, …]`. */
export class AttendProgram extends AttentionProgram<AttendVariant> {
  constructor(call: WebGPUCall, {tile, rows, plan, chunks}: AttendOptions) {
    const form = attendForm(call, plan, chunks);
    const elementType = rows ? 'float16' : 'float32';
    const {inputs, uniforms, ...spec} = attendSpec(call, form, {tileQueries: tileQueries(tile), plan, chunks});
    super({
      name: 'Attend',
      ...spec,
      inputs: {...inputs, ...(rows && {key: {tensor: rows, components: 4 as const}, value: undefined})},
      uniforms: {...uniforms, ...(rows && rowUniforms(call, false))},
      threads: tileThreads(tile),
      variant: {tile, elementType, ...form, ...(elementType === 'float16' && shortCap(call))},
      ...(elementType === 'float16' && {extensions: ['f16' as const]}),
    });
  }

  protected shader({tile, elementType, ...form}: AttendVariant): string {
    const {rows, columns, threadsX} = tile;
    const product = products(elementType, tile, form);
    const walked = new AttendRows(tile, form, elementType, product);
    const words = headWords(form.valueDim, elementType);
    const vectors = partsOfRow(tile, words) * (wordValues(elementType) / 4);
    return `
${describeProgram(form, elementType)}
${attendMemory(tile, form, elementType, product)}
${product.declarations}
${attendWalk(form)}
${withheldFunctions}${elementType === 'float16' ? withholdWords : ''}
${walked.functions()}

fn main(index : i32) {
${invocationPlace(tile)}
${ownedRows(form)}
  ${findSeenByAll(form)}

  // Empty state of the online softmax: nothing seen, all sums zero.
  var rowMax = vec${rows}<f32>(lowest);
  var rowSum = vec${rows}<f32>(0.0);
  var output : array<array<vec4<f32>, ${vectors}>, rows>;
  ${walked.start()}

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys into workgroup memory; values and the next positions on their way.
    ${walked.storeKeys()}
    // Barrier: scores read key rows (and, the first time, query rows) that others loaded.
    workgroupBarrier();
    ${walked.fetchValues()}
    ${walked.findNext()}

    // 2. Scores, masked, and the maximum of each row over this invocation's columns. The initial value is needed: without
    // one the scores of the last round stay.
    var scores = array<array<f32, columns>, rows>();
    ${product.scores}
    ${unroll(columns, (c) => `let position${c} = keyPositions[${columnOf(c)}];`)}
    ${scoresOfProducts(form, tile)}
    var columnMax = vec${rows}<f32>(lowest);
    ${unroll(rows, (r) => unroll(columns, (c) => `columnMax[${r}] = max(columnMax[${r}], scores[${r}][${c}]);`))}
    rowPartials[y * weightStride + x] = columnMax${product.raised};
    // Barrier: the maximum of a row needs the parts of all x; and no key is read any more, so values may replace them.
    workgroupBarrier();

    // 3. Weights, and what was summed so far brought to the new maximum.
    var newMax = rowMax;
    ${unroll(threadsX, (i) => `newMax = max(newMax, rowPartials[y * weightStride + ${i}]);`)}
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    ${unroll(
      rows,
      (r) => `{
      var weight : array<f32, columns>;
      ${unroll(columns, (c) => `weight[${c}] = exp2(scores[${r}][${c}] - newMax[${r}]);`)}
      rowSum[${r}] = fma(rowSum[${r}], rescale[${r}], ${unroll(columns, (c) => `weight[${c}]`, ' + ')});
      weights[(${rowOf(r)}) * weightStride + x] = ${product.storedWeights};
      ${unroll(vectors, (o) => `output[${r}][${o}] *= rescale[${r}];`)}
    }`,
    )}
    ${walked.storeValues()}
    // Barrier: the weighted sum reads the weights of all x and values that others loaded.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, ${keyTile(form, 't + 2')});
    ${walked.fetchKeys()}

    // 4. Weighted sum of values.
    ${product.weightedSum}
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }

  // 5. The sums of all columns, and the ${form.split ? 'states' : 'output'}.
  rowPartials[y * weightStride + x] = rowSum;
  // Barrier: the sum of a row needs the parts of all x.
  workgroupBarrier();
  var sum = vec${rows}<f32>(0.0);
  ${unroll(threadsX, (i) => `sum += rowPartials[y * weightStride + ${i}];`)}${form.sinks ? `\n  let sumWithSink = sum + ${sinkWeight('rowMax', `vec${rows}<f32>`)};` : ''}
  ${giveBack(tile, form, elementType)}
  ${unroll(rows, (r) => writeOutputRow(r, tile, form, elementType))}
}`;
  }
}

/** Who computes what, in which memory. */
function describeProgram({sparse, split}: AttendForm, elementType: ElementType): string {
  const chunk = `// A workgroup takes tileQueries query rows ${
    sparse ? 'of one head' : 'of the heads that read one key head (all rows of its first, then\n// of its second, …)'
  } and one of
// several chunks of the keys, evenly cut by tiles. It writes states of the softmax (see softmax_state.ts).`;
  const float16 = `//
// Products and sums of up to 16 of them are float16, two at a time; longer sums, maxima, and weights until they are stored
// are float32. Weights are at most 2⁻⁴, and query rows are scaled to that, so that no sum leaves the range of float16.
`;
  return `${split ? chunk : '// A workgroup computes the output of tileQueries query rows of one head.'} It walks over tiles of tileKeys keys${
    sparse ? ' of\n// the blocks in its list' : ''
  } and keeps, for each of its rows, the running maximum, the running sum of weights and the
// running weighted sum of values (online softmax).
//
// Invocation (x, y) owns rows y + r * threadsY. Of a score tile it computes the columns x + c * threadsX; of the output
// it keeps, in registers, the words x + o * threadsX, the row's maximum (the same in all x), and the sum of the weights
// of its own columns alone, added up over x once at the end.
//
// Workgroup memory, in words of 16 bytes (${wordValues(elementType)} values of ${elementType}): queryTile for the whole run; keyTile, first keys, then the
// values of the same keys; keyPositions, their original indices; rowPartials, the maxima (at the end: sums) of the rows
// of a y over the columns of an x; weights, of a row in the columns of an x.
${elementType === 'float16' ? float16 : ''}//
// Global memory is read ahead into registers: values while scores are computed, the next keys while values are added up,
// and the order in which they stand one step before that. A load thus has half a round to arrive.`;
}

/** Statements: adds what was withheld from this invocation's rows. */
function giveBack(tile: Tile, form: AttendForm, elementType: ElementType): string {
  const vectorsOfWord = wordValues(elementType) / 4;
  const vectors = Array.from(
    {length: partsOfRow(tile, headWords(form.valueDim, elementType)) * vectorsOfWord},
    (_, i) => vectorOf(Math.floor(i / vectorsOfWord), i % vectorsOfWord, elementType),
  );
  const rows = Array.from({length: tile.rows}, (_, r) => `firstRow + ${rowOf(r)}`);
  const last = headVectors(form.valueDim) - 1;
  const values = vectors.map((vector) => `readValue(firstKeyRow + position, min(${vector}, ${last}))`);
  return giveBackWithheld(form, rows, values, (r, i, withheld) => `output[${r}][${i}] += ${withheld};`);
}

/** Expression: which vec4 of a row is the g-th of this invocation's word o. */
const vectorOf = (o: number, g: number, elementType: ElementType): string =>
  elementType === 'float32' ? columnOf(o) : `(${columnOf(o)}) * 2 + ${g}`;

/** Statements: writes what this invocation holds of its row r: of the output, or of the row's state. */
function writeOutputRow(r: number, tile: Tile, form: AttendForm, elementType: ElementType): string {
  const {valueDim, split, sinks} = form;
  const words = headWords(valueDim, elementType);
  const vectorsOfWord = wordValues(elementType) / 4;
  const write = (vector: string, sums: string) =>
    split
      ? `writeValues(outputRow, chunk, ${vector}, ${sums});`
      : // A row that saw nothing is zeros.
        `writeOutput(outputRow, ${vector}, select(${sums} / ${sinks ? 'sumWithSink' : 'sum'}[${r}], vec4<f32>(0.0), sum[${r}] == 0.0));`;
  const writeWord = (o: number) =>
    `${ifInRow(tile, words, o)}{ ${unroll(
      vectorsOfWord,
      (g) => {
        const vector = vectorOf(o, g, elementType);
        return `${ifInHead(vector, valueDim, elementType)}{ ${write(vector, `output[${r}][${o * vectorsOfWord + g}]`)} }`;
      },
      ' ',
    )} }`;
  return `if (firstRow + ${rowOf(r)} < endRow) {
    let outputRow = head * uniforms.queryLength + firstRow + ${rowOf(r)};
    ${unroll(partsOfRow(tile, words), writeWord)}${
      split ? `\n    if (x == 0) { writeSums(outputRow, chunk, rowMax[${r}], sum[${r}]); }` : ''
    }
  }`;
}
