import type {AttendWalk, WalkVariant} from '../attend/attend_walk.js';
import {groupText, keysText, lastKey, roundText, WalkProgram} from '../attend/attend_walk.js';
import {addRows, startSums} from '../glsl/row_sums.js';
import {sumTexels, tilesPerBlock} from '../glsl/tiles.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {GradientRound} from './gradient_walk.js';
import {sharesOf} from './gradient_walk.js';

interface QueryVariant {
  firstRound: boolean;
  /** Whether there is a soft cap. */
  capped?: true;
}

/**
 * Stage 2 of the gradients, gradient query: sums up to and with a round of the keys, each times the gradient of its score,
 * weight · (dy · value − delta). A row a group; layer `q * n + i` of texel t: vector `t * n + i` for query row q, where n is
 * a quarter of the draw buffers.
 *
 * Scores and products of the round are drawn before; weights need no maximum, since their sums are known.
 */
export class GradientQueryProgram extends WalkProgram<QueryVariant> {
  /** @param statistics of all query rows. */
  constructor(
    walk: AttendWalk,
    statistics: RowTexture,
    {firstSlot, scores, products, derivatives, before}: GradientRound,
  ) {
    const {call, geometry, keys, firstGroup, endGroup, slotsPerRound} = walk;
    const layers = call.context.drawBuffers;
    super(walk, {
      name: 'GradientQuery',
      inputs: {scores, products, ...(derivatives && {derivatives}), statistics, rows: keys, ...(before && {before})},
      uniforms: {firstSlot},
      output: {rows: endGroup - firstGroup, columns: 4 * sumTexels(geometry.headDim, layers), layers},
      variant: {firstRound: before === undefined, ...(derivatives && {capped: true})},
      fetches: slotsPerRound * tilesPerBlock(geometry, layers) * layers * (2 + layers / 4) + layers,
    });
  }

  protected shader(variant: WalkVariant & QueryVariant): string {
    const {tileKeys, firstRound, capped} = variant;
    const weights = (k: number) => `${sharesOf(k, 'logSum')}
        vec4 weights = shares * (fetchProducts(at, tile, ${k}) - delta)${capped ? ` * fetchDerivatives(at, tile, ${k})` : ''};`;
    return `
// A fragment adds up ${tileKeys / 4} vectors of the keys, times the gradients of their scores for a group's four rows.
${groupText(variant)}
${roundText}
${keysText(variant)}
void compute(int row, int texel) {
  Group group = groupAt(firstGroup + row);
  ${startSums(tileKeys, firstRound)}
  vec4 logSum;
  vec4 delta;
  for (int q = 0; q < 4; q++) {
    vec4 known = readStatistics(group.head * queryLength + min(group.queries[q], queryLength - 1), 0);
    logSum[q] = known.x;
    delta[q] = known.y;
  }
  ivec2 at = scoresAt(row);
  int slots = slotsOfRound(group);
  ${addRows({tileKeys, first: 'firstKeyRow(group.head)', last: lastKey(variant), weights})}
}`;
  }
}
