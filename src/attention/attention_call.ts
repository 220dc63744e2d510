import type {AttentionInputs, PBSAttentionAttrs} from './attention_kernels.js';
import type {BlockGeometry} from './block_geometry.js';
import type {PlanTimes} from './cost_model.js';

/** How a plan is made: the attributes of `PBSAttention` that stages before attention read. */
export type PlanRule = Pick<PBSAttentionAttrs, 'threshold' | 'permute' | 'estimate'>;

/** Everything that a call asks for, before a backend has looked at its tensors. The driver derives it, once. */
export interface AttentionRequest {
  /** As errors name it. */
  op: string;
  /** Tensors of tfjs, as the kernel was given them. */
  inputs: AttentionInputs;
  geometry: BlockGeometry;
  /** Factor of the products of queries and keys. */
  scale: number;
  causal: boolean;
  /** Scaled scores become `softCap · tanh(score / softCap)`, if there is one. */
  softCap?: number;
  precision: 'float32' | 'float16';
  /** By which keys are ordered and blocks chosen; none for exact attention and for a plan that is given. */
  rule?: PlanRule;
  /** What comes out. */
  result: 'output' | 'logSumExp' | 'plan' | 'gradients';
  /** Milliseconds that the output should take to compute, by the cost model: programs that would hold a GPU too long are cut by it. */
  expectedTime: number;
  /** The same of the parts of a plan, where one is made. */
  planTimes?: PlanTimes;
}

/** Whether attention runs over the blocks of a plan, made or given; else over all keys. */
export const isSparse = ({rule, inputs}: Pick<AttentionRequest, 'rule' | 'inputs'>): boolean =>
  rule !== undefined || inputs.keyIndices !== undefined;

/**
 * A request with its tensors as a backend holds them: what the stages take, on every backend, beside what the stages before
 * them gave.
 */
export interface AttentionCall<Values, Lengths = Values, Mask = Values> extends Pick<
  AttentionRequest,
  'op' | 'geometry' | 'scale' | 'causal' | 'softCap' | 'precision' | 'planTimes'
> {
  /** `[batch, heads, queryLength, headDim]` */
  query: Values;
  /** `[batch, keyValueHeads, keyLength, headDim]` */
  key: Values;
  /** `[batch, keyValueHeads, keyLength, valueDim]`; not there where a plan is all that is asked for. */
  value: Values;
  /** `[batch]`: keys from there on are padding. */
  keyLengths?: Lengths;
  /** Each dimension 1 or that of `[batch, heads, queryLength, keyLength]`. */
  mask?: Mask;
  /** `[heads]`: subtracted from a score for each position between row and key, after `softCap`. */
  alibiSlopes?: Values;
  /** `[heads]`: a score that takes part in the softmax of each row and has no value. */
  sinks?: Values;
  /** 0 unless given. A backend whose programs are short draws anyway need not look at it. */
  expectedTime?: number;
  /** What the forward pass gave, and the gradient by it, where gradients are asked for. */
  output?: Values;
  dy?: Values;
  /** `[batch, heads, queryLength]`: the gradient by the logarithms of sums, if they were given out. */
  dLogSumExp?: Values;
}
