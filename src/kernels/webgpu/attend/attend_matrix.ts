import type {TensorInfo} from '@tensorflow/tfjs-core';
import {unroll} from '../../unroll.js';
import {fragment, hasMatrixUnits, subgroupSize} from '../runtime/device_features.js';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {HeadDims} from '../runtime/device_limits.js';
import {AttentionProgram, i32} from '../runtime/program.js';
import type {WebGPUCall, WebGPUPlan} from '../webgpu_call.js';
import {leftType, matrixExtensions, paddedHeadDim, rightType, sumType} from '../wgsl/matrix_units.js';
import {positionOf} from '../wgsl/position_hooks.js';
import {headVectors, localOf} from '../wgsl/rows.js';
import {hookedScore} from '../wgsl/score_hooks.js';
import {sinkWeight} from '../wgsl/softmax_state.js';
import type {AttendForm} from './attend_form.js';
import {attendForm, attendSpec} from './attend_form.js';
import {float16Layout, float16Words} from './float16_rows.js';
import {attendWalk, firstKeyOf, lastVisible, ownedRows, scoreOf, scoresOfRow} from './attend_walk.js';
import {findSeenByAll, giveBackWithheld, isNotSeenByAll, withheldFunctions} from './withheld_values.js';

/** Subgroups a workgroup. */
const subgroups = 4;
const threads = subgroups * subgroupSize;

/** More keys at a time take the room of other workgroups (docs/performance.md, 2026-11-29). */
const tileKeys = fragment;

/**
 * Fragments of query rows of a subgroup; the softmax gives each row to two invocations. Two of them share what is read of keys and
 * values, as far as registers hold their queries and outputs, blocks of queries hold so many, and there are workgroups enough.
 */
function chooseRowFragments(geometry: BlockGeometry, sparse: boolean): 1 | 2 {
  const {batch, heads, queryLength, blockSize} = geometry;
  const fills = !sparse || blockSize % (2 * subgroups * fragment) === 0;
  const isMany = batch * heads * queryLength >= AttendMatrixProgram.manyRows;
  return fills && isMany ? mostRowFragments(geometry) : 1;
}

const mostRowFragments = ({headDim, valueDim}: HeadDims): 1 | 2 => (Math.max(headDim, valueDim) <= 64 ? 2 : 1);

const rowsOfTile = (rowFragments: number) => subgroups * rowFragments * fragment;
/**
 * How far, in units of log2, a row's maximum may rise above the one that its sums are relative to before these are
 * brought up to it. Weights stay below 2⁸, well inside float16, and after the first tiles it hardly ever happens.
 */
const headroom = 8;

// Strides of rows in workgroup memory: multiples of 16 bytes, padded so that consecutive rows lie in different banks.
const tileStride = (headDim: number) => paddedHeadDim(headDim) + 8;
const scoreStride = tileKeys + 4;
const weightStride = tileKeys + 8;
/** float16 values of the tiles: keys and values. */
const tileSize = ({headDim, valueDim}: HeadDims) => tileKeys * (tileStride(headDim) + tileStride(valueDim));

/** Workgroup memory that the program declares. */
function matrixBytes(dims: HeadDims, rowFragments: number): number {
  const rows = rowsOfTile(rowFragments);
  const scores = 4 * rows * scoreStride;
  const weights = 2 * rows * weightStride;
  const positionsAndRescales = 4 * (tileKeys + rows);
  const flags = 3 * 16;
  return 2 * tileSize(dims) + scores + weights + positionsAndRescales + flags;
}

/** Whether the device has matrix units of the kind that the program uses, and the workgroup memory for the head dims. */
export function matrixUnitsFit(device: GPUDevice, dims: HeadDims): boolean {
  const fits = matrixBytes(dims, mostRowFragments(dims)) <= device.limits.maxComputeWorkgroupStorageSize;
  return fits && hasMatrixUnits(device);
}

interface MatrixForm extends AttendForm {
  rowFragments: 1 | 2;
}

