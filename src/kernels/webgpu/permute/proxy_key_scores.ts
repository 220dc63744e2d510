import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {rowsHavePositions} from '../../../attention/block_geometry.js';
import {evenWork} from '../runtime/launches.js';
import {AttentionProgram, i32, withScratch} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import type {KeysVariant} from '../wgsl/key_lengths.js';
import {keysVariant} from '../wgsl/key_lengths.js';
import {logOfSum} from '../wgsl/not_finite.js';
import {localOf, rowInputs, workgroupIndex} from '../wgsl/rows.js';
import {chooseScoreTile, scoreTile} from '../wgsl/score_tile.js';
import {addScores, emptyRows, mergeParts, mergeStates, noScores} from '../wgsl/softmax_state.js';
import type {Tile} from '../wgsl/tile.js';
import {invocationPlace, tileKeys, tileQueries, tileThreads} from '../wgsl/tile.js';

/**
 * Keys whose statistics one workgroup collects: few, so that a short sequence still makes enough workgroups for a device,
 * but at most 64 chunks, so that combining them stays short and their memory does not grow with the length.
 */
export function keysPerChunk({permutedLength}: BlockGeometry): number {
  return Math.max(1, Math.ceil(permutedLength / (64 * 128))) * 128;
}

/**
 * Part of stage 1, permute, by the pooled estimate (paper section 3.2): float32 `[batch, heads, permutedLength]`, the mean
 * attention that the proxy rows pay to each key.
 *
 * The softmax over all keys needs two passes, since the scores of all proxy rows are too many to keep: maximum and sum
 * of each row over chunks of keys, combined to one logarithm a row, then the weights themselves, added up by key.
 */
export function proxyKeyScores(call: WebGPUCall): TensorInfo {
  const {backend, geometry} = call;
  const tile = chooseScoreTile(call, geometry.blockSize);
  return withScratch(backend, (scratch) => {
    const statistics = scratch(new ProxyStatisticsProgram(call, tile).run(backend));
    const rowLogSums = scratch(new ProxyLogSumsProgram(statistics).run(backend));
    return new KeyScoresProgram(call, rowLogSums, tile).run(backend);
  });
}

interface ProxyVariant extends KeysVariant {
  tile: Tile;
  /** Whether a row that stands past the length of its entry is padding. Says nothing without key lengths. */
  positions: boolean;
}

const proxyVariant = (call: WebGPUCall, tile: Tile): ProxyVariant => ({
  tile,
  ...keysVariant(call),
  positions: call.keyLengths !== undefined && rowsHavePositions(call.geometry, call.causal),
});

/** A function: the proxy rows [x, y) of a head's batch entry, `proxyRange` of `block_geometry.ts`. */
const proxyRange = (positions: boolean): string => `
fn proxyRange(head : i32) -> vec2<i32> {
  let end = ${positions ? 'clamp(keyEnd(head) - uniforms.queryOffset, 0, uniforms.queryLength)' : 'uniforms.queryLength'};
  return vec2<i32>(max(0, end - uniforms.proxyRows), end);
}`;

/** Scores are computed twice. */
const halfOfOrder = ({planTimes}: WebGPUCall) => evenWork(planTimes && planTimes.order / 2);

/** Shape of the statistics of the proxy rows. */
export function proxyStatisticsShape(geometry: BlockGeometry): number[] {
  const {batch, heads, permutedLength, proxyRows} = geometry;
  return [batch * heads, Math.ceil(permutedLength / keysPerChunk(geometry)), proxyRows, 2];
}

/** float32 `[batch * heads, chunks, proxyRows, 2]`: maximum and sum of exp2(score − maximum), a row and chunk of keys. */
export class ProxyStatisticsProgram extends AttentionProgram<ProxyVariant> {
  constructor(call: WebGPUCall, tile: Tile) {
    const {query, key, keyLengths, geometry} = call;
    const {proxyRows} = geometry;
    const outputShape = proxyStatisticsShape(geometry);
    const [heads, chunks] = outputShape;
    const rowTiles = Math.ceil(proxyRows / tileQueries(tile));
    super({
      name: 'ProxyStatistics',
      inputs: {...rowInputs({query, key}), keyLengths},
      outputShape,
      threads: tileThreads(tile),
      workgroups: heads * chunks * rowTiles,
      call,
      work: halfOfOrder(call),
      uniforms: {rowTiles: i32(rowTiles), chunkSize: i32(keysPerChunk(geometry))},
      variant: proxyVariant(call, tile),
    });
  }

