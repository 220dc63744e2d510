import type {TensorInfo} from '@tensorflow/tfjs-core';
import {unroll} from '../../unroll.js';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUCall, WebGPUPlan} from '../webgpu_call.js';
import {readPackedRow} from '../wgsl/float16.js';
import {fragmentTypes, matrixExtensions, paddedHeadDim} from '../wgsl/matrix_units.js';
import {positionOf, slopesInTile} from '../wgsl/position_hooks.js';
import {headVectors, localOf} from '../wgsl/rows.js';
import {hookedScore} from '../wgsl/score_hooks.js';
import {shortCap} from '../wgsl/soft_cap.js';
import {sinkWeight} from '../wgsl/softmax_state.js';
import type {AttendForm} from './attend_form.js';
import {attendForm, attendSpec} from './attend_form.js';
import type {MatrixTile} from './attend_matrix_tile.js';
import {rowsOfTile, scoreStride, threads, tileSize, tileStride, weightStride} from './attend_matrix_tile.js';
import {float16Words, rowUniforms} from './float16_rows.js';
import {attendWalk, firstKeyOf, lastVisible, ownedRows, scoreOf, scoresOfRow} from './attend_walk.js';
import {findSeenByAll, giveBackWithheld, isNotSeenByAll, withheldFunctions, withholdWords} from './withheld_values.js';

/**
 * How far, in units of log2, a row's maximum may rise above the one that its sums are relative to before these are
 * brought up to it. Weights stay below 2⁸, well inside float16, and after the first tiles it hardly ever happens.
 */
const headroom = 8;

/** How the program runs. */
interface MatrixOptions {
  /** Output of `Float16RowsProgram` with queries. */
  rows: TensorInfo;
  tile: MatrixTile;
  plan?: WebGPUPlan;
}

interface MatrixForm extends AttendForm {
  tile: MatrixTile;
}

/**
 * Stage 4, attend, in float16 with float32 sums, on the matrix units of the device (`subgroup_matrix`): the same function
 * as `AttendProgram`. One shader, longer than other files: its parts share what the fragments of a subgroup hold.
 */
export class AttendMatrixProgram extends AttentionProgram<MatrixForm> {
  constructor(call: WebGPUCall, {rows, tile, plan}: MatrixOptions) {
    const form = attendForm(call, plan);
    const {inputs, ...spec} = attendSpec(call, form, {tileQueries: rowsOfTile(tile), plan});
    super({
      name: 'AttendMatrix',
      ...spec,
      inputs: {
        ...inputs,
        query: {tensor: rows, element: 'f16'},
        key: {tensor: rows, components: 4},
        value: undefined,
      },
      uniforms: {...spec.uniforms, ...rowUniforms(call, true)},
      threads,
      variant: {...form, tile, ...shortCap(call)},
      extensions: matrixExtensions,
    });
  }

