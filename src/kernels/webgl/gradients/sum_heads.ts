import {tilesPerBlock} from '../glsl/tiles.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {WebGLCall} from '../webgl_call.js';

/** Rows `[batch * heads * keyLength]`: where in the permuted order a key stands. */
export class KeyPlacesProgram extends AttentionProgram<{tileKeys: number}> {
  constructor({geometry, context}: WebGLCall, keyIndices: RowTexture) {
    const tileKeys = context.drawBuffers;
    const {batch, heads, keyLength, segmentSize} = geometry;
    super({
      name: 'KeyPlaces',
      inputs: {keyIndices},
      geometry,
      uniforms: {tilesPerBlock: tilesPerBlock(geometry, tileKeys)},
      output: {rows: batch * heads * keyLength, columns: 1},
      variant: {tileKeys},
      fetches: segmentSize / 4,
    });
  }

  protected shader({tileKeys}: {tileKeys: number}): string {
    return `
// A fragment looks for its key in the blocks of its segment, where the order has left it. Indices stand in the order of
// tiles.
void compute(int row, int texel) {
  int head = divide(row, keyLength);
  int key = row - head * keyLength;
  int blocksPerSegment = segmentSize / keyBlockSize;
  int firstBlock = divide(key, segmentSize) * blocksPerSegment;
  int place = key;
  for (int block = firstBlock; block < min(firstBlock + blocksPerSegment, keyBlocks); block++) {
    ivec2 at = keyIndicesAt(head * keyBlocks + block);
    for (int t = 0; t < tilesPerBlock * ${tileKeys / 4}; t++) {
      bvec4 found = equal(fetchKeyIndices(at, t, 0), vec4(key));
      if (any(found)) {
        int column = 4 * t + (found.x ? 0 : found.y ? 1 : found.z ? 2 : 3);
        place = block * keyBlockSize + (column % ${tileKeys}) * tilesPerBlock + column / ${tileKeys};
      }
    }
  }
  result0 = vec4(place);
}`;
  }
}

/** A tensor shaped as key or value: rows `[batch * heads * keyLength]`, added up over the heads that share keys. */
export class SumHeadsProgram extends AttentionProgram<{permuted: boolean}> {
  constructor({geometry}: WebGLCall, rows: RowTexture, places?: RowTexture) {
    const {heads, keyValueHeads} = geometry;
    super({
      name: 'SumHeads',
      inputs: {rows, ...(places && {places})},
      geometry,
      uniforms: {dim: rows.columns},
      variant: {permuted: places !== undefined},
      fetches: (2 * heads) / keyValueHeads,
    });
  }

  protected shader({permuted}: {permuted: boolean}): string {
    return `
// A fragment adds up one value over the heads that share it.
void compute(int index) {
  int row = index / dim;
  int column = index % dim;
  int sharing = heads / keyValueHeads;
  int firstRow = (row / keyLength) * sharing * keyLength;
  int key = row % keyLength;
  float sum = 0.0;
  for (int i = 0; i < sharing; i++) {
    int first = firstRow + i * keyLength;
    int place = ${permuted ? 'int(readPlaces(first + key, 0).x)' : 'key'};
    sum += readRows(first + place, column / 4)[column % 4];
  }
  result0 = vec4(sum, 0.0, 0.0, 0.0);
}`;
  }
}
