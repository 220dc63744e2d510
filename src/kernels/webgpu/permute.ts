import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../block_geometry.js';
import type {ProxyRangeVariant} from './key_lengths.js';
import {keyEnd, keyLengthsInput, proxyRange, proxyRangeUniforms, proxyRangeVariant} from './key_lengths.js';
import {AttentionProgram, keyRow, readRow, rowComponents, withScratch, workgroupIndex} from './program.js';
import type {Tile} from './tile.js';
import {chooseTile, loadTile, scoreTile, tileKeys, tileQueries, tileThreads} from './tile.js';

export interface KeyOrder {
  /** float32 `[batch, heads, permutedLength]`: mean attention that the proxy rows pay to each key. */
  keyScores: TensorInfo;
  /** int32 `[batch, heads, keyLength]`: permuted position → original key. */
  keyIndices: TensorInfo;
}

/**
 * Keys whose statistics one workgroup collects: few, so that a short sequence still makes enough workgroups for a device,
 * but at most 64 chunks, so that combining them stays short and their memory does not grow with the length.
 */
export function keysPerChunk({permutedLength}: BlockGeometry): number {
  return Math.max(1, Math.ceil(permutedLength / (64 * 128))) * 128;
}

/**
 * Stage 1, permute (paper section 3.2): scores the keys of the complete segments by the mean attention of the last
 * query rows, without a causal mask, and sorts each segment by descending score, equal scores by index. Keys that are
 * padding score 0, so that they stand last; a batch entry without proxy rows or without keys keeps its order.
 *
 * `causal` counts with key lengths alone: it says which rows are padding.
 *
 * The softmax over all keys needs two passes, since the scores of all proxy rows are too many to keep: maximum and sum
 * of each row over chunks of keys, combined to one logarithm a row, then the weights themselves, added up by key.
 */
export function permute(
  op: string,
  backend: WebGPUBackend,
  query: TensorInfo,
  key: TensorInfo,
  geometry: BlockGeometry,
  scale: number,
  sort: boolean,
  causal: boolean,
  keyLengths?: TensorInfo,
): KeyOrder {
  const tile = chooseTile(op, backend, geometry.headDim, geometry.blockSize);
  const proxy: ProxyPass = {geometry, tile, scale, causal, keyLengths};
  return withScratch(backend, (scratch, keep) => {
    const statistics = scratch(new ProxyStatisticsProgram(query, key, proxy).run(backend));
    const rowLogSums = scratch(new ProxyLogSumsProgram(statistics).run(backend));
    const keyScores = keep(new KeyScoresProgram(query, key, rowLogSums, proxy).run(backend));
    return {keyScores, keyIndices: new SortKeysProgram(keyScores, geometry, sort).run(backend)};
  });
}

/** What the programs that score keys have in common. */
export interface ProxyPass {
  geometry: BlockGeometry;
  tile: Tile;
  scale: number;
  causal: boolean;
  keyLengths?: TensorInfo;
}

interface ProxyVariant extends ProxyRangeVariant {
  tile: Tile;
  headDim: number;
}

/** float32 `[batch * heads, chunks, proxyRows, 2]`: maximum and sum of exp2(score − maximum), a row and chunk of keys. */
export class ProxyStatisticsProgram extends AttentionProgram<ProxyVariant> {
  constructor(query: TensorInfo, key: TensorInfo, {geometry, tile, scale, causal, keyLengths}: ProxyPass) {
    const {batch, heads, headDim, permutedLength, proxyRows} = geometry;
    const components = rowComponents(headDim);
    const chunkSize = keysPerChunk(geometry);
    const chunks = Math.ceil(permutedLength / chunkSize);
    const rowTiles = Math.ceil(proxyRows / tileQueries(tile));
    super({
      inputs: {query: {tensor: query, components}, key: {tensor: key, components}, ...keyLengthsInput(keyLengths)},
      outputShape: [batch * heads, chunks, proxyRows, 2],
      outputType: 'float32',
      threads: tileThreads(tile),
      workgroups: batch * heads * chunks * rowTiles,
      uniforms: {
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        permutedLength: {type: 'i32', value: permutedLength},
        rowTiles: {type: 'i32', value: rowTiles},
        chunkSize: {type: 'i32', value: chunkSize},
        ...(keyLengths && proxyRangeUniforms(geometry, causal, keyLengths)),
      },
      variant: {tile, headDim, ...proxyRangeVariant(geometry, causal, keyLengths)},
    });
  }