/**
 * Stage 4, attend, in float16 with float32 sums, on the matrix units of the device (`subgroup_matrix`): the same function
 * as `AttendProgram`. One shader, longer than other files: its parts share what the fragments of a subgroup hold.
 */
export class AttendMatrixProgram extends AttentionProgram<MatrixForm> {
  /**
   * Query rows of all heads from which on workgroups of twice the rows keep a GPU busy (docs/performance.md, 2026-11-29). Tests lower it.
   */
  static manyRows = 65_536;

  /** @param rows of `Float16RowsProgram`. */
  constructor(call: WebGPUCall, rows: TensorInfo, plan?: WebGPUPlan) {
    const form = attendForm(call, plan);
    const rowFragments = chooseRowFragments(call.geometry, plan !== undefined);
    const layout = float16Layout(call);
    const {inputs, ...spec} = attendSpec(call, form, {tileQueries: rowsOfTile(rowFragments), plan});
    super({
      name: 'AttendMatrix',
      ...spec,
      inputs: {
        ...inputs,
        query: {tensor: rows, element: 'f16'},
        key: {tensor: rows, components: 4},
        value: undefined,
      },
      uniforms: {...spec.uniforms, firstKey: i32(layout.keys), firstValue: i32(layout.values)},
      threads,
      variant: {...form, rowFragments},
      extensions: matrixExtensions,
    });
  }

