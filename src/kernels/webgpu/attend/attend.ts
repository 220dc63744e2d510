import type {TensorInfo} from '@tensorflow/tfjs-core';
import {unroll} from '../../unroll.js';
import type {HeadDims} from '../runtime/device_limits.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import type {WebGPUCall, WebGPUPlan} from '../webgpu_call.js';
import {headVectors, readRow} from '../wgsl/rows.js';
import {noScores} from '../wgsl/softmax_state.js';
import type {Tile} from '../wgsl/tile.js';
import {invocationPlace, tileKeys, tileQueries, tileThreads} from '../wgsl/tile.js';
import {arithmeticOf} from './arithmetic.js';
import {AttendMatrixProgram} from './attend_matrix.js';
import {attendMemory, ifInHead, outputWords, products, valueWords} from './attend_products.js';
import type {AttendOptions} from './attend_split.js';
import {CombineStatesProgram, splitOf} from './attend_split.js';
import type {ElementType} from './attend_tile.js';
import {carriedWords, chooseAttendTile, chooseFewRowTile, headWords, wordValues} from './attend_tile.js';
import type {AttendForm} from './attend_walk.js';
import {
  attendForm,
  attendSpec,
  attendWalk,
  countTiles,
  keyTile,
  lastVisible,
  maskStart,
  ownedRows,
  withMask,
} from './attend_walk.js';

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
  const split = splitOf(call, arithmetic, plan);
  if (split) {
    return withScratch(backend, (scratch) => {
      const states = scratch(new AttendProgram(call, split).run(backend));
      return new CombineStatesProgram(states, geometry).run(backend);
    });
  }
  if (arithmetic === 'matrix units') {
    return new AttendMatrixProgram(call, plan).run(backend);
  }
  const fewRows = plan ? undefined : chooseFewRowTile(call, arithmetic, geometry.queryLength);
  const tile = fewRows ?? chooseAttendTile(call, arithmetic, plan && geometry.blockSize);
  return new AttendProgram(call, {tile, elementType: arithmetic, plan}).run(backend);
}

interface AttendVariant extends AttendForm {
  tile: Tile;
  elementType: ElementType;
}

/** The output; or, given a number of chunks, states of the softmax: `[batch * heads * queryLength, chunks, …]`. */
export class AttendProgram extends AttentionProgram<AttendVariant> {
  constructor(call: WebGPUCall, {tile, elementType, plan, chunks}: AttendOptions) {
    const form = attendForm(call, plan, chunks !== undefined);
    super({
      name: 'Attend',
      ...attendSpec(call, form, {tileQueries: tileQueries(tile), plan, chunks}),
      threads: tileThreads(tile),
      variant: {tile, elementType, ...form},
      ...(elementType === 'float16' && {extensions: ['f16' as const]}),
    });
  }