  protected shader({tile, headDim, padded, positions}: ProxyVariant): string {
    return `
// A workgroup takes tileQueries proxy rows of one head and one chunk of keys, and walks over the chunk in tiles of
// tileKeys keys. Invocation (x, y) keeps, in registers, maximum and sum of its rows over its own columns; they are
// combined over x once at the end, in workgroup memory.
${workgroupIndex}
${keyRow}
${scoreTile(tile, headDim)}
${loadKeysInPlace(tile, headDim)}${padded ? paddedRange(positions) : ''}
var<workgroup> partialMax : array<f32, ${tileQueries(tile) * tile.threadsX}>;
var<workgroup> partialSum : array<f32, ${tileQueries(tile) * tile.threadsX}>;

fn main(index : i32) {
  let x = i32(localIndex) % threadsX;
  let y = i32(localIndex) / threadsX;
  let chunks = uniforms.outShape.y;
  let proxyRows = uniforms.outShape.z;
  let rowTile = workgroupIndex() % uniforms.rowTiles;
  let chunk = (workgroupIndex() / uniforms.rowTiles) % chunks;
  let head = workgroupIndex() / (uniforms.rowTiles * chunks);
  let exists = head < uniforms.outShape.x;
  ${padded ? 'let proxy = proxyRange(head);\n  let firstProxy = proxy.x;' : 'let firstProxy = uniforms.queryShape.z - proxyRows;'}
  let firstRow = rowTile * tileQueries;
  loadQueryTile(head, firstProxy + firstRow, select(0, ${padded ? 'min(firstProxy + firstRow + tileQueries, proxy.y)' : 'firstProxy + min(firstRow + tileQueries, proxyRows)'}, exists));

  var rowMax : array<f32, rows>;
  var rowSum : array<f32, rows>;
  for (var r = 0; r < rows; r++) {
    rowMax[r] = masked;
  }
  let chunkEnd = select(0, min((chunk + 1) * uniforms.chunkSize, ${padded ? 'min(keyEnd(head), uniforms.permutedLength)' : 'uniforms.permutedLength'}), exists);
  // All chunks take the same number of rounds, as barriers demand; past the last key the tile is empty.
  for (var offset = 0; offset < uniforms.chunkSize; offset += tileKeys) {
    let first = chunk * uniforms.chunkSize + offset;
    loadKeyTile(head, uniforms.queryShape.y, first, chunkEnd);
    // Barrier: scores read rows that others loaded.
    workgroupBarrier();
    let scores = tileScores(x, y);
    for (var r = 0; r < rows; r++) {
      for (var c = 0; c < columns; c++) {
        if (first + x + c * threadsX < chunkEnd) {
          let newMax = max(rowMax[r], scores[r][c]);
          rowSum[r] = rowSum[r] * exp2(rowMax[r] - newMax) + exp2(scores[r][c] - newMax);
          rowMax[r] = newMax;
        }
      }
    }
    // Barrier: the next round overwrites the keys.
    workgroupBarrier();
  }

  for (var r = 0; r < rows; r++) {
    partialMax[(y + r * threadsY) * threadsX + x] = rowMax[r];
    partialSum[(y + r * threadsY) * threadsX + x] = rowSum[r];
  }
  // Barrier: a row's statistics need the parts of all x.
  workgroupBarrier();
  for (var row = i32(localIndex); row < tileQueries; row += threads) {
    var total = masked;
    for (var i = 0; i < threadsX; i++) {
      total = max(total, partialMax[row * threadsX + i]);
    }
    var sum = 0.0;
    for (var i = 0; i < threadsX; i++) {
      sum += partialSum[row * threadsX + i] * exp2(partialMax[row * threadsX + i] - total);
    }
    if (exists && firstRow + row < proxyRows) {
      let at = 2 * ((head * chunks + chunk) * proxyRows + firstRow + row);
      result[at] = total;
      result[at + 1] = sum;
    }
  }
}`;
  }
}

