import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {FlashAttentionAttrs} from '../attention_kernels.js';
import type {BlockGeometry} from '../block_geometry.js';
import {AttendMatrixProgram, matrixUnitsFit} from './attend_matrix.js';
import type {BlockPlan} from './attend_walk.js';
import {attendSpec, attendWalk, ownedRows} from './attend_walk.js';
import {AttentionProgram, headVectors} from './program.js';
import type {Tile} from './tile.js';
import {carriedVectors, chooseTile, each, scoreTile, tileKeys, tileQueries, tileThreads} from './tile.js';

/**
 * Stage 4, attend: float32 `[batch, heads, length, headDim]`. Softmax attention of each query row over the keys of the
 * blocks in its list, with an online softmax (paper algorithm 1); without a plan over all keys, exact attention.
 *
 * In float16 on the matrix units of the device, where that precision was asked for and there are some; else in float32.
 */
export function attend(
  op: string,
  backend: WebGPUBackend,
  query: TensorInfo,
  key: TensorInfo,
  value: TensorInfo,
  geometry: BlockGeometry,
  {scale, causal, precision}: FlashAttentionAttrs,
  plan?: BlockPlan,
): TensorInfo {
  if (precision === 'float16' && matrixUnitsFit(backend.device, geometry.headDim)) {
    return new AttendMatrixProgram(query, key, value, geometry, scale, causal, plan).run(backend);
  }
  const blockSize = plan ? geometry.blockSize : geometry.length;
  const tile = chooseTile(op, backend, geometry.headDim, blockSize);
  return new AttendProgram(query, key, value, geometry, tile, scale, causal, plan).run(backend);
}

