import type {PlanRule} from '../../../attention/attention_call.js';
import {leastScoreScale} from '../../../attention/sampled_estimate.js';
import {candidateBlocks, firstBlock, seesFirstKey, visibleBlocks} from '../glsl/block_ranges.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';
import {blockLists} from './block_lists.js';

type SelectRule = Pick<PlanRule, 'threshold' | 'estimate'>;

/**
 * Stage 3, select blocks: block lists, rows of `keyBlocks + 1` values, one row a query block and head (the form is described in
 * `block_geometry.ts`).
 *
 * Of the key blocks that compete, a query block keeps, by the pooled estimate (paper section 3.3), the shortest prefix, by
 * descending score, whose scores add up to the threshold; by the sampled one all but those of a score below `leastScore`
 * (`sampled_estimate.ts`). And always the blocks of its own segment (under a causal mask; of every segment that its rows stand
 * in) and the block that holds original key 0, the attention sink. Nothing before the window is kept.
 */
export function selectBlocks(
  call: WebGLCall,
  rule: SelectRule,
  scores: RowTexture,
  keyIndices: RowTexture,
): RowTexture {
  const {context} = call;
  return withScratch(context, (scratch) => {
    const sinkBlocks = scratch(new SinkBlocksProgram(call, keyIndices).run(context));
    const kept = scratch(new KeepBlocksProgram(call, rule, scores, sinkBlocks).run(context));
    return blockLists(call, kept);
  });
}

/** The block that holds original key 0. One value a head. */
export class SinkBlocksProgram extends AttentionProgram<object> {
  constructor({geometry}: WebGLCall, keyIndices: RowTexture) {
    super({
      name: 'SinkBlocks',
      inputs: {keyIndices},
      geometry,
      output: {rows: geometry.batch * geometry.heads, columns: 1},
      variant: {},
      fetches: geometry.segmentSize / 4,
    });
  }

  protected shader(): string {
    return `
// A fragment looks through the first segment, which key 0 does not leave.
void compute(int head, int texel) {
  int sink = 0;
  for (int block = 0; block * keyBlockSize < segmentSize; block++) {
    for (int i = 0; i < keyIndicesTexels; i++) {
      if (any(equal(readKeyIndices(head * keyBlocks + block, i), vec4(0.0)))) {
        sink = block;
      }
    }
  }
  result0 = vec4(sink);
}`;
  }
}

type KeepVariant = Pick<PlanRule, 'estimate'> & Pick<CallVariant, 'causal' | 'window'>;

/** 1 for a key block that is kept, else 0. Rows as in the scores. */
export class KeepBlocksProgram extends AttentionProgram<KeepVariant> {
  constructor(
    {geometry, causal}: WebGLCall,
    {threshold, estimate}: SelectRule,
    scores: RowTexture,
    sinkBlocks: RowTexture,
  ) {
    super({
      name: 'KeepBlocks',
      inputs: {scores, sinkBlocks},
      geometry,
      floats: estimate === 'sampled' ? {leastScoreScale: leastScoreScale(threshold)} : {threshold},
      output: {rows: scores.rows, columns: scores.columns},
      variant: {causal, estimate, ...(geometry.window !== undefined && {window: true})},
      fetches: estimate === 'sampled' ? 2 : scores.texels,
    });
  }

  protected shader({causal, estimate, window}: KeepVariant): string {
    const candidates = window ? '(candidates - first)' : 'candidates';
    return `
// A fragment decides on four key blocks of one query block.${estimate === 'sampled' ? '' : prefixNote}
${window ? `${firstBlock}${seesFirstKey}` : ''}${candidateBlocks(causal, window)}${visibleBlocks(causal, window)}
void compute(int row, int texel) {
  int queryBlock = row % queryBlocks;
  int candidates = candidateBlocks(queryBlock);
  int visible = visibleBlocks(queryBlock);${window ? '\n  int first = firstVisibleBlock(queryBlock);' : ''}
  ivec2 at = scoresAt(row);
  ivec4 ownBlocks = ivec4(0, 1, 2, 3) + 4 * texel;
  vec4 own = fetchScores(at, texel, 0);
  ${
    estimate === 'sampled'
      ? `float least = leastScoreScale / sqrt(float(${causal || window ? `${candidates} * keyBlockSize + segmentSize` : 'keyLength'}));`
      : `vec4 before = vec4(0.0);
  for (int t = 0; 4 * t < candidates && 4 * texel < candidates; t++) {
    vec4 others = fetchScores(at, t, 0);
    for (int c = 0; c < 4 && 4 * t + c < candidates; c++) {
      vec4 other = vec4(others[c]);
      vec4 ties = vec4(equal(other, own)) * vec4(lessThan(ivec4(4 * t + c), ownBlocks));
      bvec4 precedes = greaterThan(vec4(greaterThan(other, own)) + ties, vec4(0.0));
      before = mix(before, before + other, precedes);
    }
  }`
  }
  int sink = int(readSinkBlocks(row / queryBlocks, 0).x);
  vec4 kept = vec4(0.0);
  for (int c = 0; c < 4; c++) {
    int block = ownBlocks[c];
    // Written so that a NaN keeps the block.
    bool scored = block < candidates && !(${estimate === 'sampled' ? 'own[c] < least' : 'before[c] >= threshold'});
    kept[c] = float(${window ? 'block >= first && ' : ''}block < visible && (scored || ${window ? 'block == sink && seesFirstKey(queryBlock)' : 'block == sink'} || block >= candidates));
  }
  result0 = kept;
}`;
  }
}

const prefixNote = `
//
// A key block belongs to the shortest prefix that reaches the threshold if the blocks before it, in descending order of
// score, do not reach it yet. So nothing is sorted: the fragment adds up the scores that come before its own blocks, equal
// scores by index.`;