  protected shader({tile, positions, ...keys}: ProxyVariant): string {
    return `
// A workgroup takes tileQueries proxy rows of one head and one chunk of keys, and walks over the chunk in tiles of
// tileKeys keys. Invocation (x, y) keeps, in registers, maximum and sum of its rows over its own columns; they are
// combined over x once at the end, in workgroup memory.
${scoreTile(tile, keys)}${proxyRange(positions)}
// Maximum and sum of a row in an x.
var<workgroup> partials : array<vec2<f32>, ${tileQueries(tile) * tile.threadsX}>;

fn main(index : i32) {
${invocationPlace(tile)}
  let chunks = uniforms.outShape.y;
  let proxyRows = uniforms.outShape.z;
  let rowTile = workgroupIndex() % uniforms.rowTiles;
  let chunk = (workgroupIndex() / uniforms.rowTiles) % chunks;
  let head = workgroupIndex() / (uniforms.rowTiles * chunks);
  let exists = head < uniforms.outShape.x;
  let proxy = proxyRange(head);
  let firstRow = rowTile * tileQueries;
  loadQueryTile(head, proxy.x + firstRow, select(0, min(proxy.x + firstRow + tileQueries, proxy.y), exists));

  ${emptyRows(tile)}
  let chunkEnd = select(0, min((chunk + 1) * uniforms.chunkSize, min(keyEnd(head), uniforms.permutedLength)), exists);
  // All chunks take the same number of rounds, as barriers demand; past the last key the tile is empty.
  for (var offset = 0; offset < uniforms.chunkSize; offset += tileKeys) {
    let first = chunk * uniforms.chunkSize + offset;
    loadKeyTile(head, first, chunkEnd);
    // Barrier: scores read rows that others loaded.
    workgroupBarrier();
    var scores = tileScores(x, y);
    for (var c = 0; c < columns; c++) {
      for (var r = 0; r < rows && first + x + c * threadsX >= chunkEnd; r++) {
        scores[r][c] = masked;
      }
    }
    ${addScores(tile)}
    // Barrier: the next round overwrites the keys.
    workgroupBarrier();
  }

  for (var r = 0; r < rows; r++) {
    partials[(y + r * threadsY) * threadsX + x] = vec2<f32>(rowMax[r], rowSum[r]);
  }
  // Barrier: a row's statistics need the parts of all x.
  workgroupBarrier();
  for (var row = local; row < tileQueries; row += threads) {
    ${mergeParts('threadsX', 'partials[row * threadsX + i].x', 'partials[row * threadsX + i].y')}
    if (exists && firstRow + row < proxyRows) {
      let at = 2 * ((head * chunks + chunk) * proxyRows + firstRow + row);
      result[at] = total;
      result[at + 1] = sum;
    }
  }
}`;
  }
}

/** Rows whose chunks a workgroup of `ProxyLogSumsProgram` combines, and invocations that share a row. */
const combinedRows = 8;
const combineLanes = 16;

/** float32 `[batch * heads, proxyRows]`: log2 of a row's sum of exp2(score) over all keys, from its chunks. */
export class ProxyLogSumsProgram extends AttentionProgram<object> {
  constructor(statistics: TensorInfo) {
    const [heads, , proxyRows] = statistics.shape;
    super({
      name: 'ProxyLogSums',
      inputs: {statistics},
      outputShape: [heads, proxyRows],
      threads: combinedRows * combineLanes,
      workgroups: Math.ceil((heads * proxyRows) / combinedRows),
      variant: {},
    });
  }