interface AttendVariant {
  tile: Tile;
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
    scale: number,
    causal: boolean,
    plan?: BlockPlan,
  ) {
    super({
      ...attendSpec(query, key, value, geometry, tileQueries(tile), scale, plan),
      threads: tileThreads(tile),
      variant: {tile, headDim: geometry.headDim, causal, sparse: plan !== undefined},
    });
  }

  protected shader({tile, headDim, causal, sparse}: AttendVariant): string {
    const {rows, columns, threadsX} = tile;
    const vectors = headVectors(headDim);
    const outputVectors = Math.ceil(vectors / threadsX);
    const tileVectors = tileKeys(tile) * vectors;
    const rounds = carriedVectors(tile, headDim);
    // Where the tile does not divide evenly, the last round or column is guarded.
    const ifInTile = (j: number) =>
      tileVectors < (j + 1) * tileThreads(tile) ? `if (load${j} < ${tileVectors}) ` : '';
    const ifInRow = (o: number) => (vectors < (o + 1) * threadsX ? `if (x + ${o} * threadsX < headVectors) ` : '');
    const unroll = Math.min(4, threadsX);
    return `
// A workgroup computes the output of tileQueries query rows of one head. It walks over tiles of tileKeys keys${
      sparse ? ' of\n// the blocks in its list' : ''
    } and keeps, for each of its rows, the running maximum, the running sum of weights and the
// running weighted sum of values (online softmax).
//
// Invocation (x, y) owns rows y + r * threadsY. Of a score tile it computes the columns x + c * threadsX; of the output
// it keeps, in registers, the vec4 columns x + o * threadsX, the row's maximum (the same in all x), and the sum of the
// weights of its own columns alone, added up over x once at the end.
//
// Workgroup memory: queryTile for the whole run; keyTile, first keys, then the values of the same keys; keyPositions,
// their original indices; rowPartials, the maxima (at the end: sums) of the rows of a y over the columns of an x;
// probabilities, the weights of a row in the columns of an x.
//
// Global memory is read ahead into registers: values while scores are computed, the next keys while values are added up,
// and the order in which they stand one step before that. A load thus has half a round to arrive.
${scoreTile(tile, headDim)}
${attendWalk(headDim, sparse, causal)}
var<workgroup> keyPositions : array<i32, tileKeys>;
var<workgroup> rowPartials : array<vec${rows}<f32>, ${tile.threadsY * threadsX}>;
var<workgroup> probabilities : array<vec${columns}<f32>, ${tileQueries(tile) * threadsX}>;
var<workgroup> keyTileCount : i32;
fn main(index : i32) {
  let x = i32(localIndex) % threadsX;
  let y = i32(localIndex) / threadsX;
${ownedRows}
  if (localIndex == 0u) {
    keyTileCount = select(0, countKeyTiles(head, queryTileIndex, endRow), firstRow < endRow);
  }
  // Barriers below stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount);

  // Empty state of the online softmax: nothing seen, all sums zero.
  var rowMax = vec${rows}<f32>(masked);
  var rowSum = vec${rows}<f32>(0.0);
  var output : array<array<vec4<f32>, ${outputVectors}>, rows>;

  // What this invocation carries from global memory to keyTile: one vec4 of a key, then of its value, a round.
  ${each(rounds, (j) => `let load${j} = i32(localIndex) + ${j} * threads;`)}
  var positions : array<i32, ${rounds}>;
  var nextPositions : array<i32, ${rounds}>;
  var fetched : array<vec4<f32>, ${rounds}>;
  var nextTile = keySlots(head, queryTileIndex, 0, keyTiles);
  ${each(rounds, (j) => `nextPositions[${j}] = positionIn(head, nextTile, load${j} / headVectors);`)}
  nextTile = keySlots(head, queryTileIndex, 1, keyTiles);
  ${fetch('readKey', 'nextPositions', rounds)}
  loadQueryTile(head, firstRow, endRow);

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys into workgroup memory; values and the next positions on their way.
    ${each(
      rounds,
      (j) => `positions[${j}] = nextPositions[${j}];
    ${ifInTile(j)}{
      keyTile[(load${j} / headVectors) * rowStride + load${j} % headVectors] = fetched[${j}];
      if (load${j} % headVectors == 0) {
        keyPositions[load${j} / headVectors] = positions[${j}];
      }
    }`,
    )}
    // Barrier: scores read key rows (and, the first time, query rows) that others loaded.
    workgroupBarrier();
    ${fetch('readValue', 'positions', rounds)}
    ${each(rounds, (j) => `nextPositions[${j}] = positionIn(head, nextTile, load${j} / headVectors);`)}

    // 2. Scores, masked, and the maximum of each row over this invocation's columns.
    var scores = tileScores(x, y);
    ${each(columns, (c) => `let position${c} = keyPositions[x + ${c} * threadsX];`)}
    var columnMax = vec${rows}<f32>(masked);
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
    rowPartials[y * threadsX + x] = columnMax;
    // Barrier: the maximum of a row needs the parts of all x; and no key is read any more, so values may replace them.
    workgroupBarrier();

    // 3. Weights, and what was summed so far brought to the new maximum.
    var newMax = rowMax;
    ${each(threadsX, (i) => `newMax = max(newMax, rowPartials[y * threadsX + ${i}]);`)}
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    rowSum *= rescale;
    ${each(
      rows,
      (r) => `{
      // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
      var weights : vec${columns}<f32>;
      ${each(
        columns,
        (c) => `weights[${c}] = select(exp2(scores[${r}][${c}] - newMax[${r}]), 0.0, scores[${r}][${c}] == masked);`,
      )}
      rowSum[${r}] += dot(weights, vec${columns}<f32>(1.0));
      probabilities[(y + ${r} * threadsY) * threadsX + x] = weights;
      ${each(outputVectors, (o) => `output[${r}][${o}] *= rescale[${r}];`)}
    }`,
    )}
    ${each(
      rounds,
      (j) => `${ifInTile(j)}{
      // Padding has no weight, but zero times a NaN is a NaN.
      let value = select(fetched[${j}], vec4<f32>(0.0), positions[${j}] == nowhere);
      keyTile[(load${j} / headVectors) * rowStride + load${j} % headVectors] = value;
    }`,
    )}
    // Barrier: the weighted sum reads the weights of all x and values that others loaded.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, t + 2, keyTiles);
    ${fetch('readKey', 'nextPositions', rounds)}

    // 4. Weighted sum of values.
    for (var i = 0; i < threadsX; i += ${unroll}) {
      ${each(
        unroll,
        (u) => `{
      ${each(rows, (r) => `let weights${r} = probabilities[(y + ${r} * threadsY) * threadsX + i + ${u}];`)}
      ${each(outputVectors, (o) =>
        each(
          columns,
          (c) => `${ifInRow(o)}{
        let v = keyTile[(i + ${u} + ${c} * threadsX) * rowStride + x + ${o} * threadsX];
        ${each(rows, (r) => `output[${r}][${o}] += weights${r}[${c}] * v;`)}
      }`,
        ),
      )}
      }`,
      )}
    }
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }

  // 5. The sums of all columns, and the output.
  rowPartials[y * threadsX + x] = rowSum;
  // Barrier: the sum of a row needs the parts of all x.
  workgroupBarrier();
  var sum = vec${rows}<f32>(0.0);
  ${each(threadsX, (i) => `sum += rowPartials[y * threadsX + ${i}];`)}
  ${each(rows, (r) =>
    each(
      outputVectors,
      (o) => `${ifInRow(o)}{
    let row = firstRow + y + ${r} * threadsY;
    if (row < endRow) {
      // A row that saw nothing is zeros.
      let mean = select(output[${r}][${o}] / sum[${r}], vec4<f32>(0.0), sum[${r}] == 0.0);
      writeOutput(head * uniforms.queryShape.z + row, x + ${o} * threadsX, mean);
    }
  }`,
    ),
  )}
}`;
  }
}

/** Reads, for each round, the vec4 of the row at the round's position; padding reads some row that exists. */
function fetch(read: string, positions: string, rounds: number): string {
  return each(
    rounds,
    (j) => `fetched[${j}] = ${read}(firstKeyRow + min(${positions}[${j}], lastPosition), load${j} % headVectors);`,
  );
}
