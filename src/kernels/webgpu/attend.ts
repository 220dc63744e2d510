import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {FlashAttentionAttrs} from '../attention_kernels.js';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import {arithmeticOf} from './arithmetic.js';
import {AttendMatrixProgram} from './attend_matrix.js';
import {attendMemory, ifInHead, listed, outputWords, products} from './attend_products.js';
import type {Held} from './attend_tile.js';
import {carriedWords, chooseAttendTile, headWords, wordValues} from './attend_tile.js';
import type {BlockPlan} from './attend_walk.js';
import {attendSpec, attendWalk, ownedRows} from './attend_walk.js';
import {AttentionProgram, headVectors, readRow} from './program.js';
import type {Tile} from './tile.js';
import {tileKeys, tileQueries, tileThreads} from './tile.js';

/**
 * Stage 4, attend: float32 `[batch, heads, length, headDim]`. Softmax attention of each query row over the keys of the
 * blocks in its list, with an online softmax (paper algorithm 1); without a plan over all keys, exact attention.
 *
 * Where float16 was asked for: on the matrix units of the device if there are some, else in the float16 of its shaders
 * if there is one, else in float32.
 */
export function attend(
  op: string,
  backend: WebGPUBackend,
  query: TensorInfo,
  key: TensorInfo,
  value: TensorInfo,
  geometry: BlockGeometry,
  {scale, causal, precision}: Pick<FlashAttentionAttrs, 'scale' | 'causal' | 'precision'>,
  plan?: BlockPlan,
): TensorInfo {
  const arithmetic = arithmeticOf(backend.device, geometry.headDim, precision);
  if (arithmetic === 'matrix units') {
    return new AttendMatrixProgram(query, key, value, geometry, scale, causal, plan).run(backend);
  }
  const blockSize = plan ? geometry.blockSize : geometry.queryLength;
  const tile = chooseAttendTile(op, backend, geometry.headDim, blockSize, arithmetic);
  return new AttendProgram(query, key, value, geometry, tile, arithmetic, scale, causal, plan).run(backend);
}

interface AttendVariant {
  tile: Tile;
  held: Held;
  headDim: number;
  causal: boolean;
  /** Whether a plan names the keys, or all of them count. */
  sparse: boolean;
}

export class AttendProgram extends AttentionProgram<AttendVariant> {
  constructor(
    query: TensorInfo,
    key: TensorInfo,
    value: TensorInfo,
    geometry: BlockGeometry,
    tile: Tile,
    held: Held,
    scale: number,
    causal: boolean,
    plan?: BlockPlan,
  ) {
    super({
      ...attendSpec(query, key, value, geometry, tileQueries(tile), scale, plan),
      threads: tileThreads(tile),
      variant: {tile, held, headDim: geometry.headDim, causal, sparse: plan !== undefined},
      ...(held === 'float16' && {extensions: ['f16' as const]}),
    });
  }

