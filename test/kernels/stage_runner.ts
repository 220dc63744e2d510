import type {PBSAttentionAttrs} from '../../src/attention/attention_kernels';
import type {BlockGeometry} from '../../src/attention/block_geometry';
import type {CPUCall} from '../../src/kernels/cpu/cpu_call';
import type {Inputs} from '../reference/attention';

/** The attributes that the stages of a case share. */
export type StageOptions = Pick<
  CPUCall,
  'geometry' | 'scale' | 'causal' | 'softCap' | 'keyLengths' | 'alibiSlopes' | 'sinks' | 'mask'
>;

/** Arrays as the CPU stages give and take them. */
export interface Order {
  keyScores: ArrayLike<number>;
  keyIndices: Int32Array;
}

/**
 * The stages of a GPU backend, with the names of the CPU stages, from arrays to arrays. Each call uploads what it is
 * given, so that a stage is tested on what the CPU stages before it gave, and frees what it made.
 */
export interface StageRunner {
  permute(inputs: Inputs, options: StageOptions & Pick<PBSAttentionAttrs, 'estimate'>): Promise<Order>;
  /** Stage 1 from given key scores on. */
  sortKeys(keyScores: Float32Array, geometry: BlockGeometry): Promise<Int32Array>;
  /** Stage 2 by the pooled estimate. */
  scoreBlocks(inputs: Inputs, keyIndices: Int32Array, options: StageOptions): Promise<ArrayLike<number>>;
  /** Stage 2 by the sampled estimate: what blocks are selected by, and the mean mass of each. */
  sampledScores(
    inputs: Inputs,
    keyIndices: Int32Array,
    options: StageOptions,
  ): Promise<Record<'scores' | 'means', ArrayLike<number>>>;
  /** Block lists, and their dense mask; and the lists made of that again, where the backend attends by a plan. */
  selectBlocks(
    scores: Float32Array,
    keyIndices: Int32Array,
    options: StageOptions & Pick<PBSAttentionAttrs, 'threshold' | 'estimate'>,
  ): Promise<{blockLists: ArrayLike<number>; blockMask: ArrayLike<number>; listsOfMask?: ArrayLike<number>}>;
  attend(
    inputs: Inputs,
    plan: {keyIndices: Int32Array; blockLists: Int32Array} | undefined,
    options: StageOptions,
  ): Promise<ArrayLike<number>>;
}

/** Shapes of what passes between the stages. */
export function stageShapes({batch, heads, keyLength, permutedLength, queryBlocks, keyBlocks}: BlockGeometry) {
  return {
    keyScores: [batch, heads, permutedLength],
    keyIndices: [batch, heads, keyLength],
    scores: [batch, heads, queryBlocks, keyBlocks],
    blockLists: [batch, heads, queryBlocks, keyBlocks + 1],
  };
}
