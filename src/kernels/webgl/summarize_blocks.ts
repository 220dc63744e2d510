import type {BlockGeometry} from '../block_geometry.js';
import {keyEndText} from './key_lengths.js';
import {AttentionProgram} from './program.js';
import type {RowTexture} from './row_texture.js';
import {headUniforms, keyBase} from './score_tile.js';

interface SummaryVariant {
  variance: boolean;
  padded: boolean;
}

/**
 * Part of stage 2, summaries of the blocks of permuted keys (what they are, `block_estimate.ts` says): rows of as many values
 * as a row of `source`, one row a block and head: the mean of the rows of each block (layer 0), and where asked for their
 * variance (layer 1). A block of nothing but padding has zeros.
 *
 * @param source keys or values.
 */
export class SummarizeBlocksProgram extends AttentionProgram<SummaryVariant> {
  constructor(
    source: RowTexture,
    keyIndices: RowTexture,
    geometry: BlockGeometry,
    variance: boolean,
    keyLengths?: RowTexture,
  ) {
    const {batch, heads, blockSize, keyBlocks} = geometry;
    super({
      inputs: {source, keyIndices, ...(keyLengths && {keyLengths})},
      uniforms: {
        ...headUniforms(geometry),
        blocks: {type: 'int', value: keyBlocks},
        blockSize: {type: 'int', value: blockSize},
        indexTexels: {type: 'int', value: keyIndices.texels},
      },
      output: {rows: batch * heads * keyBlocks, columns: source.columns},
      layers: variance ? 2 : 1,
      variant: {variance, padded: keyLengths !== undefined},
      fetches: (variance ? 2.5 : 1.25) * blockSize,
    });
  }

  protected shader({variance, padded}: SummaryVariant): string {
    const end = padded ? 'keyEnd(head)' : 'keyLength';
    const eachRow = (body: string) => `
  for (int i = 0; i < indexTexels; i++) {
    ivec4 keys = ivec4(readKeyIndices(row, i));
    for (int c = 0; c < 4; c++) {
      if (keys[c] >= 0${padded ? ' && keys[c] < end' : ''}) {
        ${body}
      }
    }
  }`;
    return `
// A fragment adds up one vector of a block's rows${variance ? ', and then its squared distances from the mean' : ''}.
${keyBase}${padded ? keyEndText : ''}
void compute(int row, int texel) {
  int head = row / blocks;
  int firstSource = keyBase(head);
  int end = ${end};
  // Padding stands last in its segment, so the keys that are none are the first of the order, too.
  float count = float(clamp(end - (row % blocks) * blockSize, 1, blockSize));
  vec4 mean = vec4(0.0);${eachRow('mean += readSource(firstSource + keys[c], texel);')}
  mean /= count;
  result0 = mean;${
    variance
      ? `
  vec4 variance = vec4(0.0);${eachRow(`vec4 x = readSource(firstSource + keys[c], texel) - mean;
        variance += x * x;`)}
  result1 = variance / count;`
      : ''
  }
}`;
  }
}
