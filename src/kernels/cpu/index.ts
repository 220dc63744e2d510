import type {KernelConfig, KernelFunc, TensorInfo, TypedArray} from '@tensorflow/tfjs-core';
import type {MathBackendCPU} from '@tensorflow/tfjs-backend-cpu';
import type {
  FlashAttentionAttrs,
  FlashAttentionGradInputs,
  FlashAttentionInputs,
  PBSAttentionAttrs,
  PBSAttentionGradInputs,
  PBSAttentionInputs,
  PBSAttentionPlanAttrs,
  PBSAttentionPlanInputs,
} from '../../attention/attention_kernels.js';
import {
  FlashAttention,
  FlashAttentionGrad,
  PBSAttention,
  PBSAttentionGrad,
  PBSAttentionPlan,
} from '../../attention/attention_kernels.js';
import type {BlockGeometry} from '../../attention/block_geometry.js';
import {blockGeometry, isExact} from '../../attention/block_geometry.js';
import {runsExact} from '../../attention/cost_model.js';
import {exactPlan} from '../../attention/exact_plan.js';
import {attend} from './attend/attend.js';
import {attendGradients} from './gradients/attend_gradients.js';
import {blockLists} from './select/block_lists.js';
import {blockMask} from './select/block_mask.js';
import {cpuCosts} from './costs.js';
import {keptMass} from './select/kept_mass.js';
import {planBlocks} from './select/plan_blocks.js';
import type {BlockPlan, HiddenKeys} from './attend/visible_scores.js';

/**
 * The readable reference: permute → score blocks → select blocks → attend, one file a stage. Unpermute is the identity,
 * because queries stay in place and `attend` writes each row where its query stands.
 */
function flashAttention(args: {
  inputs: FlashAttentionInputs;
  backend: MathBackendCPU;
  attrs: FlashAttentionAttrs;
}): TensorInfo {
  const {inputs, backend, attrs} = args;
  const geometry = exactGeometry(inputs, attrs);
  const [q, k, v] = [inputs.query, inputs.key, inputs.value].map((x) => valuesOf(x, backend));
  const hidden = hiddenKeys(inputs, backend);
  return outputTensor(backend, geometry, attend(q, k, v, geometry, attrs.scale, attrs.causal, undefined, hidden));
}

function flashAttentionGrad(args: {
  inputs: FlashAttentionGradInputs;
  backend: MathBackendCPU;
  attrs: FlashAttentionAttrs;
}): TensorInfo[] {
  const {inputs, backend, attrs} = args;
  return gradientTensors(inputs, backend, exactGeometry(inputs, attrs), attrs, hiddenKeys(inputs, backend));
}

/** Exact attention has one block. */
function exactGeometry({query, key, value}: FlashAttentionInputs, {queryOffset}: FlashAttentionAttrs): BlockGeometry {
  const length = Math.max(query.shape[2], key.shape[2]);
  return blockGeometry(query, key, {blockSize: length, keyBlockSize: length, segmentSize: length, queryOffset}, value);
}

function pbsAttention(args: {
  inputs: PBSAttentionInputs;
  backend: MathBackendCPU;
  attrs: PBSAttentionAttrs;
}): TensorInfo {
  const {inputs, backend, attrs} = args;
  const geometry = blockGeometry(inputs.query, inputs.key, attrs, inputs.value);
  if (attendsExactly(inputs, geometry, attrs)) {
    return flashAttention(args);
  }
  const [q, k, v] = [inputs.query, inputs.key, inputs.value].map((x) => valuesOf(x, backend));
  const plan = givenOrNewPlan(inputs, backend, geometry, attrs);
  const hidden = hiddenKeys(inputs, backend);
  const {scale, causal} = attrs;
  return outputTensor(backend, geometry, attend(q, k, v, geometry, scale, causal, plan, hidden));
}

/** In the form and over the blocks of the forward pass: the same inputs and attributes give the same plan again. */
function pbsAttentionGrad(args: {
  inputs: PBSAttentionGradInputs;
  backend: MathBackendCPU;
  attrs: PBSAttentionAttrs;
}): TensorInfo[] {
  const {inputs, backend, attrs} = args;
  const geometry = blockGeometry(inputs.query, inputs.key, attrs, inputs.value);
  if (attendsExactly(inputs, geometry, attrs)) {
    return flashAttentionGrad(args);
  }
  const plan = givenOrNewPlan(inputs, backend, geometry, attrs);
  return gradientTensors(inputs, backend, geometry, attrs, hiddenKeys(inputs, backend), plan);
}

