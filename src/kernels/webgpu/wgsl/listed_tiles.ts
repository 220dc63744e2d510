/** Rows in blocks, in the names of the shader: their size, that of a tile of them, and how many rows and blocks there are. */
const queries = {
  blockSize: 'uniforms.blockSize',
  tileSize: 'tileQueries',
  length: 'uniforms.queryLength',
  blocks: 'uniforms.queryBlocks',
};
const keys = {
  blockSize: 'uniforms.keyBlockSize',
  tileSize: 'tileKeys',
  length: 'uniforms.keyLength',
  blocks: 'uniforms.keyBlocks',
};

/**
 * Shader text: tiles of rows where blocks have lists. A workgroup owns a tile of queries and walks over the keys of the blocks in its
 * block list; or, by query lists, the other way round. A tile crosses no block's end. Slots of keys are those of the permuted order.
 *
 * @param joined whether key order and lists stand in one buffer (`gradients/joined_plan.ts`).
 */
export function listedTiles(of: 'blocks' | 'queries', joined?: boolean): string {
  const [owned, walked] = of === 'blocks' ? [queries, keys] : [keys, queries];
  const [order, lists] = joined ? ['joinedPlan', 'joinedPlan'] : ['keyIndices', 'blockLists'];
  const firstList = joined ? 'uniforms.batch * uniforms.heads * uniforms.keyLength + ' : '';
  return `
fn tilesIn(size : i32, tile : i32) -> i32 {
  return (size + tile - 1) / tile;
}

// Rows [first, end) of the t-th tile of a block.
fn tileOfBlock(block : i32, t : i32, blockSize : i32, tileSize : i32, length : i32) -> vec2<i32> {
  let first = block * blockSize + t * tileSize;
  let end = min((block + 1) * blockSize, length);
  return vec2<i32>(first, min(first + tileSize, end));
}

fn ownedSpan(tile : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(${owned.blockSize}, ${owned.tileSize});
  return tileOfBlock(tile / tilesPerBlock, tile % tilesPerBlock, ${owned.blockSize}, ${owned.tileSize}, ${owned.length});
}

// Where the list of an owned tile's block starts: its length, then its blocks.
fn listStart(head : i32, tile : i32) -> i32 {
  let block = tile / tilesIn(${owned.blockSize}, ${owned.tileSize});
  return ${firstList}(head * ${owned.blocks} + block) * (${walked.blocks} + 1);
}

fn countListed(head : i32, tile : i32) -> i32 {
  return ${lists}[listStart(head, tile)] * tilesIn(${walked.blockSize}, ${walked.tileSize});
}

// The t-th tile that the owner of a tile walks over.
fn listedTile(head : i32, tile : i32, t : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(${walked.blockSize}, ${walked.tileSize});
  let block = ${lists}[listStart(head, tile) + 1 + t / tilesPerBlock];
  return tileOfBlock(block, t % tilesPerBlock, ${walked.blockSize}, ${walked.tileSize}, ${walked.length});
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return ${order}[head * uniforms.keyLength + slot];
}`;
}
