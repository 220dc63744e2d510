import {unroll} from '../../unroll.js';
import {fragment, hasMatrixUnits, subgroupSize} from '../runtime/device_features.js';
import type {HeadDims} from '../runtime/device_limits.js';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUCall, WebGPUPlan} from '../webgpu_call.js';
import {leftType, matrixExtensions, paddedHeadDim, rightType, sumType} from '../wgsl/matrix_units.js';
import {headVectors, readRow} from '../wgsl/rows.js';
import type {AttendForm} from './attend_form.js';
import {attendForm, attendSpec} from './attend_form.js';
import {attendWalk, lastVisible, ownedRows, scoreOf, scoresOfRow} from './attend_walk.js';
import {findSeenByAll, giveBackWithheld, withheldFunctions} from './withheld_values.js';

/** Subgroups a workgroup; each owns one fragment of query rows, and the softmax gives each row to two invocations. */
const subgroups = 4;
const threads = subgroups * subgroupSize;
const tileQueries = subgroups * fragment;
const tileKeys = 32;
/**
 * How far, in units of log2, a row's maximum may rise above the one that its sums are relative to before these are
 * brought up to it. Weights stay below 2⁸, well inside float16, and after the first tiles it hardly ever happens.
 */
const headroom = 8;

// Strides of rows in workgroup memory: multiples of 16 bytes, padded so that consecutive rows lie in different banks. The
// scores are padded least, so that four workgroups with a head dim of 64 share the 100 KB of a multiprocessor.
const tileStride = (headDim: number) => paddedHeadDim(headDim) + 8;
const scoreStride = tileKeys + 4;
const weightStride = tileKeys + 8;
/** float16 values of the tiles: keys and values, and before them the queries. */
const tileSize = ({headDim, valueDim}: HeadDims) =>
  Math.max(tileKeys * (tileStride(headDim) + tileStride(valueDim)), tileQueries * tileStride(headDim));

/** Workgroup memory that the program declares. */
function matrixBytes(dims: HeadDims): number {
  const scores = 4 * tileQueries * scoreStride;
  const weights = 2 * tileQueries * weightStride;
  const positionsAndRescales = 4 * (tileKeys + tileQueries);
  const flags = 3 * 16;
  return 2 * tileSize(dims) + scores + weights + positionsAndRescales + flags;
}

/** Whether the device has matrix units of the kind that the program uses, and the workgroup memory for the head dims. */
export function matrixUnitsFit(device: GPUDevice, dims: HeadDims): boolean {
  const fits = matrixBytes(dims) <= device.limits.maxComputeWorkgroupStorageSize;
  return fits && hasMatrixUnits(device);
}

/**
 * Stage 4, attend, in float16 with float32 sums, on the matrix units of the device (`subgroup_matrix`): the same function
 * as `AttendProgram`. One shader, longer than other files: its parts share what the fragments of a subgroup hold.
 */
export class AttendMatrixProgram extends AttentionProgram<AttendForm> {
  constructor(call: WebGPUCall, plan?: WebGPUPlan) {
    const form = attendForm(call, plan);
    super({
      name: 'AttendMatrix',
      ...attendSpec(call, form, {tileQueries, plan}),
      threads,
      variant: form,
      extensions: matrixExtensions,
    });
  }

