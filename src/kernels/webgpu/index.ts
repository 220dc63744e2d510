import type {KernelConfig, KernelFunc, TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
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
import {attendGradients, gradientShapes} from './gradients/attend_gradients.js';
import type {BlockPlan} from './attend/attend_walk.js';
import {blockLists} from './select/block_lists.js';
import {blockMask} from './select/block_mask.js';
import {webgpuCosts} from './costs.js';
import {checkBufferSizes} from './runtime/device_limits.js';
import {floatInputs} from './runtime/float_inputs.js';
import {planBlocks, planShapes} from './select/plan_blocks.js';
import {withScratch} from './runtime/program.js';

/**
 * permute → score blocks → select blocks → attend, one file a stage, all on the GPU: nothing is read back in between.
 * Unpermute is the identity, because queries stay in place and `attend` writes each row where its query stands.
 */
function pbsAttention(args: {
  inputs: PBSAttentionInputs;
  backend: WebGPUBackend;
  attrs: PBSAttentionAttrs;
}): TensorInfo {
  const {inputs, backend, attrs} = args;
  const {query, key, value, keyLengths, keyIndices, blockMask} = inputs;
  const geometry = blockGeometry(query, key, attrs, value);
  const isPlanned = keyIndices !== undefined && blockMask !== undefined;
  const costs = webgpuCosts(backend.device, geometry.headDim, attrs.precision, geometry.valueDim);
  if (!isPlanned && runsExact(geometry, attrs, costs)) {
    return exactAttention('pbsAttention', inputs, backend, attrs);
  }
  checkBufferSizes('pbsAttention', backend, {...shapesOf(inputs), ...outputShape(geometry)});
  checkBufferSizes('pbsAttention', backend, planShapes(geometry, isPlanned ? undefined : attrs.estimate));
  return withScratch(backend, (scratch) => {
    let plan: BlockPlan;
    if (isPlanned) {
      plan = {keyIndices, blockLists: scratch(blockLists(backend, blockMask))};
    } else {
      plan = planBlocks('pbsAttention', backend, query, key, geometry, attrs, keyLengths);
      scratch(plan.keyIndices);
      scratch(plan.blockLists);
    }
    return attend('pbsAttention', backend, query, key, value, geometry, attrs, plan, {keyLengths});
  });
}

function flashAttention(args: {
  inputs: FlashAttentionInputs;
  backend: WebGPUBackend;
  attrs: FlashAttentionAttrs;
}): TensorInfo {
  return exactAttention('flashAttention', args.inputs, args.backend, args.attrs);
}

function exactAttention(
  op: string,
  inputs: FlashAttentionInputs,
  backend: WebGPUBackend,
  attrs: FlashAttentionAttrs,
): TensorInfo {
  const {query, key, value, keyLengths, mask} = inputs;
  const length = Math.max(query.shape[2], key.shape[2]);
  const sizes = {blockSize: length, keyBlockSize: length, segmentSize: length, queryOffset: attrs.queryOffset};
  const geometry = blockGeometry(query, key, sizes, value);
  checkBufferSizes(op, backend, {...shapesOf(inputs), ...outputShape(geometry)});
  return attend(op, backend, query, key, value, geometry, attrs, undefined, {keyLengths, mask});
}

function pbsAttentionPlan(args: {
  inputs: PBSAttentionPlanInputs;
  backend: WebGPUBackend;
  attrs: PBSAttentionPlanAttrs;
}): TensorInfo[] {
  const {inputs, backend, attrs} = args;
  const {query, key, keyLengths} = inputs;
  const geometry = blockGeometry(query, key, attrs);
  const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
  const exact = isExact(geometry, attrs);
  checkBufferSizes('pbsAttentionPlan', backend, shapesOf(inputs));
  // An exact plan is written down, not computed.
  checkBufferSizes('pbsAttentionPlan', backend, planShapes(geometry, exact ? undefined : attrs.estimate));
  if (exact) {
    const plan = exactPlan(geometry, attrs.causal);
    const outputs = [
      backend.makeTensorInfo([batch, heads, keyLength], 'int32', plan.keyIndices),
      backend.makeTensorInfo([batch, heads, queryBlocks, keyBlocks], 'bool', plan.blockMask),
    ];
    return attrs.withMass
      ? [...outputs, backend.makeTensorInfo([batch, heads, queryBlocks], 'float32', plan.keptMass)]
      : outputs;
  }
  return withScratch(backend, (scratch, keep) => {
    const plan = planBlocks('pbsAttentionPlan', backend, query, key, geometry, attrs, keyLengths, attrs.withMass);
    scratch(plan.blockLists);
    keep(plan.keyIndices);
    const mass = plan.keptMass ? [keep(plan.keptMass)] : [];
    return [plan.keyIndices, blockMask(backend, plan.blockLists), ...mass];
  });
}

function flashAttentionGrad(args: {
  inputs: FlashAttentionGradInputs;
  backend: WebGPUBackend;
  attrs: FlashAttentionAttrs;
}): TensorInfo[] {
  return exactGradients('gradient of flashAttention', args.inputs, args.backend, args.attrs);
}

/** In the form and over the blocks of the forward pass: the same inputs and attributes give the same plan again. */
function pbsAttentionGrad(args: {
  inputs: PBSAttentionGradInputs;
  backend: WebGPUBackend;
  attrs: PBSAttentionAttrs;
}): TensorInfo[] {
  const op = 'gradient of pbsAttention';
  const {inputs, backend, attrs} = args;
  const {query, key, value, keyLengths, keyIndices, blockMask} = inputs;
  const geometry = blockGeometry(query, key, attrs, value);
  const isPlanned = keyIndices !== undefined && blockMask !== undefined;
  const costs = webgpuCosts(backend.device, geometry.headDim, attrs.precision, geometry.valueDim);
  if (!isPlanned && runsExact(geometry, attrs, costs)) {
    return exactGradients(op, inputs, backend, attrs);
  }
  checkBufferSizes(op, backend, {
    ...shapesOf(inputs),
    ...planShapes(geometry, isPlanned ? undefined : attrs.estimate),
    ...gradientShapes(geometry, true),
  });
  return withScratch(backend, (scratch) => {
    let plan: BlockPlan;
    if (isPlanned) {
      plan = {keyIndices, blockLists: scratch(blockLists(backend, blockMask))};
    } else {
      plan = planBlocks(op, backend, query, key, geometry, attrs, keyLengths);
      scratch(plan.keyIndices);
      scratch(plan.blockLists);
    }
    return attendGradients(backend, inputs, geometry, attrs, plan, {keyLengths});
  });
}

function exactGradients(
  op: string,
  inputs: FlashAttentionGradInputs,
  backend: WebGPUBackend,
  attrs: FlashAttentionAttrs,
): TensorInfo[] {
  const {query, key, value, keyLengths, mask} = inputs;
  const length = Math.max(query.shape[2], key.shape[2]);
  const sizes = {blockSize: length, keyBlockSize: length, segmentSize: length, queryOffset: attrs.queryOffset};
  const geometry = blockGeometry(query, key, sizes, value);
  checkBufferSizes(op, backend, {...shapesOf(inputs), ...gradientShapes(geometry, false)});
  return attendGradients(backend, inputs, geometry, attrs, undefined, {keyLengths, mask});
}

function outputShape({batch, heads, queryLength, valueDim}: BlockGeometry): Record<string, number[]> {
  return {output: [batch, heads, queryLength, valueDim]};
}

function shapesOf(inputs: object): Record<string, number[]> {
  const tensors = Object.entries(inputs) as Array<[string, TensorInfo]>;
  return Object.fromEntries(tensors.map(([name, {shape}]) => [name, shape]));
}

type KernelArguments = Parameters<KernelFunc>[0];

/** The kernel's entry in tfjs's registry; it gets inputs with floats in them. */
function kernelConfig<Result extends TensorInfo | TensorInfo[]>(
  kernelName: string,
  kernel: (args: never) => Result,
): KernelConfig {
  const kernelFunc = ({inputs, backend, attrs}: KernelArguments) =>
    withScratch(backend as WebGPUBackend, (scratch) =>
      kernel({inputs: floatInputs(inputs, backend as WebGPUBackend, scratch), backend, attrs} as never),
    );
  return {kernelName, backendName: 'webgpu', kernelFunc};
}

export const webgpuKernels: KernelConfig[] = [
  kernelConfig(FlashAttention, flashAttention),
  kernelConfig(PBSAttention, pbsAttention),
  kernelConfig(PBSAttentionPlan, pbsAttentionPlan),
  kernelConfig(FlashAttentionGrad, flashAttentionGrad),
  kernelConfig(PBSAttentionGrad, pbsAttentionGrad),
];
