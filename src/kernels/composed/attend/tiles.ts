import {selectedBlocks} from '../../cpu/select/block_lists.js';
import type {CPUCall, CPUPlan} from '../../cpu/cpu_call.js';
import {visibleScores} from '../../cpu/attend/visible_scores.js';
import {visibleRange} from '../../cpu/rows.js';
import {tameness} from './tameness.js';
import type {Tile} from './tile_values.js';

/**
 * Scores that exist at a time, 8 MiB a tensor of them; more only where the rows at one position, of the heads that share a key head,
 * see more keys.
 */
const mostScores = 2 ** 21;
/** Rows of a product, of all heads of the tile: more share the keys' way to the backend, and waste more behind a causal mask. */
const mostRows = 256;

/** All rows of a call, tile by tile: with a plan those of one head and block, which share a list of keys. */
export function* tilesOf(call: CPUCall, plan?: CPUPlan): Generator<Tile> {
  const isTame = tameness(call);
  for (const tile of wholeTiles(call, plan)) {
    if (isTame(tile)) yield tile;
    else yield* rowByRow(call, tile, plan);
  }
}

function* wholeTiles(call: CPUCall, plan?: CPUPlan): Generator<Tile> {
  const {batch, heads, keyValueHeads, queryLength, keyLength, blockSize, window = Infinity} = call.geometry;
  const together = plan ? 1 : heads / keyValueHeads;
  // A little more than a window, for the rows of a tile have one each.
  const spanned = Math.min(keyLength, (call.causal ? window : 2 * window) + mostRows);
  for (let head = 0; head < batch * heads; head += together) {
    for (let row = 0; row < queryLength;) {
      const listed = plan && listedKeys(call, plan, head, row);
      const rowsThatFit = Math.min(mostRows, mostScores / (listed?.length ?? spanned)) / together;
      const end = plan ? (Math.floor(row / blockSize) + 1) * blockSize : queryLength;
      const rows = Math.min(Math.max(1, Math.floor(rowsThatFit)), Math.min(end, queryLength) - row);
      const [first] = visibleRange(call, head, row);
      const [, last] = visibleRange(call, head, row + rows - 1);
      const positions =
        listed?.filter((position) => position >= first && position < last) ??
        Int32Array.from({length: Math.max(0, last - first)}, (_, i) => first + i);
      yield {head, heads: together, row, rows, positions};
      row += rows;
    }
  }
}

/** With no other keys than the row sees: a weight of 0 times what is not finite would be a NaN. */
function* rowByRow(call: CPUCall, {head, heads, row, rows}: Tile, plan?: CPUPlan): Generator<Tile> {
  const keysOf = visibleScores(call, plan);
  for (let i = 0; i < heads * rows; ++i) {
    const of = {head: head + Math.floor(i / rows), row: row + (i % rows)};
    const {positions, scores} = keysOf(of.head, of.row);
    // A score that is NaN or infinite makes the whole row NaN.
    const isSound = scores.every((score) => score < Infinity);
    yield {...of, heads: 1, rows: 1, positions: positions.filter((_, j) => !isSound || scores[j] !== -Infinity)};
  }
}

/** Keys of the blocks that a plan keeps for a row. */
function listedKeys({geometry}: CPUCall, plan: CPUPlan, head: number, row: number): Int32Array {
  const {keyLength, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  const order = plan.keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
  const blocks = selectedBlocks(plan.blockLists, head * queryBlocks + Math.floor(row / blockSize), keyBlocks);
  return Int32Array.from(
    [...blocks].flatMap((block) => [...order.subarray(block * keyBlockSize, (block + 1) * keyBlockSize)]),
  );
}