  protected shader(form: AttendForm): string {
    const {headDim, valueDim} = form;
    const vectors = headVectors(headDim);
    const paddedVectors = paddedHeadDim(headDim) / 4;
    const headFragments = paddedHeadDim(headDim) / fragment;
    const outputFragments = paddedHeadDim(valueDim) / fragment;
    const outputVectors = headVectors(valueDim);
    const keyFragments = tileKeys / fragment;
    const keyLoads = carriedRows(headDim);
    // Where a value takes other vec4 than a key, an invocation carries the values of other keys than it carries.
    const shared = valueDim === headDim;
    const valueLoads = shared ? keyLoads : carriedRows(valueDim, 'value');
    const loads = shared ? [keyLoads] : [keyLoads, valueLoads];
    const rounds = Math.max(keyLoads.rounds, valueLoads.rounds);
    // Two invocations share a row of scores: each takes every other vec4.
    const vectorsOfRow = tileKeys / 4 / 2;
    const tile = tileStride(headDim);
    const valueTile = tileStride(valueDim);
    const firstValue = tileKeys * tile;
    // Fragments of output that fit side by side into a subgroup's part of the scores.
    const staged = Math.min(keyFragments, outputFragments);
    const read = (tensor: string, {positions, vector}: CarriedRows, j: number) =>
      `vec4<f16>(read${tensor}(firstKeyRow + min(${positions}[${j}], lastPosition), ${vector}${j}));`;
    const fetchKey = (j: number) => `keys[${j}] = ${read('Key', keyLoads, j)}`;
    const fetchValue = (j: number) => `values[${j}] = ${read('Value', valueLoads, j)}`;
    const withhold = (j: number) => {
      const position = `${valueLoads.positions}[${j}]`;
      // Padding is not stored.
      return `if (${position} > seenByAll && ${position} != paddingPosition) { values[${j}] = vec4<f16>(withhold(vec4<f32>(values[${j}]))); }`;
    };
    const findPositions = ({rounds, paddedVectors}: CarriedRows, positions: string) =>
      unroll(rounds, (j) => `${positions}[${j}] = positionIn(head, nextTile, load${j} / ${paddedVectors});`);
    const store = (
      {rounds, positions, vectors, paddedVectors}: CarriedRows,
      stride: number,
      tiles: Array<[string, string]>,
      also: (j: number) => string,
    ) =>
      unroll(
        rounds,
        (j) => `${tileKeys * paddedVectors < (j + 1) * threads ? `if (load${j} < ${tileKeys * paddedVectors}) ` : ''}{
      let at = (load${j} / ${paddedVectors}) * ${stride} + (load${j} % ${paddedVectors}) * 4;
      // Padding has no weight and no column, but zero times a NaN is a NaN (more: withheld_values.ts).
      let exists = ${positions}[${j}] != paddingPosition && load${j} % ${paddedVectors} < ${vectors};
      ${tiles.map(([at, from]) => `storeTile(${at}, select(vec4<f16>(0.0), ${from}[${j}], exists));`).join('\n      ')}
      ${also(j)}
    }`,
      );
    const storePosition = (j: number) => `if (load${j} % ${paddedVectors} == 0) {
        keyPositions[load${j} / ${paddedVectors}] = positions[${j}];
      }`;
    const valueAt = `at + tileKeys * ${tile}`;
    // Under a causal mask alone most tiles are visible to all rows, and looking at positions costs a tenth of all time.
    const isCausalAlone = form.causal && !form.sparse && !form.padded && form.mask === undefined;
    const isWhole = isCausalAlone && `(t + 1) * tileKeys - 1 <= ${lastVisible(form, 'firstRow')}`;
    const readScores = (scoreAt: (score: string, column: string) => string) =>
      unroll(
        vectorsOfRow,
        (v) => `{
      let column = 4 * (half + ${2 * v});
      ${unroll(4, (c) => `x[${v}][${c}] = ${scoreAt(`scoreRows[row * ${scoreStride} + column + ${c}]`, `column + ${c}`)};`)}
      newMax = max(newMax, max(max(x[${v}].x, x[${v}].y), max(x[${v}].z, x[${v}].w)));
    }`,
      );
    return `
// A workgroup computes the output of ${tileQueries} query rows of one head; each of its ${subgroups} subgroups owns ${fragment} of them. It walks
// over tiles of ${tileKeys} keys with an online softmax, whose products run on matrix units: float16 in, float32 sums.
//
// Who holds an element of a matrix in registers is not known, so everything that is done by row passes through workgroup
// memory: scores go out, two neighbouring invocations turn a row of them into weights, and the weights come back as a
// matrix. The output matrices stay in registers, relative to a maximum that follows the row's true one with some
// headroom; only when that is used up do they go out to be scaled.
//
// Workgroup memory: tiles holds keys, then values (before the first round: the queries), float16; scores and weights have
// a part for each subgroup. Keys and values of the next tile are read from global memory while this one is computed.
const threads = ${threads};
const tileQueries = ${tileQueries};
const tileKeys = ${tileKeys};
var<workgroup> tiles : array<f16, ${tileSize(form)}>;
${readRow('readQuery', 'query', headDim)}
${readRow('readKey', 'key', headDim)}
${readRow('readValue', 'value', valueDim)}
${attendWalk(form)}
${withheldFunctions('vec4<f32>(vec4<f16>(x))')}
var<workgroup> scoreRows : array<f32, ${tileQueries * scoreStride}>;
var<workgroup> weightRows : array<f16, ${tileQueries * weightStride}>;
var<workgroup> keyPositions : array<i32, tileKeys>;
var<workgroup> rescales : array<f32, tileQueries>;
var<workgroup> anyRescale : atomic<u32>;

fn storeTile(at : i32, x : vec4<f16>) {
  tiles[at] = x.x;
  tiles[at + 1] = x.y;
  tiles[at + 2] = x.z;
  tiles[at + 3] = x.w;
}

fn main(index : i32) {
  let local = i32(localIndex);
  let subgroup = local / ${subgroupSize};
  let lane = local % ${subgroupSize};
  // This invocation's row in the workgroup's tile, shared with its neighbour.
  let row = subgroup * ${fragment} + lane / 2;
  let half = lane % 2;
  if (local == 0) {
    atomicStore(&anyRescale, 0u);
  }
${ownedRows(form)}
  ${findSeenByAll(form)}

  // Queries, by way of workgroup memory, into registers.
  for (var i = local; i < tileQueries * ${paddedVectors}; i += threads) {
    let queryRow = firstRow + i / ${paddedVectors};
    var x = vec4<f32>(0.0);
    if (queryRow < endRow && i % ${paddedVectors} < ${vectors}) {
      x = uniforms.logitScale * readQuery(head * uniforms.queryLength + queryRow, i % ${paddedVectors});
    }
    storeTile((i / ${paddedVectors}) * ${tile} + (i % ${paddedVectors}) * 4, vec4<f16>(x));
  }
  // Barrier: a subgroup reads rows that others loaded.
  workgroupBarrier();
  let firstTileRow = u32(subgroup * ${fragment});
  ${unroll(headFragments, (d) => `let query${d} = subgroupMatrixLoad<${leftType}, row_major>(&tiles, firstTileRow * ${tile}u + ${d * fragment}u, ${tile}u);`)}
  // Barrier: keys replace the queries.
  workgroupBarrier();

  ${unroll(rounds, (j) => {
    const ofLoad = ({vector, vectors, paddedVectors}: CarriedRows) =>
      `let ${vector}${j} = min(load${j} % ${paddedVectors}, ${vectors - 1});`;
    const existing = loads.filter(({rounds}) => j < rounds);
    return [`let load${j} = local + ${j} * threads;`, ...existing.map(ofLoad)].join('\n    ');
  })}
  ${loads.map(({nextPositions, rounds}) => `var ${nextPositions} : array<i32, ${rounds}>;`).join('\n  ')}
  var keys : array<vec4<f16>, ${keyLoads.rounds}>;
  var values : array<vec4<f16>, ${valueLoads.rounds}>;
  ${loads.map(({positions, rounds}) => `var ${positions} : array<i32, ${rounds}>;`).join('\n  ')}
  var nextTile = keySlots(head, queryTileIndex, 0, keyTiles);
  ${loads.map((side) => findPositions(side, side.positions)).join('\n  ')}
  nextTile = keySlots(head, queryTileIndex, 1, keyTiles);
  ${unroll(keyLoads.rounds, fetchKey)}
  ${unroll(valueLoads.rounds, fetchValue)}

  var rowMax = masked;
  var rowSum = 0.0;
  ${unroll(outputFragments, (o) => `var output${o} = ${sumType}();`)}

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys and values into workgroup memory; the next positions on their way.
    ${unroll(valueLoads.rounds, withhold)}
    ${
      shared
        ? store(
            keyLoads,
            tile,
            [
              ['at', 'keys'],
              [valueAt, 'values'],
            ],
            storePosition,
          )
        : `${store(keyLoads, tile, [['at', 'keys']], storePosition)}
    ${store(valueLoads, valueTile, [[valueAt, 'values']], () => '')}`
    }
    ${loads.map((side) => findPositions(side, side.nextPositions)).join('\n    ')}
    // Barrier: all subgroups read all keys and values.
    workgroupBarrier();

    // 2. Scores.
    ${unroll(
      keyFragments,
      (k) => `{
      var scores = ${sumType}();
      ${unroll(
        headFragments,
        (d) =>
          `scores = subgroupMatrixMultiplyAccumulate(query${d}, subgroupMatrixLoad<${rightType}, col_major>(&tiles, ${k * fragment * tile + d * fragment}u, ${tile}u), scores);`,
      )}
      subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * ${scoreStride}u + ${k * fragment}u, scores, ${scoreStride}u);
    }`,
    )}
    // Barrier: rows of scores are read by other invocations than those that stored them.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, t + 2, keyTiles);
    ${unroll(rounds, (j) => {
      const existing = loads.filter(({rounds}) => j < rounds);
      return [
        ...existing.map(({positions, nextPositions}) => `${positions}[${j}] = ${nextPositions}[${j}];`),
        ...(j < keyLoads.rounds ? [fetchKey(j)] : []),
        ...(j < valueLoads.rounds ? [fetchValue(j)] : []),
      ].join('\n    ');
    })}

    // 3. Weights.
    ${scoresOfRow(form, 'firstRow + row')}
    var x : array<vec4<f32>, ${vectorsOfRow}>;
    var newMax = masked;
    ${isWhole ? `if (${isWhole}) {${readScores((score) => score)}} else ` : ''}{${readScores((score, column) => scoreOf(form, score, `keyPositions[${column}]`))}}
    newMax = max(newMax, subgroupShuffleXor(newMax, 1u));
    let rises = newMax > rowMax + ${headroom.toFixed(1)};
    let rescale = select(1.0, exp2(rowMax - newMax), rises);
    rowMax = select(rowMax, newMax, rises);
    rowSum *= rescale;
    if (half == 0) {
      rescales[row] = rescale;
    }
    if (rises) {
      atomicStore(&anyRescale, 1u);
    }
    ${unroll(
      vectorsOfRow,
      (v) => `{
      let column = 4 * (half + ${2 * v});
      ${unroll(
        4,
        (c) => `{
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[${v}][${c}] - rowMax), 0.0, x[${v}][${c}] == masked);
        weightRows[row * ${weightStride} + column + ${c}] = f16(weight);
        rowSum += weight;
      }`,
      )}
    }`,
    )}
    // Barrier: weights are read as matrices; and whether any row rises must be known to all alike.
    workgroupBarrier();
    if (workgroupUniformLoad(&anyRescale) != 0u) {
      ${unroll(Math.ceil(outputFragments / staged), (g) => {
        const inGroup = Math.min(staged, outputFragments - g * staged);
        return `${unroll(inGroup, (o) => `subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * ${scoreStride}u + ${o * fragment}u, output${g * staged + o}, ${scoreStride}u);`)}
      workgroupBarrier();
      for (var i = half; i < ${inGroup * fragment}; i += 2) {
        scoreRows[row * ${scoreStride} + i] *= rescales[row];
      }
      workgroupBarrier();
      ${unroll(inGroup, (o) => `output${g * staged + o} = subgroupMatrixLoad<${sumType}, row_major>(&scoreRows, firstTileRow * ${scoreStride}u + ${o * fragment}u, ${scoreStride}u);`)}
      workgroupBarrier();`;
      })}
      atomicStore(&anyRescale, 0u);
    }

    // 4. Weighted sum of values.
    ${unroll(
      keyFragments,
      (k) => `{
      let weights = subgroupMatrixLoad<${leftType}, row_major>(&weightRows, firstTileRow * ${weightStride}u + ${k * fragment}u, ${weightStride}u);
      ${unroll(
        outputFragments,
        (o) =>
          `output${o} = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<${rightType}, row_major>(&tiles, ${firstValue + k * fragment * valueTile + o * fragment}u, ${valueTile}u), output${o});`,
      )}
    }`,
    )}
    // Barrier: the next round overwrites keys, values and weights.
    workgroupBarrier();
  }

  // 5. The sums of both halves, and the output, by way of workgroup memory.
  let total = rowSum + subgroupShuffleXor(rowSum, 1u);
  ${unroll(Math.ceil(outputFragments / staged), (g) => {
    const inGroup = Math.min(staged, outputFragments - g * staged);
    return `${unroll(inGroup, (o) => `subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * ${scoreStride}u + ${o * fragment}u, output${g * staged + o}, ${scoreStride}u);`)}
  workgroupBarrier();
  for (var i = half; i < ${(inGroup * fragment) / 4}; i += 2) {
    let vector = ${(g * staged * fragment) / 4} + i;
    if (firstRow + row < endRow && vector < ${outputVectors}) {
      let at = row * ${scoreStride} + 4 * i;
      var x = vec4<f32>(scoreRows[at], scoreRows[at + 1], scoreRows[at + 2], scoreRows[at + 3]);
      ${giveBackWithheld(form, ['firstRow + row'], ['readValue(firstKeyRow + position, vector)'], (_r, _v, withheld) => `x += ${withheld};`)}
      // A row that saw nothing is zeros.
      writeOutput(head * uniforms.queryLength + firstRow + row, vector, select(x / total, vec4<f32>(0.0), total == 0.0));
    }
  }
  workgroupBarrier();`;
  })}
}`;
  }
}

/** The vec4 of keys, or of values, that an invocation carries from global to workgroup memory, a round each. */
interface CarriedRows {
  /** vec4 of a row, and of its place in the tile. */
  vectors: number;
  paddedVectors: number;
  rounds: number;
  /** Names in the shader: which vec4 of a row (a number follows); of which keys, now and in the next tile. */
  vector: string;
  positions: string;
  nextPositions: string;
}

function carriedRows(dim: number, of = ''): CarriedRows {
  const paddedVectors = paddedHeadDim(dim) / 4;
  const name = (prefix: string, word: string) => (prefix ? prefix + word[0].toUpperCase() + word.slice(1) : word);
  return {
    vectors: headVectors(dim),
    paddedVectors,
    rounds: Math.ceil((tileKeys * paddedVectors) / threads),
    vector: name(of, 'vector'),
    positions: name(of, 'positions'),
    nextPositions: name('next', name(of, 'positions')),
  };
}