  protected shader({rowFragments, ...form}: MatrixForm): string {
    const {headDim, valueDim} = form;
    const headFragments = paddedHeadDim(headDim) / fragment;
    const outputFragments = paddedHeadDim(valueDim) / fragment;
    const outputVectors = headVectors(valueDim);
    const rowsOfSubgroup = rowFragments * fragment;
    const keyLoads = carriedRows('key', headDim, 0);
    const valueLoads = carriedRows('value', valueDim, tileKeys * tileStride(headDim));
    const loads = [keyLoads, valueLoads];
    // Where a value takes as many words as a key, an invocation carries the values of the keys that it carries.
    const shared = valueLoads.words === keyLoads.words;
    const positionsOf = (load: CarriedRows) => (shared ? 'keyPlaces' : `${load.tensor}Places`);
    const ownPositions = shared ? [keyLoads] : loads;
    // Two invocations share a row of scores: each takes every other vec4.
    const vectorsOfRow = tileKeys / 4 / 2;
    const eachRow = (text: (r: number) => string) => unroll(rowFragments, text);
    const eachLoad = (load: CarriedRows, text: (j: number, place: string) => string) =>
      unroll(load.rounds, (j) => text(j, `(local + ${j * threads})`));
    const findPositions = (next: string) =>
      ownPositions
        .map((load) =>
          eachLoad(
            load,
            (j, place) => `${next}${positionsOf(load)}[${j}] = positionIn(head, nextTile, ${place} / ${load.words});`,
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
      return `if (${isNotSeenByAll(form, position)} && ${position} != paddingPosition) { valueWords[${j}] = withholdWords(valueWords[${j}]); }`;
    };
    const store = (load: CarriedRows) =>
      eachLoad(load, (j, place) => {
        const isWhole = tileKeys * load.words >= (j + 1) * threads;
        const position = `${positionsOf(load)}[${j}]`;
        return `${isWhole ? '' : `if (${place} < ${tileKeys * load.words}) `}{
      let at = ${load.firstValue} + ${place} / ${load.words} * ${load.stride} + ${place} % ${load.words} * 8;
      // Padding has no weight, but zero times a NaN is a NaN (more: withheld_values.ts).
      let words = select(vec4<i32>(), ${load.tensor}Words[${j}], ${position} != paddingPosition);
      let a = bitcast<vec4<f16>>(words.xy);
      let b = bitcast<vec4<f16>>(words.zw);
      ${unroll(8, (i) => `tiles[at + ${i}] = ${i < 4 ? 'a' : 'b'}[${i % 4}];`, ' ')}
      ${load === keyLoads ? `if (${place} % ${load.words} == 0) { keyPositions[${place} / ${load.words}] = ${position}; }` : ''}
    }`;
      });
    // Under a causal mask alone most tiles are visible to all rows, and looking at positions costs a tenth of all time.
    const isCausalAlone = form.causal && !form.sparse && !form.padded && form.mask === undefined;
    const isWhole =
      isCausalAlone &&
      (form.window
        ? `firstKey + tileKeys - 1 <= ${lastVisible(form, 'firstRow')} && firstKey >= ${positionOf('endRow')} - uniforms.window`
        : `(t + 1) * tileKeys - 1 <= ${lastVisible(form, 'firstRow')}`);
    // Of a tile that all rows see.
    const wholeScore = (score: string, position: string) => hookedScore({...form, window: undefined}, score, position);
    const readScores = (r: number, scoreAt: (score: string, column: string) => string) =>
      unroll(
        vectorsOfRow,
        (v) => `{
      let column = 4 * (half + ${2 * v});
      ${unroll(4, (c) => `x[${v}][${c}] = ${scoreAt(`scoreRows[row${r} * ${scoreStride} + column + ${c}]`, `column + ${c}`)};`)}
      newMax = max(newMax, max(max(x[${v}].x, x[${v}].y), max(x[${v}].z, x[${v}].w)));
    }`,
      );
    const scoresAt = (r: number) => `(firstTileRow + ${r * fragment}u) * ${scoreStride}u`;
    const output = (r: number, o: number) => `output${r}_${o}`;
    // The output fragments of row fragment r go out one after the other; `use` has one in scoreRows.
    const throughMemory = (r: number, use: (o: number) => string) =>
      unroll(
        outputFragments,
        (o) => `subgroupMatrixStore<row_major>(&scoreRows, ${scoresAt(r)}, ${output(r, o)}, ${scoreStride}u);
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      ${use(o)}
      workgroupBarrier();`,
      );
    return `
// A workgroup computes the output of ${rowsOfTile(rowFragments)} query rows of one head; each of its ${subgroups} subgroups owns ${rowsOfSubgroup} of them. It walks
// over tiles of ${tileKeys} keys with an online softmax, whose products run on matrix units: float16 in, float32 sums.
//
// Who holds an element of a matrix in registers is not known, so everything that is done by row passes through workgroup
// memory: scores go out, two neighbouring invocations turn a row of them into weights, and the weights come back as a
// matrix. The output matrices stay in registers, relative to a maximum that follows the row's true one with some
// headroom; only when that is used up do they go out to be scaled.
//
// Workgroup memory: tiles holds keys, then values, float16; scores and weights have
// a part for each subgroup. Keys and values of the next tile are read from global memory while this one is computed. Each variable
// takes whole 16 bytes: a driver may put them in any order, and fragments must begin there.
const threads = ${threads};
const tileQueries = ${rowsOfTile(rowFragments)};
const tileKeys = ${tileKeys};
var<workgroup> tiles : array<f16, ${tileSize(form)}>;
${attendWalk(form)}
${withheldFunctions('x')}
${withheldWords(valueLoads)}
var<workgroup> scoreRows : array<f32, ${rowsOfTile(rowFragments) * scoreStride}>;
var<workgroup> weightRows : array<f16, ${rowsOfTile(rowFragments) * weightStride}>;
var<workgroup> keyPositions : array<i32, tileKeys>;
var<workgroup> rescales : array<f32, tileQueries>;
var<workgroup> anyRescale : array<atomic<u32>, 4>;

fn main(index : i32) {
  ${localOf(threads)}
  let subgroup = local / ${subgroupSize};
  let lane = local % ${subgroupSize};
  // This invocation's rows in the workgroup's tile, shared with its neighbour.
  ${eachRow((r) => `let row${r} = subgroup * ${rowsOfSubgroup} + ${r * fragment} + lane / 2;`)}
  let half = lane % 2;
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
        `let query${r}_${d} = subgroupMatrixLoad<${leftType}, row_major>(&query, (firstQuery + ${r * fragment}u) * ${paddedHeadDim(headDim)}u + ${d * fragment}u, ${paddedHeadDim(headDim)}u);`,
    ),
  )}

  ${loads.map(({tensor, rounds}) => `var ${tensor}Words : array<vec4<i32>, ${rounds}>;`).join('\n  ')}
  ${ownPositions.map((load) => `var ${positionsOf(load)} : array<i32, ${load.rounds}>;\n  var next${positionsOf(load)} : array<i32, ${load.rounds}>;`).join('\n  ')}
  var nextTile = keySlots(head, queryTileIndex, 0, keyTiles);
  ${findPositions('')}
  nextTile = keySlots(head, queryTileIndex, 1, keyTiles);
  ${loads.map(fetch).join('\n  ')}

  ${eachRow((r) => `var rowMax${r} = masked;\n  var rowSum${r} = 0.0;`)}
  ${eachRow((r) => unroll(outputFragments, (o) => `var ${output(r, o)} = ${sumType}();`))}

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys and values into workgroup memory; the next positions on their way.
    ${unroll(valueLoads.rounds, withhold)}
    ${loads.map(store).join('\n    ')}
    ${findPositions('next')}
    // Barrier: all subgroups read all keys and values.
    workgroupBarrier();

    // 2. Scores.
    ${eachRow((r) => `var scores${r} = ${sumType}();`)}
    ${unroll(
      headFragments,
      (d) => `{
        let keys = subgroupMatrixLoad<${rightType}, col_major>(&tiles, ${d * fragment}u, ${keyLoads.stride}u);
        ${eachRow((r) => `scores${r} = subgroupMatrixMultiplyAccumulate(query${r}_${d}, keys, scores${r});`)}
      }`,
    )}
    ${eachRow((r) => `subgroupMatrixStore<row_major>(&scoreRows, ${scoresAt(r)}, scores${r}, ${scoreStride}u);`)}
    // Barrier: rows of scores are read by other invocations than those that stored them.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, t + 2, keyTiles);
    ${ownPositions.map((load) => unroll(load.rounds, (j) => `${positionsOf(load)}[${j}] = next${positionsOf(load)}[${j}];`)).join('\n    ')}
    ${loads.map(fetch).join('\n    ')}

    // 3. Weights.${isCausalAlone && form.window ? `\n    let firstKey = ${firstKeyOf(form, 't')};` : ''}
    ${eachRow(
      (r) => `{
    ${scoresOfRow(form, `firstRow + row${r}`)}
    var x : array<vec4<f32>, ${vectorsOfRow}>;
    var newMax = masked;
    ${isWhole ? `if (${isWhole}) {${readScores(r, (score, column) => wholeScore(score, `keyPositions[${column}]`))}} else ` : ''}{${readScores(r, (score, column) => scoreOf(form, score, `keyPositions[${column}]`))}}
    newMax = max(newMax, subgroupShuffleXor(newMax, 1u));
    let rises = newMax > rowMax${r} + ${headroom.toFixed(1)};
    let rescale = select(1.0, exp2(rowMax${r} - newMax), rises);
    rowMax${r} = select(rowMax${r}, newMax, rises);
    rowSum${r} *= rescale;
    if (half == 0) {
      rescales[row${r}] = rescale;
    }
    if (rises) {
      atomicStore(&anyRescale[0], 1u);
    }
    ${unroll(
      vectorsOfRow,
      (v) => `{
      let column = 4 * (half + ${2 * v});
      ${unroll(
        4,
        (c) => `{
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[${v}][${c}] - rowMax${r}), 0.0, x[${v}][${c}] == masked);
        weightRows[row${r} * ${weightStride} + column + ${c}] = f16(weight);
        rowSum${r} += weight;
      }`,
      )}
    }`,
    )}
    }`,
    )}
    // Barrier: weights are read as matrices; and whether any row rises must be known to all alike.
    workgroupBarrier();
    if (workgroupUniformLoad(&anyRescale[0]) != 0u) {
      ${eachRow((r) =>
        throughMemory(
          r,
          (o) => `for (var i = half; i < ${fragment}; i += 2) {
        scoreRows[row${r} * ${scoreStride} + i] *= rescales[row${r}];
      }
      workgroupBarrier();
      ${output(r, o)} = subgroupMatrixLoad<${sumType}, row_major>(&scoreRows, ${scoresAt(r)}, ${scoreStride}u);`,
        ),
      )}
      atomicStore(&anyRescale[0], 0u);
    }

    // 4. Weighted sum of values.
    ${eachRow((r) => `let weights${r} = subgroupMatrixLoad<${leftType}, row_major>(&weightRows, (firstTileRow + ${r * fragment}u) * ${weightStride}u, ${weightStride}u);`)}
    ${unroll(
      outputFragments,
      (o) => `{
        let values = subgroupMatrixLoad<${rightType}, row_major>(&tiles, ${valueLoads.firstValue + o * fragment}u, ${valueLoads.stride}u);
        ${eachRow((r) => `${output(r, o)} = subgroupMatrixMultiplyAccumulate(weights${r}, values, ${output(r, o)});`)}
      }`,
    )}
    // Barrier: the next round overwrites keys, values and weights.
    workgroupBarrier();
  }

  // 5. The sums of both halves, and the output, by way of workgroup memory.
  ${eachRow(
    (r) => `{
  let total = rowSum${r} + subgroupShuffleXor(rowSum${r}, 1u);${form.sinks ? `\n  let totalWithSink = total + ${sinkWeight(`rowMax${r}`)};` : ''}
  ${throughMemory(
    r,
    (o) => `for (var i = half; i < ${fragment / 4}; i += 2) {
    let vector = ${(o * fragment) / 4} + i;
    if (firstRow + row${r} < endRow && vector < ${outputVectors}) {
      let at = row${r} * ${scoreStride} + 4 * i;
      var x = vec4<f32>(scoreRows[at], scoreRows[at + 1], scoreRows[at + 2], scoreRows[at + 3]);
      ${giveBackWithheld(form, [`firstRow + row${r}`], ['readValue(firstKeyRow + position, vector)'], (_r, _v, withheld) => `x += ${withheld};`)}
      // A row that saw nothing is zeros.
      writeOutput(head * uniforms.queryLength + firstRow + row${r}, vector, select(x / ${form.sinks ? 'totalWithSink' : 'total'}, vec4<f32>(0.0), total == 0.0));
    }
  }`,
  )}
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

function carriedRows(tensor: 'key' | 'value', dim: number, firstValue: number): CarriedRows {
  const words = float16Words(dim);
  const first = tensor === 'key' ? 'firstKey' : 'firstValue';
  return {tensor, first, words, rounds: Math.ceil((tileKeys * words) / threads), firstValue, stride: tileStride(dim)};
}

/** Shader text: `withhold` for words of eight values; and four values of a row, as the tile holds them. */
const withheldWords = ({first, words}: CarriedRows): string => `
fn withholdWords(words : vec4<i32>) -> vec4<i32> {
  let bits = bitcast<vec4<u32>>(words);
  let lowWithheld = (bits & vec4<u32>(0x7c00u)) == vec4<u32>(0x7c00u);
  let highWithheld = (bits & vec4<u32>(0x7c000000u)) == vec4<u32>(0x7c000000u);
  if (any(lowWithheld) || any(highWithheld)) {
    atomicStore(&anyWithheld[0], 1u);
  }
  let low = select(bits & vec4<u32>(0xffffu), vec4<u32>(0u), lowWithheld);
  return bitcast<vec4<i32>>(low | select(bits & vec4<u32>(0xffff0000u), vec4<u32>(0u), highWithheld));
}

fn readValue(row : i32, vector : i32) -> vec4<f32> {
  let word = key[uniforms.${first} + row * ${words} + vector / 2];
  let pairs = bitcast<vec2<u32>>(select(word.xy, word.zw, vector % 2 == 1));
  return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
}`;