  protected shader({tile, elementType, ...form}: AttendVariant): string {
    const {headDim, valueDim, sparse, split} = form;
    const {rows, columns, threadsX} = tile;
    const product = products(elementType, tile, form);
    const vectorsOfWord = wordValues(elementType) / 4;
    const outputs = outputWords(tile, form, elementType);
    const keyRounds = carriedWords(tile, headDim, elementType);
    const valueRounds = carriedWords(tile, valueDim, elementType);
    const rounds = Math.max(keyRounds, valueRounds);
    // Where a tile does not divide evenly, the last round is guarded.
    const ifInTile = (j: number, dim: number) => {
      const tileWords = tileKeys(tile) * headWords(dim, elementType);
      return tileWords < (j + 1) * tileThreads(tile) ? `if (load${j} < ${tileWords}) ` : '';
    };
    const fetch = (read: string, count: number, words: string, position: (j: number) => string) =>
      unroll(count, (j) => {
        // Padding reads some row that exists.
        const row = `firstKeyRow + min(${position(j)}, lastPosition)`;
        return unroll(vectorsOfWord, (g) => {
          const vector = `(load${j} % ${words}) * ${vectorsOfWord} + ${g}`;
          return `fetched[${j * vectorsOfWord + g}] = ${read}(${row}, ${vector});`;
        });
      });
    const fetchKeys = fetch('readKeyWord', keyRounds, 'headWords', (j) => `nextPositions[${j}]`);
    // Where values take other words than keys, an invocation carries other keys' values.
    const valuePosition = (j: number) => (valueDim === headDim ? `positions[${j}]` : `valuePosition${j}`);
    const store = (
      dim: number,
      words: string,
      count: number,
      word: (j: number) => string,
      also: (j: number) => string,
    ) =>
      unroll(
        count,
        (j) => `${ifInTile(j, dim)}{
      keyTile[(load${j} / ${words}) * tileStride + load${j} % ${words}] = ${word(j)};
      ${also(j)}
    }`,
      );
    return `
${split ? ownsChunk(sparse) : '// A workgroup computes the output of tileQueries query rows of one head.'} It walks over tiles of tileKeys keys${
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
// of a y over the columns of an x; weights, of a row in the columns of an x.${
      elementType === 'float16'
        ? `
//
// Products and sums of up to 16 of them are float16, two at a time; longer sums, maxima, and weights until they are stored
// are float32.`
        : ''
    }
//
// Global memory is read ahead into registers: values while scores are computed, the next keys while values are added up,
// and the order in which they stand one step before that. A load thus has half a round to arrive.
${attendMemory(tile, form, elementType, product)}
${product.declarations}${noScores}
${readRow('readQuery', 'query', headDim)}
${attendWalk(form)}
${['Query', 'Key'].map((name) => readPadded(name, headDim, elementType)).join('\n')}
${readPadded('Value', valueDim, elementType)}

fn main(index : i32) {
${invocationPlace(tile)}
${ownedRows(form)}
${countTiles(form, 'localIndex == 0u')}
  // Barriers below stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount);

  // Empty state of the online softmax: nothing seen, all sums zero.
  var rowMax = vec${rows}<f32>(lowest);
  var rowSum = vec${rows}<f32>(0.0);
  var output : array<array<vec4<f32>, ${outputs * vectorsOfWord}>, rows>;

  // What this invocation carries from global memory to keyTile: one word of a key, then of its value, a round.
  ${unroll(rounds, (j) => `let load${j} = local + ${j} * threads;`)}
  var positions : array<i32, ${keyRounds}>;
  var nextPositions : array<i32, ${keyRounds}>;
  var fetched : array<vec4<f32>, ${rounds * vectorsOfWord}>;
  var nextTile = keySlots(head, queryTileIndex, ${keyTile(form, '0')});
  ${unroll(keyRounds, (j) => `nextPositions[${j}] = positionIn(head, nextTile, load${j} / headWords);`)}
  nextTile = keySlots(head, queryTileIndex, ${keyTile(form, '1')});
  ${fetchKeys}
  ${loadQueries(tile, form, elementType)}

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys into workgroup memory; values and the next positions on their way.
    ${unroll(keyRounds, (j) => `positions[${j}] = nextPositions[${j}];`)}
    ${store(headDim, 'headWords', keyRounds, product.carriedWord, (j) => `if (load${j} % headWords == 0) { keyPositions[load${j} / headWords] = positions[${j}]; }`)}
    // Barrier: scores read key rows (and, the first time, query rows) that others loaded.
    workgroupBarrier();
    ${valueDim === headDim ? '' : unroll(valueRounds, (j) => `let valuePosition${j} = keyPositions[min(load${j} / valueWords, tileKeys - 1)];`) + '\n    '}${fetch('readValueWord', valueRounds, valueWords(form), valuePosition)}
    ${unroll(keyRounds, (j) => `nextPositions[${j}] = positionIn(head, nextTile, load${j} / headWords);`)}

    // 2. Scores, masked, and the maximum of each row over this invocation's columns. The initial value is needed: without
    // one the scores of the last round stay.
    var scores = array<array<f32, columns>, rows>();
    ${product.scores}
    ${unroll(columns, (c) => `let position${c} = keyPositions[x + ${c} * threadsX];`)}
    var columnMax = vec${rows}<f32>(lowest);
    ${unroll(
      rows,
      (r) => `{
      let lastVisible = ${lastVisible(form, `firstRow + y + ${r} * threadsY`)};
      ${form.mask ? `let maskStart = ${maskStart(form, `firstRow + y + ${r} * threadsY`)};\n      ` : ''}${unroll(
        columns,
        (
          c,
        ) => `scores[${r}][${c}] = select(${withMask(form, `scores[${r}][${c}]`, `position${c}`)}, masked, position${c} > lastVisible);
      columnMax[${r}] = max(columnMax[${r}], scores[${r}][${c}]);`,
      )}
    }`,
    )}
    rowPartials[y * weightStride + x] = columnMax;
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
      weights[(y + ${r} * threadsY) * weightStride + x] = ${product.storedWeights};
      ${unroll(outputs * vectorsOfWord, (o) => `output[${r}][${o}] *= rescale[${r}];`)}
    }`,
    )}
    ${store(
      valueDim,
      valueWords(form),
      valueRounds,
      // Padding has no weight, but zero times a NaN is a NaN.
      (j) => `select(${product.word}(), ${product.carriedWord(j)}, ${valuePosition(j)} != paddingPosition)`,
      () => '',
    )}
    // Barrier: the weighted sum reads the weights of all x and values that others loaded.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, ${keyTile(form, 't + 2')});
    ${fetchKeys}

    // 4. Weighted sum of values.
    ${product.weightedSum}
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }

  // 5. The sums of all columns, and the ${split ? 'states' : 'output'}.
  rowPartials[y * weightStride + x] = rowSum;
  // Barrier: the sum of a row needs the parts of all x.
  workgroupBarrier();
  var sum = vec${rows}<f32>(0.0);
  ${unroll(threadsX, (i) => `sum += rowPartials[y * weightStride + ${i}];`)}
  ${unroll(rows, (r) =>
    unroll(
      outputs,
      (o) => `${ifInHead(tile, form, elementType, o)}{
    let row = firstRow + y + ${r} * threadsY;
    if (row < endRow) {
      ${unroll(vectorsOfWord, (g) => {
        const vector = `(x + ${o} * threadsX) * ${vectorsOfWord} + ${g}`;
        const sums = `output[${r}][${o * vectorsOfWord + g}]`;
        const at = 'head * uniforms.queryShape.z + row';
        return `${ifInRow(vector, valueDim, elementType)}{ ${
          split
            ? `writeValues(${at}, chunk, ${vector}, ${sums});`
            : // A row that saw nothing is zeros.
              `writeOutput(${at}, ${vector}, select(${sums} / sum[${r}], vec4<f32>(0.0), sum[${r}] == 0.0));`
        } }`;
      })}
    }
  }`,
    ),
  )}${split ? `\n  ${unroll(rows, writeRowSums)}` : ''}
}`;
  }
}

