import type {BlockGeometry} from '../block_geometry.js';
import {estimateUniforms, groupOfRow} from './block_log_sums.js';
import type {EstimateWalk} from './block_log_sums.js';
import {AttentionProgram} from './program.js';
import type {RowTexture} from './row_texture.js';
import {groupRows, headUniforms, keyBase} from './score_tile.js';

/*
 * Copies of query rows and keys for `BlockLogSumsProgram`: probe rows, and keys of different blocks, stand far apart, so that
 * fragments side by side would fetch little in common. Copied, what they fetch at any moment stands side by side; with that
 * the log sums take half of the time (docs/performance.md).
 */

/** The probe rows of the query blocks of a walk: rows `[4, query block, group]`, the i-th of each group together. */
export class GatherProbesProgram extends AttentionProgram<object> {
  constructor(walk: EstimateWalk, query: RowTexture, probes: RowTexture) {
    const groups = probes.texels;
    const rows = (walk.endRow - walk.firstRow) * groups;
    super({
      inputs: {query, probes},
      uniforms: {...estimateUniforms(walk, groups), groupCount: {type: 'int', value: rows}},
      output: {rows: groupRows * rows, columns: query.columns},
      variant: {},
      fetches: 2,
    });
  }

  protected shader(): string {
    return `
// A fragment copies one vector of a probe row.
void compute(int copy, int texel) {
  int place = divide(copy, groupCount);
  int row = copy - place * groupCount;${groupOfRow}
  int probe = queryBlock * blockSize + int(readProbes(blockRow, group)[place]);
  result0 = readQuery(head * queryLength + min(probe, queryLength - 1), texel);
}`;
  }
}

/** Rows of a head in what `GatherKeysProgram` makes. */
export const gatheredRows = (keyIndices: RowTexture, {keyBlocks}: BlockGeometry, tileBlocks: number): number =>
  keyIndices.columns * tileBlocks * Math.ceil(keyBlocks / tileBlocks);

/**
 * The keys of heads `[firstHead, endHead)` in permuted order: rows `[head, place, block of a tile, tile]`, where places are the
 * columns of `keyIndices`. Zeros where there is no key.
 */
export class GatherKeysProgram extends AttentionProgram<object> {
  constructor(
    key: RowTexture,
    keyIndices: RowTexture,
    geometry: BlockGeometry,
    firstHead: number,
    endHead: number,
    tileBlocks: number,
  ) {
    const {keyBlocks} = geometry;
    super({
      inputs: {key, keyIndices},
      uniforms: {
        ...headUniforms(geometry),
        firstHead: {type: 'int', value: firstHead},
        blocks: {type: 'int', value: keyBlocks},
        places: {type: 'int', value: keyIndices.columns},
        tileBlocks: {type: 'int', value: tileBlocks},
        tiles: {type: 'int', value: Math.ceil(keyBlocks / tileBlocks)},
      },
      output: {rows: (endHead - firstHead) * gatheredRows(keyIndices, geometry, tileBlocks), columns: key.columns},
      variant: {},
      fetches: 2,
    });
  }

  protected shader(): string {
    return `
// A fragment copies one vector of a key.
${keyBase}
void compute(int row, int texel) {
  int inPlace = divide(row, tiles);
  int ofHead = divide(inPlace, tileBlocks);
  int headInRange = divide(ofHead, places);
  int block = (row - inPlace * tiles) * tileBlocks + inPlace - ofHead * tileBlocks;
  int place = ofHead - headInRange * places;
  int head = firstHead + headInRange;
  int index = block < blocks ? int(readKeyIndices(head * blocks + block, place / 4)[place % 4]) : -1;
  result0 = index < 0 ? vec4(0.0) : readKey(keyBase(head) + index, texel);
}`;
  }
}