/** float32 `[batch * heads, proxyRows]`: log2 of a row's sum of exp2(score) over all keys, from its chunks. */
export class ProxyLogSumsProgram extends AttentionProgram<object> {
  constructor(statistics: TensorInfo) {
    const [heads, , proxyRows] = statistics.shape;
    super({
      inputs: {statistics: {tensor: statistics, components: 1}},
      outputShape: [heads, proxyRows],
      outputType: 'float32',
      threads: 64,
      workgroups: Math.ceil((heads * proxyRows) / 64),
      uniforms: {},
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation combines the chunks of one row.
${workgroupIndex}
fn main(index : i32) {
  let row = workgroupIndex() * 64 + i32(localIndex);
  let proxyRows = uniforms.outShape.y;
  if (row < uniforms.outShape.x * proxyRows) {
    let chunks = uniforms.statisticsShape.y;
    let first = 2 * ((row / proxyRows) * chunks * proxyRows + row % proxyRows);
    var rowMax = statistics[first];
    for (var chunk = 1; chunk < chunks; chunk++) {
      rowMax = max(rowMax, statistics[first + 2 * chunk * proxyRows]);
    }
    var sum = 0.0;
    for (var chunk = 0; chunk < chunks; chunk++) {
      let at = first + 2 * chunk * proxyRows;
      sum += statistics[at + 1] * exp2(statistics[at] - rowMax);
    }
    result[row] = rowMax + log2(sum);
  }
}`;
  }
}

/** float32 `[batch, heads, permutedLength]`: mean weight of each key over the proxy rows. */
export class KeyScoresProgram extends AttentionProgram<ProxyVariant> {
  constructor(
    query: TensorInfo,
    key: TensorInfo,
    rowLogSums: TensorInfo,
    {geometry, tile, scale, causal, keyLengths}: ProxyPass,
  ) {
    const {batch, heads, headDim, permutedLength} = geometry;
    const components = rowComponents(headDim);
    super({
      inputs: {
        query: {tensor: query, components},
        key: {tensor: key, components},
        rowLogSums: {tensor: rowLogSums, components: 1},
        ...keyLengthsInput(keyLengths),
      },
      outputShape: [batch, heads, permutedLength],
      outputType: 'float32',
      threads: tileThreads(tile),
      workgroups: batch * heads * Math.ceil(permutedLength / tileKeys(tile)),
      uniforms: {
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        ...proxyRangeUniforms(geometry, causal, keyLengths),
      },
      variant: {tile, headDim, ...proxyRangeVariant(geometry, causal, keyLengths)},
    });
  }

  protected shader({tile, headDim, padded, positions}: ProxyVariant): string {
    return `
// A workgroup takes tileKeys keys of one head, loaded once, and walks over the proxy rows in tiles of tileQueries.
// Invocation (x, y) adds up, in registers, the weights of its columns over its own rows; they are added up over y once
// at the end, in workgroup memory.
${workgroupIndex}
${keyRow}
${scoreTile(tile, headDim)}
${loadKeysInPlace(tile, headDim)}${padded ? paddedRange(positions) : ''}
var<workgroup> partialSums : array<f32, ${tileKeys(tile) * tile.threadsY}>;

fn main(index : i32) {
  let x = i32(localIndex) % threadsX;
  let y = i32(localIndex) / threadsX;
  let permutedLength = uniforms.outShape.z;
  let keyTiles = (permutedLength + tileKeys - 1) / tileKeys;
  let firstKey = (workgroupIndex() % keyTiles) * tileKeys;
  let head = workgroupIndex() / keyTiles;
  let exists = head < uniforms.outShape.x * uniforms.outShape.y;
  let endKey = select(0, min(firstKey + tileKeys, permutedLength), exists);
  loadKeyTile(head, uniforms.outShape.y, firstKey, ${padded ? 'min(endKey, keyEnd(head))' : 'endKey'});

  ${
    padded
      ? `let proxy = proxyRange(head);
  let firstProxy = proxy.x;
  let proxyRows = proxy.y - proxy.x;
  // All entries take the same number of rounds, as barriers demand; past an entry's last row the tile is empty.`
      : 'let firstProxy = uniforms.queryShape.z - uniforms.proxyRows;'
  }
  var columnSums : array<f32, columns>;
  for (var firstRow = 0; firstRow < uniforms.proxyRows; firstRow += tileQueries) {
    let endRow = min(firstRow + tileQueries, ${padded ? 'proxyRows' : 'uniforms.proxyRows'});
    loadQueryTile(head, firstProxy + firstRow, select(0, firstProxy + endRow, exists));
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
  for (var slot = i32(localIndex); slot < tileKeys; slot += threads) {
    var sum = 0.0;
    for (var i = 0; i < threadsY; i++) {
      sum += partialSums[i * tileKeys + slot];
    }
    if (firstKey + slot < endKey) {
      ${
        padded
          ? `// Padding scores 0, and so does every key where there is no proxy row.
      let scores = proxyRows > 0 && firstKey + slot < keyEnd(head);
      result[head * permutedLength + firstKey + slot] = select(0.0, sum / f32(max(1, proxyRows)), scores);`
          : 'result[head * permutedLength + firstKey + slot] = sum / f32(uniforms.proxyRows);'
      }
    }
  }
}`;
  }
}

const paddedRange = (positions: boolean) =>
  keyEnd('uniforms.queryShape.y', 'uniforms.keyShape.z') + proxyRange(positions, 'uniforms.queryShape.z');

/** Loads the keys [first, end) of a head, in their own order; zeros follow. */
function loadKeysInPlace(tile: Tile, headDim: number): string {
  return `
${readRow('readKey', 'key', headDim)}
fn loadKeyTile(head : i32, heads : i32, first : i32, end : i32) {
  let firstKeyRow = keyRow(head, heads, first);
  ${loadTile(
    'keyTile',
    tileKeys(tile),
    tile,
    headDim,
    (i) => `first + ${i} < end`,
    (i, vector) => `readKey(firstKeyRow + ${i}, ${vector})`,
  )}
}`;
}

interface SortVariant {
  threads: number;
  sort: boolean;
}

/** int32 `[batch, heads, keyLength]`: the keys of each complete segment by descending score; or the identity. */
export class SortKeysProgram extends AttentionProgram<SortVariant> {
  constructor(keyScores: TensorInfo, geometry: BlockGeometry, sort: boolean) {
    const {batch, heads, keyLength, segmentSize} = geometry;
    const threads = Math.min(256, Math.ceil(segmentSize / 32) * 32);
    const chunks = Math.ceil(segmentSize / threads);
    super({
      inputs: {keyScores: {tensor: keyScores, components: 1}},
      outputShape: [batch, heads, keyLength],
      outputType: 'int32',
      threads,
      workgroups: batch * heads * Math.ceil(keyLength / segmentSize) * chunks,
      uniforms: {
        segmentSize: {type: 'i32', value: segmentSize},
        chunks: {type: 'i32', value: chunks},
      },
      variant: {threads, sort},
    });
  }

  protected shader({threads, sort}: SortVariant): string {
    return `
// An invocation owns one key. Its place in the sorted segment is the number of keys that come before it, found by
// comparing it with all keys of the segment, which pass through workgroup memory in tiles. Next to a sorting network
// this takes no power of two, two barriers a tile, and a segment of any size.
//
// Scores are compared by their bits: for floats that are not negative the order is the same, and it stays a total order
// when there are NaNs, so that the result is a permutation whatever the input.
${workgroupIndex}
var<workgroup> scoreTile : array<u32, ${threads}>;

fn main(index : i32) {
  let local = i32(localIndex);
  let heads = uniforms.outShape.x * uniforms.outShape.y;
  let length = uniforms.outShape.z;
  let permutedLength = uniforms.keyScoresShape.z;
  let segmentSize = uniforms.segmentSize;
  let segments = (length + segmentSize - 1) / segmentSize;
  let segment = workgroupIndex() / uniforms.chunks;
  let head = segment / segments;
  let first = (segment % segments) * segmentSize;
  let own = (workgroupIndex() % uniforms.chunks) * ${threads} + local;
  // The remainder after the last complete segment keeps its order.
  let complete = head < heads && first < permutedLength && ${sort};
  let scores = head * permutedLength + first;
  var score = 0u;
  if (complete && own < segmentSize) {
    score = bitcast<u32>(keyScores[scores + own]);
  }
  var before = 0;
  for (var base = 0; base < segmentSize; base += ${threads}) {
    if (complete && base + local < segmentSize) {
      scoreTile[local] = bitcast<u32>(keyScores[scores + base + local]);
    }
    // Barrier: every invocation reads the scores that all have loaded.
    workgroupBarrier();
    for (var i = 0; i < min(${threads}, segmentSize - base); i++) {
      let other = scoreTile[i];
      before += select(0, 1, other > score || (other == score && base + i < own));
    }
    // Barrier: the next round overwrites the scores.
    workgroupBarrier();
  }
  if (head < heads && own < segmentSize && first + own < length) {
    result[head * length + first + select(own, before, complete)] = first + own;
  }
}`;
  }
}