/** What a workgroup computes if it takes a chunk of the keys alone. */
const ownsChunk = (sparse: boolean) => `// A workgroup takes tileQueries query rows ${
  sparse
    ? 'of one head'
    : `of the heads that read one key head (all rows of its first, then
// of its second, …)`
} and one of
// several chunks of the keys, evenly cut by tiles. It writes states of the softmax (see softmax_state.ts).`;

/** Maximum and sum of a row, by the invocation of its first column. */
const writeRowSums = (r: number) => `if (x == 0 && firstRow + y + ${r} * threadsY < endRow) {
    writeSums(head * uniforms.queryShape.z + firstRow + y + ${r} * threadsY, chunk, rowMax[${r}], sum[${r}]);
  }`;

/** Whether the last word of a head holds more vec4 than the head has. */
const isPadded = (headDim: number, elementType: ElementType) =>
  (headWords(headDim, elementType) * wordValues(elementType)) / 4 > headVectors(headDim);
const ifInRow = (vector: string, headDim: number, elementType: ElementType) =>
  isPadded(headDim, elementType) ? `if (${vector} < ${headVectors(headDim)}) ` : '';

/** A function that reads a vec4 of a word of query, key or value: zeros past the end of the head. */
function readPadded(name: string, headDim: number, elementType: ElementType): string {
  const vectors = headVectors(headDim);
  const value = isPadded(headDim, elementType)
    ? `select(vec4<f32>(), read${name}(row, min(vector, ${vectors - 1})), vector < ${vectors})`
    : `read${name}(row, vector)`;
  return `fn read${name}Word(row : i32, vector : i32) -> vec4<f32> { return ${value}; }`;
}

/** Loads the query rows of the workgroup, scaled; zeros follow. Several loads come before the first of their stores. */
function loadQueries(tile: Tile, dims: HeadDims, elementType: ElementType): string {
  const vectorsOfWord = wordValues(elementType) / 4;
  const size = tileQueries(tile) * headWords(dims.headDim, elementType);
  const rounds = Math.ceil(size / tileThreads(tile));
  const atOnce = 8 / vectorsOfWord;
  const {carriedWord} = products(elementType, tile, dims);
  return unroll(Math.ceil(rounds / atOnce), (group) => {
    const inGroup = Math.min(atOnce, rounds - group * atOnce);
    const at = (k: number) => `local + ${group * atOnce + k} * threads`;
    const isWhole = (k: number) => size >= (group * atOnce + k + 1) * tileThreads(tile);
    return `{
    var fetched = array<vec4<f32>, ${inGroup * vectorsOfWord}>();
    ${unroll(
      inGroup,
      (k) => `{
      let row = firstRow + (${at(k)}) / headWords;
      ${unroll(vectorsOfWord, (g) => {
        const read = `readQueryWord(head * uniforms.queryShape.z + row, ((${at(k)}) % headWords) * ${vectorsOfWord} + ${g})`;
        return `if (row < endRow) { fetched[${k * vectorsOfWord + g}] = uniforms.logitScale * ${read}; }`;
      })}
    }`,
    )}
    ${unroll(
      inGroup,
      (k) => `${isWhole(k) ? '' : `if (${at(k)} < ${size}) `}{
      queryTile[((${at(k)}) / headWords) * tileStride + (${at(k)}) % headWords] = ${carriedWord(k)};
    }`,
    )}
  }`;
  });
}
