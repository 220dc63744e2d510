import type {NamedAttrMap, NamedTensorMap, Tensor3D, Tensor4D} from '@tensorflow/tfjs-core';
import {clone, dispose, engine, keep} from '@tensorflow/tfjs-core';
import type {PBSAttentionAttrs} from '../kernels/attention_kernels.js';
import {PBSAttentionPlan as PBSAttentionPlanKernel} from '../kernels/attention_kernels.js';
import type {ExactReason} from '../kernels/cost_model.js';
import {blockMass, massOfKept} from './block_mass.js';
import {check} from './check_arguments.js';
import {pbsAttentionDensity} from './pbs_attention_density.js';
import type {PBSAttentionPlan} from './pbs_attention_plan.js';

/** Longest sequence whose exact mass is computed: it takes `ceil(blocks / headDim)` times as long as exact attention. */
const longestExactMass = 16_384;

/**
 * What a call of {@link pbsAttention} did, handed to its option `onReport`. It holds the plan and references to query and
 * key, also past the end of a `tidy`: `dispose` frees them. The figures are computed and read back when they are asked for.
 */
export interface PBSAttentionReport {
  /**
   * Why the call ran exact attention: `'threshold'`, it is 1; `'length'`, there is no more than one segment; `'auto'`,
   * blocks were not expected to pay. `undefined` where blocks were left out.
   */
  exactReason?: ExactReason;
  /** The key order and the blocks that the call used; where it was exact, every visible block. Owned by the report. */
  plan: PBSAttentionPlan;
  /** Share of the visible blocks that were kept, as {@link pbsAttentionDensity}: above 0, at most 1. */
  density(): Promise<number>;
  /**
   * Estimated share of attention that was kept, 0 to 1: what selection itself expected, of the blocks that it chooses
   * among (without those that are always kept), mean over query blocks and heads.
   */
  keptMass(): Promise<number>;
  /**
   * True share of attention that was kept, 0 to 1, mean over query rows and heads. For checks and small sizes: it runs
   * exact attention `ceil(length / blockSize / headDim)` times. Rejects with an error above 16,384 tokens.
   */
  exactKeptMass(): Promise<number>;
  /** Frees what the report holds. The figures can be asked for until then. */
  dispose(): void;
}

/** The plan of a call, and its report, whose tensors are the caller's to dispose. */
export function reportOf(
  query: Tensor4D,
  key: Tensor4D,
  attrs: PBSAttentionAttrs,
  exactReason: ExactReason | undefined,
): PBSAttentionReport {
  const inputs = {query, key} as unknown as NamedTensorMap;
  // A threshold of 1 makes the plan that exact attention stands for.
  const planAttrs = {...attrs, threshold: exactReason ? 1 : attrs.threshold, withMass: true} as NamedAttrMap;
  const [keyIndices, blockMask, mass] = (
    engine().runKernel(PBSAttentionPlanKernel, inputs, planAttrs) as unknown as [Tensor3D, Tensor4D, Tensor3D]
  ).map((x) => keep(x)) as [Tensor3D, Tensor4D, Tensor3D];
  const [heldQuery, heldKey] = [query, key].map((x) => keep(clone(x)));
  const {blockSize, segmentSize, causal} = attrs;
  const plan = {keyIndices, blockMask};
  return {
    exactReason,
    plan,
    density: () => pbsAttentionDensity(plan, {blockSize, segmentSize, causal}),
    keptMass: async () => mean(await mass.data()),
    exactKeptMass: async () => {
      const length = heldKey.shape[2];
      const takes = `at most ${longestExactMass} tokens; keptMass() estimates it at any length`;
      check(length <= longestExactMass, 'pbsAttention', 'exactKeptMass', `got ${length} tokens`, takes);
      const exact = await blockMass(heldQuery, heldKey, keyIndices, blockSize, attrs);
      const kept = massOfKept(exact, blockMask, heldQuery.shape[2], blockSize);
      try {
        return mean(await kept.data());
      } finally {
        dispose([exact, kept]);
      }
    },
    dispose: () => dispose([keyIndices, blockMask, mass, heldQuery, heldKey]),
  };
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; ++i) {
    sum += values[i];
  }
  return sum / values.length;
}