const attendsExactly = ({keyIndices}: PBSAttentionInputs, geometry: BlockGeometry, attrs: PBSAttentionAttrs) =>
  keyIndices === undefined && runsExact(geometry, attrs, cpuCosts);

function givenOrNewPlan(
  inputs: PBSAttentionInputs,
  backend: MathBackendCPU,
  geometry: BlockGeometry,
  attrs: PBSAttentionAttrs,
): BlockPlan {
  const {query, key, keyIndices, blockMask} = inputs;
  if (keyIndices && blockMask) {
    return {
      keyIndices: backend.data.get(keyIndices.dataId).values as Int32Array,
      blockLists: blockLists(backend.data.get(blockMask.dataId).values as Uint8Array, geometry),
    };
  }
  const [q, k] = [query, key].map((x) => valuesOf(x, backend));
  return planBlocks(q, k, geometry, attrs, keyLengthsOf(inputs, backend));
}

function pbsAttentionPlan(args: {
  inputs: PBSAttentionPlanInputs;
  backend: MathBackendCPU;
  attrs: PBSAttentionPlanAttrs;
}): TensorInfo[] {
  const {inputs, backend, attrs} = args;
  const {query, key} = inputs;
  const geometry = blockGeometry(query, key, attrs);
  const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
  let plan;
  if (isExact(geometry, attrs)) {
    plan = exactPlan(geometry, attrs.causal);
  } else {
    const [q, k] = [query, key].map((x) => valuesOf(x, backend));
    const sparse = planBlocks(q, k, geometry, attrs, keyLengthsOf(inputs, backend));
    plan = {
      keyIndices: sparse.keyIndices,
      blockMask: blockMask(sparse.blockLists, geometry),
      keptMass: keptMass(sparse.masses, sparse.blockLists, geometry, attrs.estimate),
    };
  }
  const outputs = [
    backend.makeTensorInfo([batch, heads, keyLength], 'int32', plan.keyIndices),
    backend.makeTensorInfo([batch, heads, queryBlocks, keyBlocks], 'bool', plan.blockMask),
  ];
  return attrs.withMass
    ? [...outputs, backend.makeTensorInfo([batch, heads, queryBlocks], 'float32', plan.keptMass)]
    : outputs;
}

function outputTensor(backend: MathBackendCPU, geometry: BlockGeometry, output: Float32Array): TensorInfo {
  const {batch, heads, queryLength, valueDim} = geometry;
  return backend.makeTensorInfo([batch, heads, queryLength, valueDim], 'float32', output);
}

function gradientTensors(
  {query, key, value, output, dy}: PBSAttentionGradInputs | FlashAttentionGradInputs,
  backend: MathBackendCPU,
  geometry: BlockGeometry,
  {scale, causal}: FlashAttentionAttrs,
  hidden: HiddenKeys,
  plan?: BlockPlan,
): TensorInfo[] {
  const [q, k, v, o, d] = [query, key, value, output, dy].map((x) => valuesOf(x, backend));
  const gradients = attendGradients(q, k, v, o, d, {geometry, scale, causal, plan, ...hidden});
  return [query, key, value].map(({shape}, i) => backend.makeTensorInfo(shape, 'float32', gradients[i]));
}

function hiddenKeys(inputs: {keyLengths?: TensorInfo; mask?: TensorInfo}, backend: MathBackendCPU): HiddenKeys {
  const {mask} = inputs;
  return {
    keyLengths: keyLengthsOf(inputs, backend),
    mask: mask && {values: backend.data.get(mask.dataId).values as TypedArray, shape: mask.shape, dtype: mask.dtype},
  };
}

function keyLengthsOf({keyLengths}: {keyLengths?: TensorInfo}, backend: MathBackendCPU): Int32Array | undefined {
  return keyLengths && (backend.data.get(keyLengths.dataId).values as Int32Array);
}

function valuesOf(x: TensorInfo, backend: MathBackendCPU): Float32Array {
  return backend.data.get(x.dataId).values as Float32Array;
}

export const cpuKernels: KernelConfig[] = [
  {kernelName: FlashAttention, backendName: 'cpu', kernelFunc: flashAttention as unknown as KernelFunc},
  {kernelName: PBSAttention, backendName: 'cpu', kernelFunc: pbsAttention as unknown as KernelFunc},
  {kernelName: PBSAttentionPlan, backendName: 'cpu', kernelFunc: pbsAttentionPlan as unknown as KernelFunc},
  {kernelName: FlashAttentionGrad, backendName: 'cpu', kernelFunc: flashAttentionGrad as unknown as KernelFunc},
  {kernelName: PBSAttentionGrad, backendName: 'cpu', kernelFunc: pbsAttentionGrad as unknown as KernelFunc},
];
