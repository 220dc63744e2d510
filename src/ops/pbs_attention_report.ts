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
    sizes: planSizes(geometry, attrs.causal, numbersOf(lengths)),
  } as PBSAttentionPlan;
  const {query, key, keyLengths} = inputs as {query: Tensor4D; key: Tensor4D; keyLengths?: Tensor1D};
  const held = {query: clone(query), key: clone(key), ...(keyLengths && {keyLengths: clone(keyLengths)})};
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
      const length = key.shape[2];
      const takes = `at most ${longestExactMass} tokens; keptMass() estimates it at any length`;
      check(length <= longestExactMass, op, 'exactKeptMass', `got ${length} tokens`, takes);
      return figure('exactKeptMass', {...held, ...planned}, (tensors) => exactMass(tensors, tensors, attrs));
    },
    dispose: () => {
      isDisposed = true;
      dispose(owned);
    },
  };
}

/** Key indices, block mask and what selection expects the blocks to keep. */
function planWithMass(inputs: NamedTensorMap, attrs: PBSAttentionAttrs, isExact: boolean): Tensor[] {
  const {query, key, keyLengths} = inputs;
  // A threshold of 1 makes the plan that exact attention stands for.
  const planAttrs = {...attrs, threshold: isExact ? 1 : attrs.threshold, withMass: true} as NamedAttrMap;
  const planInputs = {query, key, ...(keyLengths && {keyLengths})};
  return engine().runKernel(PBSAttentionPlanKernel, planInputs, planAttrs) as unknown as Tensor[];
}

async function exactMass(
  {query, key, keyLengths}: {query: Tensor4D; key: Tensor4D; keyLengths?: Tensor1D},
  {keyIndices, blockMask}: PBSAttentionPlan,
  {causal, scale, queryOffset, blockSize, keyBlockSize}: PBSAttentionAttrs,
): Promise<number> {
  const options = {causal, scale, queryOffset, ...(keyLengths && {keyLengths})};
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
