import type {Tensor2D, TypedArray} from '@tensorflow/tfjs-core';
import {matMul, mul, square, sub, tensor2d, tidy} from '@tensorflow/tfjs-core';
import type {CPUGradientCall, CPUPlan} from '../../cpu/cpu_call.js';
import {dot, keyRow} from '../../cpu/rows.js';
import type {Tile} from '../attend/tile_values.js';
import {rowOf, tileKeys, tileRows, transposed} from '../attend/tile_values.js';
import {weightsOf} from '../attend/tile_weights.js';
import {tilesOf} from '../attend/tiles.js';

/** Gradients of the attend stage, as on the CPU, with the arithmetic of every tile in ops of tfjs. */
export function attendGradients(call: CPUGradientCall, plan?: CPUPlan): Float32Array[] {
  const {query, key, value, geometry, scale} = call;
  const {headDim, valueDim} = geometry;
  const [querySums, keySums, valueSums] = [query, key, value].map(({length}) => new Float64Array(length));
  for (const tile of tilesOf(call, plan)) {
    const {head, positions} = tile;
    if (positions.length === 0) continue;
    tidy(() => {
      const [byQuery, byKey, byValue] = tileGradients(call, tile);
      for (let i = 0; i < byQuery.length; ++i) {
        const queryRow = rowOf(call, tile, Math.floor(i / headDim));
        querySums[queryRow * headDim + (i % headDim)] += scale * byQuery[i];
      }
      positions.forEach((position, j) => {
        const keyAt = keyRow(geometry, head, position);
        for (let d = 0; d < headDim; ++d) {
          keySums[keyAt * headDim + d] += scale * byKey[d * positions.length + j];
        }
        for (let d = 0; d < valueDim; ++d) {
          valueSums[keyAt * valueDim + d] += byValue[d * positions.length + j];
        }
      });
    });
  }
  return [querySums, keySums, valueSums].map((sums) => Float32Array.from(sums));
}

/** What a tile adds to d query / scale, `[heads · rows, headDim]`, to d key / scale, `[headDim, keys]`, and to d value, `[valueDim, keys]`. */
function tileGradients(call: CPUGradientCall, tile: Tile): TypedArray[] {
  const {query, key, value, output, dy, dLogSumExp, geometry} = call;
  const {headDim, valueDim} = geometry;
  const [rows, keys] = [tile.heads * tile.rows, tile.positions.length];
  const {weights, tanhs, shares} = weightsOf(call, tile);
  // The share of a row's weights goes into its dy and, as one more column, into the delta that the product with the values subtracts.
  const outputs = tileRows(call, tile, output, valueDim);
  const dys = tileRows(call, tile, dy, valueDim);
  const dLogSums = dLogSumExp && tileRows(call, tile, dLogSumExp, 1);
  const byOutput = new Float32Array(rows * (valueDim + 1));
  shares.forEach((share, i) => {
    const delta = dot(outputs, i * valueDim, dys, i * valueDim, valueDim) - (dLogSums?.[i] ?? 0);
    for (let d = 0; d < valueDim; ++d) {
      dys[i * valueDim + d] *= share;
      byOutput[i * (valueDim + 1) + d] = dys[i * valueDim + d];
    }
    byOutput[i * (valueDim + 1) + valueDim] = -share * delta;
  });
  const valueColumns = new Float32Array((valueDim + 1) * keys).fill(1);
  valueColumns.set(transposed(tileKeys(call, tile, value, valueDim), valueDim));
  const byWeights = matMul(tensor2d(byOutput, [rows, valueDim + 1]), tensor2d(valueColumns, [valueDim + 1, keys]));
  const byScores = mul<Tensor2D>(weights, byWeights);
  const byProducts = tanhs ? mul<Tensor2D>(byScores, sub(1, square(tanhs))) : byScores;
  const keyRows = tensor2d(tileKeys(call, tile, key, headDim), [keys, headDim]);
  const queryColumns = tensor2d(transposed(tileRows(call, tile, query, headDim), headDim), [headDim, rows]);
  const dyColumns = tensor2d(transposed(dys, valueDim), [valueDim, rows]);
  return [matMul(byProducts, keyRows), matMul(queryColumns, byProducts), matMul(dyColumns, weights)].map((x) =>
    x.dataSync(),
  );
}