  protected shader({tile, held, headDim, causal, sparse}: AttendVariant): string {
    const {rows, columns, threadsX} = tile;
    const product = products(held, tile, headDim);
    const vectorsOfWord = wordValues(held) / 4;
    const outputs = outputWords(tile, headDim, held);
    const rounds = carriedWords(tile, headDim, held);
    const tileWords = tileKeys(tile) * headWords(headDim, held);
    // Where the tile does not divide evenly, the last round is guarded.
    const ifInTile = (j: number) => (tileWords < (j + 1) * tileThreads(tile) ? `if (load${j} < ${tileWords}) ` : '');
    const fetch = (read: string, positions: string) =>
      each(rounds, (j) => {
        // Padding reads some row that exists.
        const row = `firstKeyRow + min(${positions}[${j}], lastPosition)`;
        return each(vectorsOfWord, (g) => {
          const vector = `(load${j} % headWords) * ${vectorsOfWord} + ${g}`;
          return `fetched[${j * vectorsOfWord + g}] = ${read}(${row}, ${vector});`;
        });
      });
    const store = (word: (j: number) => string, also: (j: number) => string) =>
      each(
        rounds,
        (j) => `${ifInTile(j)}{
      keyTile[(load${j} / headWords) * tileStride + load${j} % headWords] = ${word(j)};
      ${also(j)}
    }`,
      );
    return `
// A workgroup computes the output of tileQueries query rows of one head. It walks over tiles of tileKeys keys${
      sparse ? ' of\n// the blocks in its list' : ''
    } and keeps, for each of its rows, the running maximum, the running sum of weights and the
// running weighted sum of values (online softmax).
//
// Invocation (x, y) owns rows y + r * threadsY. Of a score tile it computes the columns x + c * threadsX; of the output
// it keeps, in registers, the words x + o * threadsX, the row's maximum (the same in all x), and the sum of the weights
// of its own columns alone, added up over x once at the end.
//
// Workgroup memory, in words of 16 bytes (${wordValues(held)} values of ${held}): queryTile for the whole run; keyTile, first keys, then the
// values of the same keys; keyPositions, their original indices; rowPartials, the maxima (at the end: sums) of the rows
// of a y over the columns of an x; weights, of a row in the columns of an x.${
      held === 'float16'
        ? `
//
// Products and sums of up to 16 of them are float16, two at a time; longer sums, maxima, and weights until they are stored
// are float32.`
        : ''
    }
//
// Global memory is read ahead into registers: values while scores are computed, the next keys while values are added up,
// and the order in which they stand one step before that. A load thus has half a round to arrive.
${attendMemory(tile, headDim, held, product)}
${product.declarations}
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;
${readRow('readQuery', 'query', headDim)}
${attendWalk(headDim, sparse, causal)}
${['Query', 'Key', 'Value'].map((name) => readPadded(name, headDim, held)).join('\n')}

fn main(index : i32) {
${invocationPlace(tile)}
${ownedRows}
  if (localIndex == 0u) {
    keyTileCount = select(0, countKeyTiles(head, queryTileIndex, endRow), firstRow < endRow);
  }
  // Barriers below stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount);

  // Empty state of the online softmax: nothing seen, all sums zero.
  var rowMax = vec${rows}<f32>(lowest);
  var rowSum = vec${rows}<f32>(0.0);
  var output : array<array<vec4<f32>, ${outputs * vectorsOfWord}>, rows>;

  // What this invocation carries from global memory to keyTile: one word of a key, then of its value, a round.
  ${each(rounds, (j) => `let load${j} = local + ${j} * threads;`)}
  var positions : array<i32, ${rounds}>;
  var nextPositions : array<i32, ${rounds}>;
  var fetched : array<vec4<f32>, ${rounds * vectorsOfWord}>;
  var nextTile = keySlots(head, queryTileIndex, 0, keyTiles);
  ${each(rounds, (j) => `nextPositions[${j}] = positionIn(head, nextTile, load${j} / headWords);`)}
  nextTile = keySlots(head, queryTileIndex, 1, keyTiles);
  ${fetch('readKeyWord', 'nextPositions')}
  ${loadQueries(tile, headDim, held)}

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys into workgroup memory; values and the next positions on their way.
    ${each(rounds, (j) => `positions[${j}] = nextPositions[${j}];`)}
    ${store(product.carriedWord, (j) => `if (load${j} % headWords == 0) { keyPositions[load${j} / headWords] = positions[${j}]; }`)}
    // Barrier: scores read key rows (and, the first time, query rows) that others loaded.
    workgroupBarrier();
    ${fetch('readValueWord', 'positions')}
    ${each(rounds, (j) => `nextPositions[${j}] = positionIn(head, nextTile, load${j} / headWords);`)}

    // 2. Scores, masked, and the maximum of each row over this invocation's columns. The initial value is needed: without
    // one the scores of the last round stay.
    var scores = array<array<f32, columns>, rows>();
    ${product.scores}
    ${each(columns, (c) => `let position${c} = keyPositions[x + ${c} * threadsX];`)}
    var columnMax = vec${rows}<f32>(lowest);
    ${each(
      rows,
      (r) => `{
      let lastVisible = ${causal ? `firstRow + y + ${r} * threadsY` : 'nowhere - 1'};
      ${each(
        columns,
        (c) => `scores[${r}][${c}] = select(scores[${r}][${c}], masked, position${c} > lastVisible);
      columnMax[${r}] = max(columnMax[${r}], scores[${r}][${c}]);`,
      )}
    }`,
    )}
    rowPartials[y * rowStride + x] = columnMax;
    // Barrier: the maximum of a row needs the parts of all x; and no key is read any more, so values may replace them.
    workgroupBarrier();

    // 3. Weights, and what was summed so far brought to the new maximum.
    var newMax = rowMax;
    ${each(threadsX, (i) => `newMax = max(newMax, rowPartials[y * rowStride + ${i}]);`)}
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    ${each(
      rows,
      (r) => `{
      var weight : array<f32, columns>;
      ${each(columns, (c) => `weight[${c}] = exp2(scores[${r}][${c}] - newMax[${r}]);`)}
      rowSum[${r}] = fma(rowSum[${r}], rescale[${r}], ${listed(columns, (c) => `weight[${c}]`, ' + ')});
      weights[(y + ${r} * threadsY) * rowStride + x] = ${product.storedWeights};
      ${each(outputs * vectorsOfWord, (o) => `output[${r}][${o}] *= rescale[${r}];`)}
    }`,
    )}
    ${store(
      // Padding has no weight, but zero times a NaN is a NaN.
      (j) => `select(${product.word}(), ${product.carriedWord(j)}, positions[${j}] != nowhere)`,
      () => '',
    )}
    // Barrier: the weighted sum reads the weights of all x and values that others loaded.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, t + 2, keyTiles);
    ${fetch('readKeyWord', 'nextPositions')}

    // 4. Weighted sum of values.
    ${product.weightedSum}
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }

