import type {NamedAttrMap, NamedTensorMap, Tensor, Tensor1D, Tensor4D} from '@tensorflow/tfjs-core';
import {clone, dispose, engine, keep} from '@tensorflow/tfjs-core';
import type {PBSAttentionAttrs} from '../attention/attention_kernels.js';
import {PBSAttentionPlan as PBSAttentionPlanKernel} from '../attention/attention_kernels.js';
import {backendCosts, costBasis} from '../kernels/backend_costs.js';
import {blockGeometry} from '../attention/block_geometry.js';
import {whyExact} from '../attention/cost_model.js';
import {blockMass, massOfKept} from './block_mass.js';
import {knowPlan, numbersOf} from './attention_inputs.js';
import {check} from './check_arguments.js';
import type {AttentionOptions} from './options.js';
import {givenOptions} from './options.js';
import {pbsAttentionDensity} from './pbs_attention_density.js';
import {planSizes} from './pbs_attention_plan.js';
import type {PBSAttentionPlan, PBSAttentionReport} from './results.js';

const op = 'pbsAttention';

/** Longest sequence whose exact mass is computed: it takes `ceil(blocks / headDim)` times as long as exact attention. */
const longestExactMass = 16_384;

/** The report of a call of these inputs: with their plan if they hold one, else it makes the plan. To be disposed. */
export function reportOf(
  inputs: NamedTensorMap,
  attrs: PBSAttentionAttrs,
  lengths?: AttentionOptions['keyLengths'],
): PBSAttentionReport {
  const given = 'blockMask' in inputs;
  const geometry = blockGeometry(inputs.query, inputs.key, attrs, inputs.value);
  const exactReason = given ? undefined : whyExact(geometry, attrs, backendCosts(geometry, attrs.precision));
  const [keyIndices, blockMask, mass] = given
    ? [clone(inputs.keyIndices), clone(inputs.blockMask)]
    : planWithMass(inputs, attrs, exactReason !== undefined);
  if (!given) knowPlan(keyIndices);
  const plan = {
    keyIndices,
    blockMask,
    sizes: planSizes(geometry, attrs, numbersOf(lengths)),
  } as PBSAttentionPlan;
  const held = Object.fromEntries(
    Object.entries(scoredInputs(inputs)).map(([name, x]) => [name, clone(x)]),
  ) as unknown as ScoredInputs;
  // In an op or a tidy, whose end they outlive.
  const owned = [keyIndices, blockMask, ...(mass ? [mass] : []), ...Object.values(held)].map((x) => keep(x));
  let isDisposed = false;
  /** Computes a figure from clones of tensors, which outlive a report that is disposed meanwhile. */
  const figure = async <Tensors extends NamedTensorMap>(
    name: string,
    tensors: Tensors,
    compute: (held: Tensors) => Promise<number>,
  ) => {
    check(!isDisposed, op, name, 'got a report that was disposed', 'one that is not');
    const clones = Object.entries(tensors).map(([key, x]): [string, Tensor] => [key, keep(clone(x))]);
    try {
      return await compute(Object.fromEntries(clones) as Tensors);
    } finally {
      dispose(clones.map(([, x]) => x));
    }
  };
  const planned = {keyIndices: plan.keyIndices, blockMask: plan.blockMask};
  return {
    exactReason,
    costBasis: costBasis(),
    plan,
    density: () => figure('density', planned, (held) => pbsAttentionDensity({...held, sizes: plan.sizes})),
    keptMass: async () => {
      const takes = 'a call that made its own plan; exactKeptMass() measures this one';
      check(mass !== undefined, op, 'keptMass', 'got a call by a given plan', takes);
      return figure('keptMass', {mass}, async (held) => mean(await held.mass.data<'float32'>()));
    },
    exactKeptMass: async () => {
      const length = geometry.keyLength;
      const takes = `at most ${longestExactMass} tokens; keptMass() estimates it at any length`;
      check(length <= longestExactMass, op, 'exactKeptMass', `got ${length} tokens`, takes);
      return figure('exactKeptMass', {...held, ...planned}, ({keyIndices, blockMask, ...scored}) =>
        exactMass(scored as ScoredInputs, {keyIndices, blockMask}, attrs),
      );
    },
    dispose: () => {
      isDisposed = true;
      dispose(owned);
    },
  };
}

/** What scores are made of. */
interface ScoredInputs extends NamedTensorMap {
  query: Tensor4D;
  key: Tensor4D;
}

function scoredInputs({query, key, keyLengths, alibiSlopes, sinks, mask}: NamedTensorMap): NamedTensorMap {
  return {query, key, ...givenOptions({keyLengths, alibiSlopes, sinks, mask})} as NamedTensorMap;
}

/** Key indices, block mask and what selection expects the blocks to keep. */
function planWithMass(inputs: NamedTensorMap, attrs: PBSAttentionAttrs, isExact: boolean): Tensor[] {
  // A threshold of 1 makes the plan that exact attention stands for.
  const planAttrs = {...attrs, threshold: isExact ? 1 : attrs.threshold, withMass: true} as NamedAttrMap;
  return engine().runKernel(PBSAttentionPlanKernel, scoredInputs(inputs), planAttrs) as unknown as Tensor[];
}

async function exactMass(
  {query, key, mask, ...byEntryOrHead}: ScoredInputs,
  {keyIndices, blockMask}: PBSAttentionPlan,
  {causal, scale, queryOffset, window, softCap, blockSize, keyBlockSize}: PBSAttentionAttrs,
): Promise<number> {
  const {keyLengths, alibiSlopes, sinks} = byEntryOrHead as Record<string, Tensor1D>;
  const options = {causal, scale, queryOffset, window, softCap, keyLengths, alibiSlopes, sinks, mask: mask as Tensor4D};
  const exact = await blockMass(query, key, keyIndices, {blockSize, keyBlockSize}, options);
  let kept;
  try {
    kept = keep(massOfKept(exact, blockMask, query.shape[2], blockSize));
    return mean(await kept.data<'float32'>());
  } finally {
    dispose([exact, ...(kept ? [kept] : [])]);
  }
}

const mean = (values: Float32Array) => values.reduce((sum, value) => sum + value, 0) / values.length;
