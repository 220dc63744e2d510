/** Shader text: the keys of a workgroup, and the query rows that it walks over in tiles; by lists of blocks, or all. */
export const queryTiles = (sparse: boolean, causal: boolean): string => `
fn tilesIn(size : i32, tile : i32) -> i32 {
  return (size + tile - 1) / tile;
}
${sparse ? sparseQueryTiles : exactQueryTiles(causal)}`;

/** Where blocks have lists. A tile crosses no block's end. */
const sparseQueryTiles = `
// Slots [first, end) in the permuted order that a key tile covers.
fn keySlots(tile : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.keyBlockSize, tileKeys);
  let block = tile / tilesPerBlock;
  let first = block * uniforms.keyBlockSize + (tile % tilesPerBlock) * tileKeys;
  return vec2<i32>(first, min(min(first + tileKeys, (block + 1) * uniforms.keyBlockSize), uniforms.keyShape.z));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyShape.z + slot];
}

// Where the list of a key tile's block starts: its length, then its query blocks.
fn listStart(head : i32, tile : i32) -> i32 {
  let block = tile / tilesIn(uniforms.keyBlockSize, tileKeys);
  return (head * uniforms.queryListsShape.z + block) * uniforms.queryListsShape.w;
}

fn countQueryTiles(head : i32, tile : i32, firstKey : i32) -> i32 {
  return queryLists[listStart(head, tile)] * tilesIn(uniforms.blockSize, tileQueries);
}

fn queryRows(head : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  let tilesPerBlock = tilesIn(uniforms.blockSize, tileQueries);
  let block = queryLists[listStart(head, tile) + 1 + t / tilesPerBlock];
  let first = block * uniforms.blockSize + (t % tilesPerBlock) * tileQueries;
  let end = min((block + 1) * uniforms.blockSize, uniforms.queryShape.z);
  return vec3<i32>(head, first, min(first + tileQueries, end));
}`;

/** The same for exact attention: all queries from the first that may see a key of the tile. */
function exactQueryTiles(causal: boolean): string {
  return `
fn keySlots(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileKeys, min((tile + 1) * tileKeys, uniforms.keyShape.z));
}

fn keyPosition(owner : i32, slot : i32) -> i32 {
  return slot;
}

fn firstQueryTile(firstKey : i32) -> i32 {
  return ${causal ? 'min(max(firstKey - uniforms.queryOffset, 0) / tileQueries, tilesIn(uniforms.queryShape.z, tileQueries))' : '0'};
}

fn countQueryTiles(owner : i32, tile : i32, firstKey : i32) -> i32 {
  let sharing = uniforms.queryShape.x * uniforms.queryShape.y / uniforms.owners;
  return sharing * (tilesIn(uniforms.queryShape.z, tileQueries) - firstQueryTile(firstKey));
}

fn queryRows(owner : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  let ofHead = tilesIn(uniforms.queryShape.z, tileQueries) - firstQueryTile(firstKey);
  let first = (firstQueryTile(firstKey) + t % ofHead) * tileQueries;
  return vec3<i32>(firstHead + t / ofHead, first, min(first + tileQueries, uniforms.queryShape.z));
}`;
}
