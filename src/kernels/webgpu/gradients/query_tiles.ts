import {listedTiles} from '../wgsl/listed_tiles.js';
import type {ScoreForm} from '../wgsl/score_hooks.js';

/** Shader text: the keys of a workgroup, and the query rows that it walks over in tiles; by lists of blocks, or all. */
export const queryTiles = (sparse: boolean, form: Pick<ScoreForm, 'causal' | 'window'>): string =>
  sparse ? sparseQueryTiles : exactQueryTiles(form);

const sparseQueryTiles = `${listedTiles('queries', true)}

fn queryRows(head : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  return vec3<i32>(head, listedTile(head, tile, t));
}`;

/** The same for exact attention: all queries from the first that may see a key of the tile, with a window up to the last. */
const exactQueryTiles = ({causal, window}: Pick<ScoreForm, 'causal' | 'window'>): string => {
  const firstRow = causal
    ? 'firstKey - uniforms.queryOffset'
    : 'firstKey - uniforms.window + 1 - uniforms.firstPosition';
  const first = causal || window ? `min(max(${firstRow}, 0) / tileQueries, headTiles())` : '0';
  const tiles = window ? 'countOfHead(firstKey)' : '(headTiles() - firstQueryTile(firstKey))';
  return `
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
  return ${first};
}${window ? countOfHead : ''}

fn countQueryTiles(firstKey : i32) -> i32 {
  let sharing = uniforms.batch * uniforms.heads / uniforms.owners;
  return sharing * ${tiles};
}

fn queryRows(owner : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  let ofHead = ${window ? tiles : 'headTiles() - firstQueryTile(firstKey)'};
  let first = (firstQueryTile(firstKey) + t % ofHead) * tileQueries;
  return vec3<i32>(firstHead + t / ofHead, first, min(first + tileQueries, uniforms.queryLength));
}`;
};

const countOfHead = `

// Query tiles up to the last row in whose window the last key of a tile stands.
fn countOfHead(firstKey : i32) -> i32 {
  let endRow = clamp(firstKey + tileKeys - 1 + uniforms.window - uniforms.firstPosition, 0, uniforms.queryLength);
  return max(0, (endRow + tileQueries - 1) / tileQueries - firstQueryTile(firstKey));
}`;