  protected shader(): string {
    return `
// A workgroup combines the chunks of ${combinedRows} rows. Neighbours take neighbouring rows, whose statistics lie side by side; an
// invocation takes every ${combineLanes}th chunk of its row, and the first of a row combines what all have, in workgroup memory.
${workgroupIndex}${noScores}${mergeStates(combinedRows, combinedRows * combineLanes)}${logOfSum}

fn main(index : i32) {
  ${localOf(combinedRows * combineLanes)}
  let row = workgroupIndex() * ${combinedRows} + local % ${combinedRows};
  let proxyRows = uniforms.outShape.y;
  let exists = row < uniforms.outShape.x * proxyRows;
  let chunks = uniforms.statisticsShape.y;
  let first = (row / proxyRows) * chunks * proxyRows + row % proxyRows;
  var state = emptyState;
  for (var chunk = local / ${combinedRows}; chunk < chunks && exists; chunk += ${combineLanes}) {
    let at = 2 * (first + chunk * proxyRows);
    state = merge(state, State(statistics[at], statistics[at + 1], vec4<f32>(0.0)));
  }
  state = mergeLanes(state);
  if (local < ${combinedRows} && exists) {
    result[row] = state.maximum + logOfSum(state.sum);
  }
}`;
  }
}

/** float32 `[batch, heads, permutedLength]`: mean weight of each key over the proxy rows. */
export class KeyScoresProgram extends AttentionProgram<ProxyVariant> {
  constructor(call: WebGPUCall, rowLogSums: TensorInfo, tile: Tile) {
    const {query, key, keyLengths, geometry} = call;
    const {batch, heads, permutedLength} = geometry;
    super({
      name: 'KeyScores',
      inputs: {...rowInputs({query, key}), rowLogSums, keyLengths},
      outputShape: [batch, heads, permutedLength],
      threads: tileThreads(tile),
      workgroups: batch * heads * Math.ceil(permutedLength / tileKeys(tile)),
      call,
      work: halfOfOrder(call),
      variant: proxyVariant(call, tile),
    });
  }

  protected shader({tile, positions, ...keys}: ProxyVariant): string {
    return `
// A workgroup takes tileKeys keys of one head, loaded once, and walks over the proxy rows in tiles of tileQueries.
// Invocation (x, y) adds up, in registers, the weights of its columns over its own rows; they are added up over y once
// at the end, in workgroup memory.
${scoreTile(tile, keys)}${proxyRange(positions)}
var<workgroup> partialSums : array<f32, ${tileKeys(tile) * tile.threadsY}>;

fn main(index : i32) {
${invocationPlace(tile)}
  let permutedLength = uniforms.permutedLength;
  let keyTiles = (permutedLength + tileKeys - 1) / tileKeys;
  let firstKey = (workgroupIndex() % keyTiles) * tileKeys;
  let head = workgroupIndex() / keyTiles;
  let exists = head < uniforms.batch * uniforms.heads;
  let endKey = select(0, min(firstKey + tileKeys, permutedLength), exists);
  loadKeyTile(head, firstKey, min(endKey, keyEnd(head)));

  let proxy = proxyRange(head);
  let proxyRows = proxy.y - proxy.x;
  // All entries take the same number of rounds, as barriers demand; past an entry's last row the tile is empty.
  var columnSums : array<f32, columns>;
  for (var firstRow = 0; firstRow < uniforms.proxyRows; firstRow += tileQueries) {
    let endRow = min(firstRow + tileQueries, proxyRows);
    loadQueryTile(head, proxy.x + firstRow, select(0, proxy.x + endRow, exists));
    // Barrier: scores read rows that others loaded.
    workgroupBarrier();
    let scores = tileScores(x, y);
    for (var r = 0; r < rows; r++) {
      let row = firstRow + y + r * threadsY;
      if (row < endRow && exists) {
        let logSum = rowLogSums[head * uniforms.proxyRows + row];
        for (var c = 0; c < columns; c++) {
          columnSums[c] += exp2(scores[r][c] - logSum);
        }
      }
    }
    // Barrier: the next round overwrites the queries.
    workgroupBarrier();
  }

  for (var c = 0; c < columns; c++) {
    partialSums[y * tileKeys + x + c * threadsX] = columnSums[c];
  }
  // Barrier: a key's score needs the parts of all y.
  workgroupBarrier();
  for (var slot = local; slot < tileKeys; slot += threads) {
    var sum = 0.0;
    for (var i = 0; i < threadsY; i++) {
      sum += partialSums[i * tileKeys + slot];
    }
    if (firstKey + slot < endKey) {
      // Padding scores 0, and so does every key where there is no proxy row.
      let scores = proxyRows > 0 && firstKey + slot < keyEnd(head);
      result[head * permutedLength + firstKey + slot] = select(0.0, sum / f32(max(1, proxyRows)), scores);
    }
  }
}`;
  }
}
