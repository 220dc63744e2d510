import type {KernelConfig, KernelFunc, TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendCPU} from '@tensorflow/tfjs-backend-cpu';
import type {
  FlashAttentionAttrs,
  FlashAttentionInputs,
  PBSAttentionAttrs,
  PBSAttentionInputs,
  PBSAttentionPlanAttrs,
  PBSAttentionPlanInputs,
} from '../attention_kernels.js';
import {FlashAttention, PBSAttention, PBSAttentionPlan} from '../attention_kernels.js';
import type {BlockGeometry} from '../block_geometry.js';
import {blockGeometry, isExact} from '../block_geometry.js';
import {runsExact} from '../cost_model.js';
import {exactPlan} from '../exact_plan.js';
import {attend} from './attend.js';
import {blockMask} from './block_mask.js';
import {cpuCosts} from './costs.js';
import {keptMass} from './kept_mass.js';
import {permute} from './permute.js';
import {scoreBlocks} from './score_blocks.js';
import {selectBlocks} from './select_blocks.js';

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
  const {query, key, value} = inputs;
  const geometry = blockGeometry(query, key, {blockSize: query.shape[2], segmentSize: query.shape[2]});
  const [q, k, v] = [query, key, value].map((x) => valuesOf(x, backend));
  return backend.makeTensorInfo(query.shape, 'float32', attend(q, k, v, geometry, attrs.scale, attrs.causal));
}

function pbsAttention(args: {
  inputs: PBSAttentionInputs;
  backend: MathBackendCPU;
  attrs: PBSAttentionAttrs;
}): TensorInfo {
  const {inputs, backend, attrs} = args;
  const {query, key, value} = inputs;
  const geometry = blockGeometry(query, key, attrs);
  if (runsExact(geometry, attrs, cpuCosts)) {
    return flashAttention(args);
  }
  const [q, k, v] = [query, key, value].map((x) => valuesOf(x, backend));
  const plan = planBlocks(q, k, geometry, attrs);
  const output = attend(q, k, v, geometry, attrs.scale, attrs.causal, plan);
  return backend.makeTensorInfo(query.shape, 'float32', output);
}

function pbsAttentionPlan(args: {
  inputs: PBSAttentionPlanInputs;
  backend: MathBackendCPU;
  attrs: PBSAttentionPlanAttrs;
}): TensorInfo[] {
  const {inputs, backend, attrs} = args;
  const {query, key} = inputs;
  const geometry = blockGeometry(query, key, attrs);
  const {batch, heads, length, blocks} = geometry;
  let plan;
  if (isExact(geometry, attrs.threshold)) {
    plan = exactPlan(geometry, attrs.causal);
  } else {
    const {keyIndices, blockLists, scores} = planBlocks(
      valuesOf(query, backend),
      valuesOf(key, backend),
      geometry,
      attrs,
    );
    plan = {
      keyIndices,
      blockMask: blockMask(blockLists, geometry),
      keptMass: keptMass(scores, blockLists, geometry, attrs.causal),
    };
  }
  const outputs = [
    backend.makeTensorInfo([batch, heads, length], 'int32', plan.keyIndices),
    backend.makeTensorInfo([batch, heads, blocks, blocks], 'bool', plan.blockMask),
  ];
  return attrs.withMass
    ? [...outputs, backend.makeTensorInfo([batch, heads, blocks], 'float32', plan.keptMass)]
    : outputs;
}

function planBlocks(
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  attrs: PBSAttentionAttrs,
): {keyIndices: Int32Array; blockLists: Int32Array; scores: Float64Array} {
  const {scale, causal, threshold, exactLastBlock} = attrs;
  const order = permute(query, key, geometry, scale, attrs.permute);
  const scores = scoreBlocks(query, key, order, geometry, scale, causal, exactLastBlock);
  const blockLists = selectBlocks(scores, order.keyIndices, geometry, threshold, causal);
  return {keyIndices: order.keyIndices, blockLists, scores};
}

function valuesOf(x: TensorInfo, backend: MathBackendCPU): Float32Array {
  return backend.data.get(x.dataId).values as Float32Array;
}

export const cpuKernels: KernelConfig[] = [
  {kernelName: FlashAttention, backendName: 'cpu', kernelFunc: flashAttention as unknown as KernelFunc},
  {kernelName: PBSAttention, backendName: 'cpu', kernelFunc: pbsAttention as unknown as KernelFunc},
  {kernelName: PBSAttentionPlan, backendName: 'cpu', kernelFunc: pbsAttentionPlan as unknown as KernelFunc},
];
