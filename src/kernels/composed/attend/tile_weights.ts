import type {Tensor2D} from '@tensorflow/tfjs-core';
import {add, div, matMul, max, mul, softmax, tanh, tensor2d} from '@tensorflow/tfjs-core';
import {sinkOf} from '../../cpu/rows.js';
import type {CPUCall} from '../../cpu/cpu_call.js';
import {biasOf} from './tile_bias.js';
import type {Tile} from './tile_values.js';
import {tileKeys, tileRows, transposed} from './tile_values.js';

/** The softmax of a tile, on the backend and, by row, here. */
export interface TileWeights {
  /** `[heads · rows, keys]`: add up to 1 in every row, blind ones too. */
  weights: Tensor2D;
  /** Of a soft cap: tanh of the scaled product over the cap. */
  tanhs?: Tensor2D;
  /** `[heads · rows]`: 1 less what a sink takes; 0 in a row that sees no key. */
  shares: Float32Array;
  /** `[heads · rows]`: log Σ exp(score), that of the sink among them. */
  logSums: Float64Array;
}

/** To be called in a `tidy`. */
export function weightsOf(call: CPUCall, tile: Tile): TileWeights {
  const {geometry, query, key, scale, softCap} = call;
  const {headDim} = geometry;
  const keys = tile.positions.length;
  // Keys are turned here: products of matrices as they stand take a tenth of the time of others on wasm.
  const keyColumns = transposed(tileKeys(call, tile, key, headDim), headDim);
  const queries = tensor2d(tileRows(call, tile, query, headDim), [tile.heads * tile.rows, headDim]);
  const products = matMul<Tensor2D>(mul(queries, scale), tensor2d(keyColumns, [headDim, keys]));
  const tanhs = softCap === undefined ? undefined : tanh<Tensor2D>(div(products, softCap));
  const capped = tanhs ? mul<Tensor2D>(tanhs, softCap!) : products;
  const bias = biasOf(call, tile);
  const scores = bias.values ? add<Tensor2D>(capped, tensor2d(bias.values, [tile.heads * tile.rows, keys])) : capped;
  const weights = softmax(scores);
  return {weights, ...(tanhs && {tanhs}), ...sumsOf(call, tile, bias.isBlind, scores, weights)};
}

/** The largest weight of a row is that of its largest score: with both, the sum is known. */
function sumsOf(
  call: CPUCall,
  {head, rows}: Tile,
  isBlind: Uint8Array,
  scores: Tensor2D,
  weights: Tensor2D,
): Pick<TileWeights, 'shares' | 'logSums'> {
  const [tops, topWeights] = [scores, weights].map((x) => max(x, -1).dataSync());
  const logSums = new Float64Array(tops.length);
  const shares = new Float32Array(tops.length);
  tops.forEach((top, i) => {
    const sink = sinkOf(call, head + Math.floor(i / rows));
    const ofKeys = isBlind[i] || top === -Infinity ? -Infinity : top - Math.log(topWeights[i]);
    const most = Math.max(ofKeys, sink);
    logSums[i] = most === -Infinity ? most : most + Math.log(Math.exp(ofKeys - most) + Math.exp(sink - most));
    shares[i] = most === -Infinity ? 0 : Math.exp(ofKeys - logSums[i]);
  });
  return {shares, logSums};
}
