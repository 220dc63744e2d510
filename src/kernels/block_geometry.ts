import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {PBSAttentionAttrs} from './attention_kernels.js';

/**
 * How the sequence is cut into blocks and segments: the same on every backend.
 *
 * The *block list* of a query block is the form in which selection is handed to attention: an int32 row of
 * `blocks + 1` entries, first the number of selected key blocks, then their indices in ascending order; what follows
 * them is undefined. Blocks count positions in the permuted key order.
 */
export interface BlockGeometry {
  batch: number;
  heads: number;
  keyValueHeads: number;
  /** Tokens. */
  length: number;
  headDim: number;
  /** Rows a block. */
  blockSize: number;
  /** Keys a segment. */
  segmentSize: number;
  /** Blocks of queries, and of keys: the last one may be partial. */
  blocks: number;
  /** Keys in complete segments; the remainder keeps its order. */
  permutedLength: number;
  /** Last query rows that stand for all others when keys are scored. */
  proxyRows: number;
}

/** The part of the geometry that says which blocks see which. */
export type BlockGrid = Pick<BlockGeometry, 'blockSize' | 'segmentSize' | 'blocks'>;

export function blockGeometry(
  query: TensorInfo,
  key: TensorInfo,
  {blockSize, segmentSize}: Pick<PBSAttentionAttrs, 'blockSize' | 'segmentSize'>,
): BlockGeometry {
  const [batch, heads, length, headDim] = query.shape;
  return {
    batch,
    heads,
    keyValueHeads: key.shape[1],
    length,
    headDim,
    blockSize,
    segmentSize,
    blocks: Math.ceil(length / blockSize),
    permutedLength: Math.floor(length / segmentSize) * segmentSize,
    proxyRows: Math.min(blockSize, length),
  };
}

/**
 * Whether the options ask for exact attention: nothing lies in an earlier segment, or the threshold keeps every block.
 * A threshold of 1 is decided here and not by a sum of float32 scores, which can reach 1 too early or never.
 */
export function isExact(geometry: BlockGeometry, threshold: number): boolean {
  return threshold >= 1 || geometry.length <= geometry.segmentSize;
}

/**
 * Key blocks `[0, scoredBlocks)` compete for a query block: those of earlier segments, or all without a causal mask.
 */
export function scoredBlocks(geometry: BlockGrid, causal: boolean, queryBlock: number): number {
  if (!causal) {
    return geometry.blocks;
  }
  const segment = Math.floor((queryBlock * geometry.blockSize) / geometry.segmentSize);
  return (segment * geometry.segmentSize) / geometry.blockSize;
}

/**
 * Key blocks `[0, visibleBlocks)` can hold a key that a row of the query block may see. Keys are permuted inside
 * segments, so all blocks of the own segment count.
 */
export function visibleBlocks(geometry: BlockGrid, causal: boolean, queryBlock: number): number {
  const own = scoredBlocks(geometry, causal, queryBlock) + geometry.segmentSize / geometry.blockSize;
  return Math.min(own, geometry.blocks);
}

/** First query block that holds a proxy row. */
export function firstProxyBlock(geometry: BlockGeometry): number {
  return Math.floor((geometry.length - geometry.proxyRows) / geometry.blockSize);
}
