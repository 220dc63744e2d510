import {listedTiles} from '../wgsl/listed_tiles.js';

/** Shader text: the keys of a workgroup, and the query rows that it walks over in tiles; by lists of blocks, or all. */
export const queryTiles = (sparse: boolean, causal: boolean): string =>
  sparse ? sparseQueryTiles : exactQueryTiles(causal);

const sparseQueryTiles = `${listedTiles('queryLists')}

fn queryRows(head : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  return vec3<i32>(head, listedTile(head, tile, t));
}`;

/** The same for exact attention: all queries from the first that may see a key of the tile. */
const exactQueryTiles = (causal: boolean): string => `
fn ownedSpan(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileKeys, min((tile + 1) * tileKeys, uniforms.keyLength));
}

fn keyPosition(owner : i32, slot : i32) -> i32 {
  return slot;
}

// Query tiles of a head, and the first of them that may see a key.
fn headTiles() -> i32 {
  return (uniforms.queryLength + tileQueries - 1) / tileQueries;
}

fn firstQueryTile(firstKey : i32) -> i32 {
  return ${causal ? 'min(max(firstKey - uniforms.queryOffset, 0) / tileQueries, headTiles())' : '0'};
}

fn countQueryTiles(firstKey : i32) -> i32 {
  let sharing = uniforms.batch * uniforms.heads / uniforms.owners;
  return sharing * (headTiles() - firstQueryTile(firstKey));
}

fn queryRows(owner : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  let ofHead = headTiles() - firstQueryTile(firstKey);
  let first = (firstQueryTile(firstKey) + t % ofHead) * tileQueries;
  return vec3<i32>(firstHead + t / ofHead, first, min(first + tileQueries, uniforms.queryLength));
}`;
