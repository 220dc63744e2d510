import type {Tensor, Tensor3D, Tensor4D} from '@tensorflow/tfjs-core';
import {
  cast,
  concat,
  div,
  divNoNan,
  equal,
  gather,
  keep,
  logicalNot,
  mul,
  pad,
  range,
  reshape,
  slice,
  sub,
  sum,
  tensor,
  tensor1d,
  tidy,
} from '@tensorflow/tfjs-core';
import {flashAttention} from './flash_attention.js';
import type {FlashAttentionOptions} from './options.js';
import type {PBSAttentionPlanSizes} from './results.js';

/**
 * Exact attention by block: float32 `[batch, heads, queryBlocks, keyBlocks]`, what the rows of a query block pay in the
 * mean to the keys of each block of a key order. The entries of a query block add up to 1, less its share of rows that see
 * nothing. Kept past the end of a `tidy`, since it comes later: the caller disposes it.
 *
 * If the value of a key says, as a one-hot row, in which block the key stands, attention to these values is that mass. So
 * the exact kernel computes it, for `headDim` blocks a call, and no matrix of scores ever exists: the largest tensors are
 * `[batch, heads, length, headDim]`, the time is `ceil(keyBlocks / headDim)` times that of exact attention.
 *
 * @param keyIndices int32 `[batch, heads, keyLength]`: permuted position → original key.
 * @param options those of the exact attention.
 */
export async function blockMass(
  query: Tensor4D,
  key: Tensor4D,
  keyIndices: Tensor3D,
  {blockSize, keyBlockSize}: Pick<PBSAttentionPlanSizes, 'blockSize' | 'keyBlockSize'>,
  options: Omit<FlashAttentionOptions, 'precision'>,
): Promise<Tensor4D> {
  const blocks = blocksOfKeys(await keyIndices.data(), keyIndices.shape, keyBlockSize);
  const mass = tidy(() => {
    const [batch, heads, queryLength, headDim] = query.shape;
    // A short query is not padded to a whole block.
    const blockRows = Math.min(blockSize, queryLength);
    const keyBlocks = Math.ceil(keyIndices.shape[2] / keyBlockSize);
    const queryBlocks = Math.ceil(queryLength / blockSize);
    const blockOf = tensor(blocks, [...keyIndices.shape, 1]);
    // Heads that share keys have key orders, and so values, of their own.
    const keys = repeatHeads(key, heads);
    const rows = reshape(rowsOfBlocks(queryLength, blockSize), [1, queryBlocks, 1]);
    const parts: Tensor[] = [];
    for (let first = 0; first < keyBlocks; first += headDim) {
      parts.push(
        tidy(() => {
          const oneHot = cast(equal(blockOf, range(first, first + headDim)), 'float32') as Tensor4D;
          const mass = flashAttention(query, keys, oneHot, options);
          const padded = pad(reshape(mass, [batch * heads, queryLength, headDim]), [
            [0, 0],
            [0, queryBlocks * blockRows - queryLength],
            [0, 0],
          ]);
          const byBlock = reshape(padded, [batch * heads * queryBlocks, blockRows, headDim]);
          return div(reshape(sum(byBlock, 1), [batch * heads, queryBlocks, headDim]), rows);
        }),
      );
    }
    const all = slice(concat(parts, 2), [0, 0, 0], [batch * heads, queryBlocks, keyBlocks]);
    return reshape(all, [batch, heads, queryBlocks, keyBlocks]) as Tensor4D;
  });
  return keep(mass);
}

/**
 * Share of the attention that the selected blocks hold, by head: float32 `[batch, heads]`, mean over the query rows that see
 * a key; 1 where none does.
 *
 * @param mass what {@link blockMass} gave.
 * @param blockMask bool, of the same shape.
 */
export function massOfKept(mass: Tensor4D, blockMask: Tensor4D, queryLength: number, blockSize: number): Tensor {
  return tidy(() => {
    const rows = rowsOfBlocks(queryLength, blockSize);
    // Of a row that sees nothing there is no mass to lose.
    const [all, lost] = [mass, mul(mass, cast(logicalNot(blockMask), 'float32'))].map((x) =>
      sum(mul(sum(x, 3), rows), 2),
    );
    return sub(1, divNoNan(lost, all));
  });
}

/** As float32, shaped as the key indices: the block in which each original key stands. */
function blocksOfKeys(keyIndices: ArrayLike<number>, [, , length]: number[], keyBlockSize: number): Float32Array {
  const blocks = new Float32Array(keyIndices.length);
  for (let i = 0; i < blocks.length; ++i) {
    const position = i % length;
    blocks[i - position + keyIndices[i]] = Math.floor(position / keyBlockSize);
  }
  return blocks;
}

/** `[queryBlocks]`: query rows of each block, of which the last may be partial. */
function rowsOfBlocks(queryLength: number, blockSize: number): Tensor {
  const blocks = Math.ceil(queryLength / blockSize);
  return tensor1d(Array.from({length: blocks}, (_, i) => Math.min(blockSize, queryLength - i * blockSize)));
}

/** A key head for each query head. By gather, because tfjs's tile reads back on WebGPU. */
function repeatHeads(x: Tensor4D, heads: number): Tensor4D {
  const keyHeads = x.shape[1];
  if (keyHeads === heads) {
    return x;
  }
  const sources = Array.from({length: heads}, (_, head) => Math.floor(head / (heads / keyHeads)));
  return gather(x, tensor1d(sources, 'int32'), 1);
}
