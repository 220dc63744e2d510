import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {PBSAttentionAttrs} from './attention_kernels.js';
import {rowDim} from './attention_kernels.js';

/**
 * How queries and keys are cut into blocks and segments: the same on every backend.
 *
 * Segments and key blocks count keys; query blocks count rows of the query, from its first. Query row i stands at position
 * `queryOffset + i` among the keys, so a query block of a chunk can reach over the end of a segment.
 *
 * The *block list* of a query block is the form in which selection is handed to attention: an int32 row of
 * `keyBlocks + 1` entries, first the number of selected key blocks, then their indices in ascending order; what follows
 * them is undefined. Blocks count positions in the permuted key order.
 *
 * *Key lengths* say, for each batch entry, from which position on its keys are padding, which nobody sees: it gets no
 * weight in the proxy pass, stands last in its segment, counts as zeros in mean keys, and blocks of nothing else are not
 * scored.
 */
export interface BlockGeometry {
  batch: number;
  heads: number;
  keyValueHeads: number;
  /** Rows of the query. */
  queryLength: number;
  /** Rows of key and value. */
  keyLength: number;
  /** Position of the first query row among the keys. Counts under a causal mask, with a window and with slopes. */
  queryOffset: number;
  /** Row i sees key j only if `i − j < window`, and without a causal mask `|i − j| < window`. */
  window?: number;
  /** Values a row of query and key. */
  headDim: number;
  /** Values a row of value and output. */
  valueDim: number;
  /** Rows a block of queries. */
  blockSize: number;
  /** Keys a block of keys. */
  keyBlockSize: number;
  /** Keys a segment, whole blocks of keys. */
  segmentSize: number;
  /** Blocks of queries, and of keys: the last one may be partial. */
  queryBlocks: number;
  keyBlocks: number;
  /** Keys in complete segments that some query row sees to their end; the others keep their order. */
  permutedLength: number;
  /** Last query rows that stand for all others when keys are scored; `proxyRange` says which they are. */
  proxyRows: number;
}

/** The part of the geometry that says which blocks see which. */
export type BlockGrid = Pick<
  BlockGeometry,
  'blockSize' | 'keyBlockSize' | 'segmentSize' | 'queryLength' | 'queryOffset' | 'window' | 'queryBlocks' | 'keyBlocks'
>;

/**
 * @param attrs `queryOffset` is by default that of queries which end with the keys. `causal` counts for `permutedLength`.
 * @param value the key stands for it where a kernel has none.
 */
export function blockGeometry(
  query: TensorInfo,
  key: TensorInfo,
  attrs: Pick<PBSAttentionAttrs, 'blockSize' | 'keyBlockSize' | 'segmentSize'> & {
    queryOffset?: number;
    causal?: boolean;
    window?: number;
  },
  value: TensorInfo = key,
): BlockGeometry {
  const [batch, heads, queryLength, headDim] = query.shape;
  const [, keyValueHeads, keyLength] = key.shape;
  const {blockSize, keyBlockSize, segmentSize, queryOffset = keyLength - queryLength, causal = false} = attrs;
  const {window = Infinity} = attrs;
  // A cache can hold room for keys that are yet to come: what proxy rows would pay to them says nothing.
  const seenLength = causal ? queryOffset + queryLength : keyLength;
  return {
    batch,
    heads,
    keyValueHeads,
    queryLength,
    keyLength,
    queryOffset,
    // A window in which every row sees every key is none.
    ...(window < Math.max(queryOffset + queryLength, keyLength - queryOffset) && {window}),
    headDim,
    valueDim: rowDim(value),
    blockSize,
    keyBlockSize,
    segmentSize,
    queryBlocks: Math.ceil(queryLength / blockSize),
    keyBlocks: Math.ceil(keyLength / keyBlockSize),
    permutedLength: Math.floor(seenLength / segmentSize) * segmentSize,
    proxyRows: Math.min(blockSize, queryLength),
  };
}

/**
 * Whether the options ask for exact attention: nothing lies in an earlier segment, or the threshold keeps every block.
 * A threshold of 1 is decided here and not by a sum of float32 scores, which can reach 1 too early or never.
 */
export function isExact(geometry: BlockGeometry, {threshold, causal}: {threshold: number; causal: boolean}): boolean {
  const {queryLength, keyLength, queryOffset, segmentSize} = geometry;
  return threshold >= 1 || (causal ? queryOffset + queryLength : keyLength) <= segmentSize;
}

/**
 * Key blocks before this one hold no key in the window of any row of the query block; 0 without a window. A number of whole
 * segments, since keys move inside them.
 */
export function firstVisibleBlock(geometry: BlockGrid, queryBlock: number): number {
  const {blockSize, keyBlockSize, segmentSize, queryOffset, window, keyBlocks} = geometry;
  const firstKey = window === undefined ? 0 : Math.max(0, queryOffset + queryBlock * blockSize - window + 1);
  return Math.min((Math.floor(firstKey / segmentSize) * segmentSize) / keyBlockSize, keyBlocks);
}

/** Whether key 0, whose block always counts, is in the window of a query block's first row. */
export const seesFirstKey = ({window = Infinity, queryOffset, blockSize}: BlockGrid, queryBlock: number): boolean =>
  queryOffset + queryBlock * blockSize < window;

/**
 * Key blocks `[firstVisibleBlock, scoredBlocks)` compete for a query block: those of segments before that of its first row; without
 * a causal mask all that its rows may see.
 */
export function scoredBlocks(geometry: BlockGrid, causal: boolean, queryBlock: number): number {
  const {blockSize, keyBlockSize, segmentSize, queryOffset} = geometry;
  if (!causal) {
    return visibleBlocks(geometry, causal, queryBlock);
  }
  const segment = Math.floor((queryOffset + queryBlock * blockSize) / segmentSize);
  return (segment * segmentSize) / keyBlockSize;
}

/**
 * Key blocks `[firstVisibleBlock, visibleBlocks)` can hold a key that a row of the query block may see: up to the end of the segment of its
 * last row. Keys are permuted inside segments, so all blocks of that segment count.
 */
export function visibleBlocks(geometry: BlockGrid, causal: boolean, queryBlock: number): number {
  const {blockSize, keyBlockSize, segmentSize, queryLength, queryOffset, window = Infinity, keyBlocks} = geometry;
  const lastRow = Math.min((queryBlock + 1) * blockSize, queryLength) - 1;
  const lastKey = queryOffset + lastRow + (causal ? 0 : window - 1);
  const segments = Math.floor(lastKey / segmentSize) + 1;
  return Math.min((segments * segmentSize) / keyBlockSize, keyBlocks);
}

/** Whether query rows have positions among the keys: under a causal mask, and in self-attention without one. */
export function rowsHavePositions({queryLength, keyLength}: BlockGeometry, causal: boolean): boolean {
  return causal || queryLength === keyLength;
}

/**
 * Proxy rows `[first, end)` of a batch entry whose keys from `length` on are padding: the last of its rows that are not
 * padding themselves, at most a block of them. A row is padding if it has a position that is not below the length. There may
 * be none.
 */
export function proxyRange(geometry: BlockGeometry, causal: boolean, length: number): [first: number, end: number] {
  const {queryLength, queryOffset, proxyRows} = geometry;
  const hasPositions = rowsHavePositions(geometry, causal);
  const end = hasPositions ? Math.max(0, Math.min(length - (causal ? queryOffset : 0), queryLength)) : queryLength;
  return [Math.max(0, end - proxyRows), end];
}
