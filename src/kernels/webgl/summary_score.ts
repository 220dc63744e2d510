import {varianceCap} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {Uniforms} from './program.js';
import {maskedScore} from './score_tile.js';

/** Uniforms of `writeSummaryScores`, in units of log2: the scale of products with means, and with variances. */
export function summaryUniforms({blockSize}: BlockGeometry, scale: number): Uniforms {
  return {
    blockSize: {type: 'int', value: blockSize},
    logitScale: {type: 'float', value: scale * Math.LOG2E},
    varianceScale: {type: 'float', value: (scale ** 2 / 2) * Math.LOG2E},
    varianceCap: {type: 'float', value: varianceCap * Math.LOG2E},
  };
}

/**
 * Shader text for the body of `compute`: writes to `result0`, `result1`, … what four query rows pay to as many key blocks as
 * there are draw buffers, by their summaries (see `block_estimate.ts`), in units of log2.
 *
 * Expects in scope: `head`, `queries` (ivec4: which rows of the query the four are), `firstBlock`, `competing` (blocks from
 * there on are masked) and `end` (keys that are not padding); the inputs `query` and `summaries`, the uniforms of
 * `summaryUniforms`, `queryLength` and `blocks`.
 */
export function writeSummaryScores(headDim: number, blocks: number): string {
  return `
  ${each(4, (q) => `ivec2 query${q} = queryAt(head * queryLength + min(queries[${q}], queryLength - 1));`, '\n  ')}
  ${each(blocks, (k) => `ivec2 block${k} = summariesAt(head * blocks + min(firstBlock + ${k}, blocks - 1));`, '\n  ')}
  ${each(blocks, (k) => `vec4 byMean${k} = vec4(0.0);\n  vec4 byVariance${k} = vec4(0.0);`, '\n  ')}
  for (int v = 0; v < ${Math.ceil(headDim / 4)}; v++) {
    ${each(4, (q) => `vec4 q${q} = fetchQuery(query${q}, v, 0);\n    vec4 square${q} = q${q} * q${q};`)}
    vec4 x;
    ${each(
      blocks,
      (k) => `x = fetchSummaries(block${k}, v, 0);
    byMean${k} += vec4(dot(q0, x), dot(q1, x), dot(q2, x), dot(q3, x));
    x = fetchSummaries(block${k}, v, 1);
    byVariance${k} += vec4(dot(square0, x), dot(square1, x), dot(square2, x), dot(square3, x));`,
    )}
  }
  ${each(
    blocks,
    (k) => `result${k} = firstBlock + ${k} < competing
    ? logitScale * byMean${k} + min(varianceScale * byVariance${k}, vec4(varianceCap))
      + log2(float(min(end - (firstBlock + ${k}) * blockSize, blockSize)))
    : vec4(${maskedScore});`,
    '\n  ',
  )}`;
}