  // 5. The sums of all columns, and the output.
  rowPartials[y * rowStride + x] = rowSum;
  // Barrier: the sum of a row needs the parts of all x.
  workgroupBarrier();
  var sum = vec${rows}<f32>(0.0);
  ${each(threadsX, (i) => `sum += rowPartials[y * rowStride + ${i}];`)}
  ${each(rows, (r) =>
    each(
      outputs,
      (o) => `${ifInHead(tile, headDim, held, o)}{
    let row = firstRow + y + ${r} * threadsY;
    if (row < endRow) {
      ${each(vectorsOfWord, (g) => {
        const vector = `(x + ${o} * threadsX) * ${vectorsOfWord} + ${g}`;
        const mean = `output[${r}][${o * vectorsOfWord + g}] / sum[${r}]`;
        // A row that saw nothing is zeros.
        return `${ifInRow(vector, headDim, held)}{ writeOutput(head * uniforms.queryShape.z + row, ${vector}, select(${mean}, vec4<f32>(0.0), sum[${r}] == 0.0)); }`;
      })}
    }
  }`,
    ),
  )}
}`;
  }
}

/** Whether the last word of a head holds more vec4 than the head has. */
const isPadded = (headDim: number, held: Held) =>
  (headWords(headDim, held) * wordValues(held)) / 4 > headVectors(headDim);
const ifInRow = (vector: string, headDim: number, held: Held) =>
  isPadded(headDim, held) ? `if (${vector} < ${headVectors(headDim)}) ` : '';

/** A function that reads a vec4 of a word of query, key or value: zeros past the end of the head. */
function readPadded(name: string, headDim: number, held: Held): string {
  const vectors = headVectors(headDim);
  const value = isPadded(headDim, held)
    ? `select(vec4<f32>(), read${name}(row, min(vector, ${vectors - 1})), vector < ${vectors})`
    : `read${name}(row, vector)`;
  return `fn read${name}Word(row : i32, vector : i32) -> vec4<f32> { return ${value}; }`;
}

/**
 * The place (x, y) of an invocation. Neighbours take turns: the lowest bits of the index are y, x, y, x, so that any 4 of
 * them read 2 rows and 2 columns, and any 16 of them 4 and 4. A read of 16 bytes goes to workgroup memory in quarters of
 * a subgroup, two at once if neighbours share what they read.
 */
function invocationPlace({threadsX, threadsY}: Tile): string {
  if (threadsX < 4 || threadsY < 4) {
    return `  let local = i32(localIndex);
  let x = local % threadsX;
  let y = local / threadsX;`;
  }
  return `  let local = i32(localIndex);
  let x = ((local >> 1) & 1) + ((local >> 2) & 2) + 4 * ((local >> 4) % ${threadsX / 4});
  let y = (local & 1) + ((local >> 1) & 2) + 4 * ((local >> 4) / ${threadsX / 4});`;
}

/** Loads the query rows of the workgroup, scaled; zeros follow. Several loads come before the first of their stores. */
function loadQueries(tile: Tile, headDim: number, held: Held): string {
  const vectorsOfWord = wordValues(held) / 4;
  const size = tileQueries(tile) * headWords(headDim, held);
  const rounds = Math.ceil(size / tileThreads(tile));
  const atOnce = 8 / vectorsOfWord;
  const {carriedWord} = products(held, tile, headDim);
  return each(Math.ceil(rounds / atOnce), (group) => {
    const inGroup = Math.min(atOnce, rounds - group * atOnce);
    const at = (k: number) => `local + ${group * atOnce + k} * threads`;
    const isWhole = (k: number) => size >= (group * atOnce + k + 1) * tileThreads(tile);
    return `{
    var fetched = array<vec4<f32>, ${inGroup * vectorsOfWord}>();
    ${each(
      inGroup,
      (k) => `{
      let row = firstRow + (${at(k)}) / headWords;
      ${each(vectorsOfWord, (g) => {
        const read = `readQueryWord(head * uniforms.queryShape.z + row, ((${at(k)}) % headWords) * ${vectorsOfWord} + ${g})`;
        return `if (row < endRow) { fetched[${k * vectorsOfWord + g}] = uniforms.logitScale * ${read}; }`;
      })}
    }`,
    )}
    ${each(
      inGroup,
      (k) => `${isWhole(k) ? '' : `if (${at(k)} < ${size}) `}{
      queryTile[((${at(k)}) / headWords) * tileStride + (${at(k)}) % headWords] = ${carriedWord(k)};
    }`,
    )}
  }`;
  });
}
