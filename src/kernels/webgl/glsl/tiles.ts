import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {RowSplit} from '../runtime/tensor_rows.js';

/** Query rows that a fragment takes at a time: the components of a texel of scores. */
export const groupRows = 4;

/*
 * Which rows and keys a fragment takes: group g of n groups has the rows g, g + n, g + 2n and g + 3n, and tile t of n
 * tiles has the keys t, t + n, … Fragments that run together, of neighbouring groups and tiles, then fetch neighbouring
 * texels at any moment. A tile has as many keys, `tileKeys`, as there are draw buffers.
 */

export const tilesPerBlock = ({keyBlockSize}: Pick<BlockGeometry, 'keyBlockSize'>, tileKeys: number) =>
  Math.ceil(keyBlockSize / tileKeys);

/**
 * How `[batch, heads, keyLength]` lies in the rows of `keyIndices`, one row a block and head: tile after tile, the last
 * one filled up, −1 for no key.
 */
export function keyIndexSplit(
  geometry: Pick<BlockGeometry, 'keyLength' | 'keyBlockSize'>,
  tileKeys: number,
): Required<RowSplit> {
  const {keyLength, keyBlockSize} = geometry;
  const tiles = tilesPerBlock(geometry, tileKeys);
  return {inner: keyLength, piece: keyBlockSize, tiles, tileValues: tileKeys, columns: tiles * tileKeys, filler: -1};
}

/** Texels a group of weighted sums of rows: a fragment writes a vector a draw buffer, as many for each of four rows. */
export const sumTexels = (dim: number, drawBuffers: number) =>
  Math.ceil(Math.ceil(dim / 4) / (drawBuffers / groupRows));

/** Values a row as the programs of weighted sums read it: no fragment looks past the row. */
export const sumColumns = (dim: number, drawBuffers: number) => sumTexels(dim, drawBuffers) * drawBuffers;
