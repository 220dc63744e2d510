import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {AttentionRequest, PlanRule} from './attention_call.js';
import type {BlockGeometry} from './block_geometry.js';
import type {AttentionCosts} from './cost_model.js';
import type {Take} from './scratch.js';

/** Stage 1: the order of keys. */
export interface KeyOrder<Indices, Scores = Indices> {
  /** int32 `[batch, heads, keyLength]`: permuted position → original key. */
  keyIndices: Indices;
  /** float `[batch, heads, permutedLength]`: what some rows pay to each key. None where keys stay in place. */
  keyScores?: Scores;
}

/** Stage 2: what block selection goes by. */
export interface BlockScores<Scores> {
  /** `[batch, heads, queryBlocks, keyBlocks]`: the larger, the more a block matters; 0 for blocks that do not compete. */
  scores: Scores;
  /** The mean attention that each block is expected to get, made when it is asked for. The stage frees it, by its scratch. */
  masses: () => Scores;
}

/** Stage 3, and what attention runs by: keys in permuted order and the block lists (see `block_geometry.ts`). */
export interface BlockPlan<Indices> {
  keyIndices: Indices;
  blockLists: Indices;
}

/**
 * What a backend supplies: the stages, as functions from handles to handles, and how handles are made and freed. What runs
 * when, and what is freed when, the driver decides (`driver.ts`).
 *
 * @typeParam Backend tfjs's backend.
 * @typeParam Call an `AttentionCall` of this backend's handles, with whatever else its stages need.
 * @typeParam Indices handle of what passes between the stages in whole numbers: the key order, block lists.
 * @typeParam Scores the same of floats.
 */
export interface StageSet<Backend, Call, Indices, Scores = Indices> {
  backendName: string;
  /** What the cost model goes by. */
  costs: (
    backend: Backend,
    dims: Pick<BlockGeometry, 'headDim' | 'valueDim'>,
    precision: 'float32' | 'float16',
  ) => AttentionCosts;
  /** Rows and keys that exact attention walks over at a time. */
  exactBlockSize: (queryLength: number, keyLength: number) => number;
  /** Throws what the device cannot do, before anything is launched: the op, the tensor, what came, what the device takes. */
  check: (backend: Backend, request: AttentionRequest) => void;
  /** The call with its tensors as handles. What that makes goes to `scratch`. */
  open: (backend: Backend, request: AttentionRequest, scratch: Take<Indices | Scores>) => Call;
  free: (backend: Backend, handle: Indices | Scores) => void;
  /** Frees a tensor that was to be given out, after a failure. */
  freeTensor: (backend: Backend, tensor: TensorInfo) => void;
  /** Throws if what was launched cannot be trusted: the device was lost meanwhile. */
  throwIfLost?: (backend: Backend, op: string) => void;
  /** Frees what nothing uses and is kept for a later call. */
  releaseKept?: (backend: Backend) => void;

  permute: (call: Call, rule: PlanRule) => KeyOrder<Indices, Scores>;
  /** What that makes besides `scores` goes to `scratch`. */
  scoreBlocks: (
    call: Call,
    rule: PlanRule,
    keyIndices: Indices,
    scratch: Take<Indices | Scores>,
  ) => BlockScores<Scores>;
  /** Block lists. */
  selectBlocks: (call: Call, rule: PlanRule, scores: Scores, keyIndices: Indices) => Indices;
  attend: (call: Call, plan?: BlockPlan<Indices>) => TensorInfo;
  /** Exact attention: the output, and the logarithm of each row's sum of exp(score). */
  attendWithLogSumExp: (call: Call) => TensorInfo[];
  /** By query, key and value. */
  attendGradients: (call: Call, plan?: BlockPlan<Indices>) => TensorInfo[];

  /** float32 `[batch, heads, queryBlocks]`: the share of the expected attention that was kept. */
  keptMass: (call: Call, rule: PlanRule, masses: Scores, blockLists: Indices) => Scores;
  /** A plan that was given. What that makes goes to `scratch`. */
  loadPlan: (
    call: Call,
    plan: {keyIndices: TensorInfo; blockMask: TensorInfo},
    scratch: Take<Indices | Scores>,
  ) => BlockPlan<Indices>;
  /**
   * A plan as tensors: the key order, the block mask and, if there is one, the kept mass. Takes the plan over: what it does not give
   * out as it is goes to `scratch`.
   */
  storePlan: (
    call: Call,
    plan: BlockPlan<Indices> & {keptMass?: Scores},
    scratch: Take<Indices | Scores>,
  ) => TensorInfo[];
}