  protected shader({tile, ...form}: MatrixForm): string {
    const {units, lanesOfRow, keys: tileKeys} = tile;
    const {lanes} = units;
    const {leftType, rightType, sumType} = fragmentTypes(units);
    const subgroups = threads / lanes;
    const rowsOfSubgroup = lanes / lanesOfRow;
    const strideOfScores = scoreStride(tile);
    const strideOfWeights = weightStride(tile);
    const {headDim, valueDim} = form;
    // Fragments of the subgroup's rows; of keys as columns of the scores, and as terms of the weighted sum.
    const rowFragments = rowsOfSubgroup / units.rows;
    const scoreFragments = tileKeys / units.columns;
    const weightFragments = tileKeys / units.depth;
    const headFragments = paddedHeadDim(headDim) / units.depth;
    const outputFragments = paddedHeadDim(valueDim) / units.columns;
    const outputVectors = headVectors(valueDim);
    const keyLoads = carriedRows(tile, 'key', headDim, 0);
    const valueLoads = carriedRows(tile, 'value', valueDim, tileKeys * tileStride(headDim));
    const loads = [keyLoads, valueLoads];
    // Where a value takes as many words as a key, an invocation carries the values of the keys that it carries.
    const shared = valueLoads.words === keyLoads.words;
    const positionsOf = (load: CarriedRows) => (shared ? 'keyPlaces' : `${load.tensor}Places`);
    const ownPositions = shared ? [keyLoads] : loads;
    // Under a causal mask alone most tiles are visible to all rows, and looking at positions costs a tenth of all time. Keys stand one behind the
    // other then, and what stands in their place behind the last one, the last again, is not seen by any row.
    const isCausalAlone = form.causal && !form.sparse && !form.padded && form.mask === undefined;
    // Where two invocations share a row of scores, each takes every other vec4.
    const vectorsOfLane = tileKeys / 4 / lanesOfRow;
    // The first column of its v-th: `firstColumn` and so many more.
    const firstColumn = lanesOfRow === 1 ? '0' : '4 * half';
    const columnOf = (v: number) => 4 * lanesOfRow * v;
    const ofRow = (combine: (a: string, b: string) => string, x: string) =>
      lanesOfRow === 1 ? x : combine(x, `subgroupShuffleXor(${x}, 1u)`);
    const eachRow = (text: (r: number) => string) => unroll(rowFragments, text);
    const eachLoad = (load: CarriedRows, text: (j: number, place: string) => string) =>
      unroll(load.rounds, (j) => text(j, `(local + ${j * threads})`));
    const findPositions = (next: string) =>
      ownPositions
        .map((load) =>
          eachLoad(
            load,
            (j, place) =>
              `${next}${positionsOf(load)}[${j}] = ${isCausalAlone ? `nextTile.x + ${place} / ${load.words}` : `positionIn(head, nextTile, ${place} / ${load.words})`};`,
          ),
        )
        .join('\n    ');
    const fetch = (load: CarriedRows) =>
      eachLoad(
        load,
        (j, place) =>
          `${load.tensor}Words[${j}] = key[uniforms.${load.first} + (firstKeyRow + min(${positionsOf(load)}[${j}], lastPosition)) * ${load.words} + ${place} % ${load.words}];`,
      );
    const withhold = (j: number) => {
      const position = `${positionsOf(valueLoads)}[${j}]`;
      // Padding is not stored.
      const isKey = isCausalAlone ? '' : ` && ${position} != paddingPosition`;
      return `if (${isNotSeenByAll(form, position)}${isKey}) { valueWords[${j}] = withholdWords(valueWords[${j}]); }`;
    };
    const store = (load: CarriedRows) =>
      eachLoad(load, (j, place) => {
        const isWhole = tileKeys * load.words >= (j + 1) * threads;
        const position = `${positionsOf(load)}[${j}]`;
        return `${isWhole ? '' : `if (${place} < ${tileKeys * load.words}) `}{
      let at = ${load.firstValue} + ${place} / ${load.words} * ${load.stride} + ${place} % ${load.words} * 8;
      ${
        isCausalAlone
          ? `let words = ${load.tensor}Words[${j}];`
          : `// Padding has no weight, but zero times a NaN is a NaN (more: withheld_values.ts).
      let words = select(vec4<i32>(), ${load.tensor}Words[${j}], ${position} != paddingPosition);`
      }
      let a = bitcast<vec4<f16>>(words.xy);
      let b = bitcast<vec4<f16>>(words.zw);
      ${unroll(8, (i) => `tiles[at + ${i}] = ${i < 4 ? 'a' : 'b'}[${i % 4}];`, ' ')}
      ${load === keyLoads && !isCausalAlone ? `if (${place} % ${load.words} == 0) { keyPositions[${place} / ${load.words}] = ${position}; }` : ''}
    }`;
      });
    // Slopes raise the scores of later keys, each tile's above those of the one before: last tiles first, or sums are rescaled at every one.
    const tileAt = (t: string) => (form.causal && form.slopes ? `max(keyTiles - 1 - (${t}), 0)` : t);
    const isWhole =
      isCausalAlone &&
      `firstKey + tileKeys - 1 <= ${lastVisible(form, 'firstRow')}${form.window ? ` && firstKey >= ${positionOf('endRow')} - uniforms.window` : ''}`;
    const inTile = form.slopes ? slopesInTile : undefined;
    // Of a tile that all rows see.
    const wholeScore = (score: string, column: number) => {
      const hooked = hookedScore({...form, window: undefined, ...(inTile && {slopes: undefined})}, score, '');
      return inTile ? inTile.scoreOf(hooked, column) : hooked;
    };
    const positionIn = (column: number) =>
      isCausalAlone ? `(firstKey + firstColumn + ${column})` : `keyPositions[firstColumn + ${column}]`;
    const readScores = (scoreAt: (score: string, column: number) => string) =>
      unroll(
        vectorsOfLane,
        (v) => `{
      ${unroll(4, (c) => `x[${v}][${c}] = ${scoreAt(`scoreRows[row * ${strideOfScores} + firstColumn + ${columnOf(v) + c}]`, columnOf(v) + c)};`)}
      newMax = max(newMax, max(max(x[${v}].x, x[${v}].y), max(x[${v}].z, x[${v}].w)));
    }`,
      );
    const scoresAt = (r: number) => `(firstTileRow + ${r * units.rows}u) * ${strideOfScores}u`;
    const output = (r: number, o: number) => `output${r}_${o}`;
    // The columns of the output go out one fragment after the other; `use` has one in scoreRows.
    const throughMemory = (use: (o: number) => string) =>
      unroll(
        outputFragments,
        (
          o,
        ) => `${eachRow((r) => `subgroupMatrixStore<row_major>(&scoreRows, ${scoresAt(r)}, ${output(r, o)}, ${strideOfScores}u);`)}
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      ${use(o)}
      workgroupBarrier();`,
      );
    return `
// A workgroup computes the output of ${rowsOfTile(tile)} query rows of one head; each of its ${subgroups} subgroups owns ${rowsOfSubgroup} of them. It walks
// over tiles of ${tileKeys} keys with an online softmax, whose products run on matrix units: float16 in, float32 sums.
//
// Who holds an element of a matrix in registers is not known, so everything that is done by row passes through workgroup
// memory: scores go out, ${lanesOfRow === 1 ? 'an invocation turns' : 'two neighbouring invocations turn'} a row of them into weights, and the weights come back as a
// matrix. The output matrices stay in registers, relative to a maximum that follows the row's true one with some
// headroom; only when that is used up do they go out to be scaled.
//
// Workgroup memory: tiles holds keys, then values, float16; scores and weights have
// a part for each subgroup. Keys and values of the next tile are read from global memory while this one is computed. Each variable
// takes whole 16 bytes: a driver may put them in any order, and fragments must begin there.
const threads = ${threads};
const tileQueries = ${rowsOfTile(tile)};
const tileKeys = ${tileKeys};
var<workgroup> tiles : array<f16, ${tileSize(form, tile)}>;
${attendWalk(form)}
${withheldFunctions}
${withholdWords}
${readPackedRow('readValue', 'key', paddedHeadDim(valueDim), 'uniforms.firstValue')}
var<workgroup> scoreRows : array<f32, ${rowsOfTile(tile) * strideOfScores}>;
var<workgroup> weightRows : array<f16, ${rowsOfTile(tile) * strideOfWeights}>;
${isCausalAlone ? '' : 'var<workgroup> keyPositions : array<i32, tileKeys>;\n'}var<workgroup> anyRescale : array<atomic<u32>, 4>;

fn main(index : i32) {
  ${localOf(threads)}
  let subgroup = local / ${lanes};
  let lane = local % ${lanes};
  // This invocation's row in the workgroup's tile${lanesOfRow === 1 ? '' : ', shared with its neighbour'}.
  let row = subgroup * ${rowsOfSubgroup} + ${lanesOfRow === 1 ? 'lane' : 'lane / 2;\n  let half = lane % 2'};
  let firstColumn = ${firstColumn};
  if (local == 0) {
    atomicStore(&anyRescale[0], 0u);
  }
${ownedRows(form)}
  ${findSeenByAll(form)}

  // Rows past the last one of a head are rows of others, which nobody writes.
  let firstTileRow = u32(subgroup * ${rowsOfSubgroup});
  let firstQuery = u32(head * uniforms.queryLength + max(firstRow, 0)) + firstTileRow;
  ${eachRow((r) =>
    unroll(
      headFragments,
      (d) =>
        `let query${r}_${d} = subgroupMatrixLoad<${leftType}, row_major>(&query, (firstQuery + ${r * units.rows}u) * ${paddedHeadDim(headDim)}u + ${d * units.depth}u, ${paddedHeadDim(headDim)}u);`,
    ),
  )}

  ${loads.map(({tensor, rounds}) => `var ${tensor}Words : array<vec4<i32>, ${rounds}>;`).join('\n  ')}
  ${ownPositions.map((load) => `var ${positionsOf(load)} : array<i32, ${load.rounds}>;\n  var next${positionsOf(load)} : array<i32, ${load.rounds}>;`).join('\n  ')}
  var nextTile = keySlots(head, queryTileIndex, ${tileAt('0')}, keyTiles);
  ${findPositions('')}
  ${loads.map(fetch).join('\n  ')}
  nextTile = keySlots(head, queryTileIndex, ${tileAt('1')}, keyTiles);
  ${findPositions('next')}

  var rowMax = lowest;
  var rowSum = 0.0;
  ${eachRow((r) => unroll(outputFragments, (o) => `var ${output(r, o)} = ${sumType}();`))}

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys and values into workgroup memory; the next ones on their way, and the positions of those behind them.
    ${unroll(valueLoads.rounds, withhold)}
    ${loads.map(store).join('\n    ')}
    ${ownPositions.map((load) => unroll(load.rounds, (j) => `${positionsOf(load)}[${j}] = next${positionsOf(load)}[${j}];`)).join('\n    ')}
    ${loads.map(fetch).join('\n    ')}
    nextTile = keySlots(head, queryTileIndex, ${tileAt('t + 2')}, keyTiles);
    ${findPositions('next')}
    // Barrier: all subgroups read all keys and values.
    workgroupBarrier();

    // 2. Scores.
    ${eachRow((r) => unroll(scoreFragments, (c) => `var scores${r}_${c} = ${sumType}();`))}
    ${unroll(headFragments, (d) =>
      unroll(
        scoreFragments,
        (c) => `{
        let keys = subgroupMatrixLoad<${rightType}, col_major>(&tiles, ${c * units.columns * keyLoads.stride + d * units.depth}u, ${keyLoads.stride}u);
        ${eachRow((r) => `scores${r}_${c} = subgroupMatrixMultiplyAccumulate(query${r}_${d}, keys, scores${r}_${c});`)}
      }`,
      ),
    )}
    ${eachRow((r) => unroll(scoreFragments, (c) => `subgroupMatrixStore<row_major>(&scoreRows, ${scoresAt(r)} + ${c * units.columns}u, scores${r}_${c}, ${strideOfScores}u);`))}
    // Barrier: rows of scores are read by other invocations than those that stored them.
    workgroupBarrier();

    // 3. Weights.${isCausalAlone ? `\n    let firstKey = ${firstKeyOf(form, tileAt('t'))};` : ''}
    ${scoresOfRow(form, 'firstRow + row')}
    var x : array<vec4<f32>, ${vectorsOfLane}>;
    var newMax = masked;
    ${isWhole ? `if (${isWhole}) {${inTile ? `\n      ${inTile.ofRow('firstKey + firstColumn')}\n      ` : ''}${readScores(wholeScore)}} else ` : ''}{${readScores((score, column) => scoreOf(form, score, positionIn(column)))}}
    newMax = ${ofRow((a, b) => `max(${a}, ${b})`, 'newMax')};
    var rescale = 1.0;
    if (newMax > rowMax + ${headroom.toFixed(1)}) {
      // What a row that saw nothing so far has summed is zero.
      if (rowMax > lowest) {
        atomicStore(&anyRescale[0], 1u);
      }
      rescale = exp2(rowMax - newMax);
      rowSum *= rescale;
      rowMax = newMax;
    }
    ${unroll(
      vectorsOfLane,
      (v) => `{
      let weights = exp2(x[${v}] - rowMax);
      ${unroll(4, (c) => `weightRows[row * ${strideOfWeights} + firstColumn + ${columnOf(v) + c}] = f16(weights[${c}]);`)}
      rowSum += (weights.x + weights.y) + (weights.z + weights.w);
    }`,
    )}
    // Barriers, of the load: weights are read as matrices; and whether any row rises must be known to all alike.
    if (workgroupUniformLoad(&anyRescale[0]) != 0u) {
      ${throughMemory(
        (o) => `for (var i = ${lanesOfRow === 1 ? 0 : 'half'}; i < ${units.columns}; i += ${lanesOfRow}) {
        scoreRows[row * ${strideOfScores} + i] *= rescale;
      }
      workgroupBarrier();
      ${eachRow((r) => `${output(r, o)} = subgroupMatrixLoad<${sumType}, row_major>(&scoreRows, ${scoresAt(r)}, ${strideOfScores}u);`)}`,
      )}
      atomicStore(&anyRescale[0], 0u);
    }

    // 4. Weighted sum of values.
    ${eachRow((r) => unroll(weightFragments, (c) => `let weights${r}_${c} = subgroupMatrixLoad<${leftType}, row_major>(&weightRows, (firstTileRow + ${r * units.rows}u) * ${strideOfWeights}u + ${c * units.depth}u, ${strideOfWeights}u);`))}
    ${unroll(outputFragments, (o) =>
      unroll(
        weightFragments,
        (c) => `{
        let values = subgroupMatrixLoad<${rightType}, row_major>(&tiles, ${valueLoads.firstValue + c * units.depth * valueLoads.stride + o * units.columns}u, ${valueLoads.stride}u);
        ${eachRow((r) => `${output(r, o)} = subgroupMatrixMultiplyAccumulate(weights${r}_${c}, values, ${output(r, o)});`)}
      }`,
      ),
    )}
    // Barrier: the next round overwrites keys, values and weights.
    workgroupBarrier();
  }

  // 5. The output, by way of workgroup memory.
  let total = ${ofRow((a, b) => `${a} + ${b}`, 'rowSum')};${form.sinks ? `\n  let totalWithSink = total + ${sinkWeight('rowMax')};` : ''}
  ${throughMemory(
    (o) => `for (var i = ${lanesOfRow === 1 ? 0 : 'half'}; i < ${units.columns / 4}; i += ${lanesOfRow}) {
    let vector = ${(o * units.columns) / 4} + i;
    if (firstRow + row < endRow && vector < ${outputVectors}) {
      let at = row * ${strideOfScores} + 4 * i;
      var x = vec4<f32>(scoreRows[at], scoreRows[at + 1], scoreRows[at + 2], scoreRows[at + 3]);
      ${giveBackWithheld(form, ['firstRow + row'], ['readValue(firstKeyRow + position, vector)'], (_r, _v, withheld) => `x += ${withheld};`)}
      // A row that saw nothing is zeros.
      writeOutput(head * uniforms.queryLength + firstRow + row, vector, select(x / ${form.sinks ? 'totalWithSink' : 'total'}, vec4<f32>(0.0), total == 0.0));
    }
  }`,
  )}
}`;
  }
}

/** The words of keys, or of values, of 16 bytes, that an invocation carries from global to workgroup memory, one a round. */
interface CarriedRows {
  tensor: 'key' | 'value';
  /** The uniform that says where their rows begin. */
  first: 'firstKey' | 'firstValue';
  /** Words of a row. */
  words: number;
  rounds: number;
  /** Where their tile begins in tiles, and from one row to the next there. */
  firstValue: number;
  stride: number;
}

function carriedRows({keys}: MatrixTile, tensor: 'key' | 'value', dim: number, firstValue: number): CarriedRows {
  const words = float16Words(dim);
  const first = tensor === 'key' ? 'firstKey' : 'firstValue';
  return {tensor, first, words, rounds: Math.ceil((keys * words) / threads), firstValue, stride: tileStride(dim)};
}
