import type {KernelConfig, KernelFunc, TensorInfo, TypedArray} from '@tensorflow/tfjs-core';
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
import {attendRemainder} from './attend_remainder.js';
import {blockLists} from './block_lists.js';
import {blockMask} from './block_mask.js';
import {cpuCosts} from './costs.js';
import {keptMass} from './kept_mass.js';
import {permute} from './permute.js';
import {probedScores} from './probed_scores.js';
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
  const {query, key, value, mask} = inputs;
  const length = Math.max(query.shape[2], key.shape[2]);
  const sizes = {blockSize: length, segmentSize: length, queryOffset: attrs.queryOffset};
  const geometry = blockGeometry(query, key, sizes, value);
  const [q, k, v] = [query, key, value].map((x) => valuesOf(x, backend));
  const hidden = {
    keyLengths: keyLengthsOf(inputs, backend),
    mask: mask && {values: backend.data.get(mask.dataId).values as TypedArray, shape: mask.shape, dtype: mask.dtype},
  };
  return outputTensor(backend, geometry, attend(q, k, v, geometry, attrs.scale, attrs.causal, undefined, hidden));
}

function pbsAttention(args: {
  inputs: PBSAttentionInputs;
  backend: MathBackendCPU;
  attrs: PBSAttentionAttrs;
}): TensorInfo {
  const {inputs, backend, attrs} = args;
  const {query, key, value, keyIndices, blockMask} = inputs;
  const geometry = blockGeometry(query, key, attrs, value);
  const isPlanned = keyIndices !== undefined && blockMask !== undefined;
  if (!isPlanned && runsExact(geometry, attrs, cpuCosts)) {
    return flashAttention(args);
  }
  const [q, k, v] = [query, key, value].map((x) => valuesOf(x, backend));
  const keyLengths = keyLengthsOf(inputs, backend);
  const plan = isPlanned
    ? {
        keyIndices: backend.data.get(keyIndices.dataId).values as Int32Array,
        blockLists: blockLists(backend.data.get(blockMask.dataId).values as Uint8Array, geometry),
      }
    : planBlocks(q, k, geometry, attrs, keyLengths);
  const {scale, causal, remainder} = attrs;
  const skipped = remainder ? attendRemainder(q, k, v, geometry, scale, causal, plan, keyLengths) : undefined;
  const output = attend(q, k, v, geometry, scale, causal, plan, {keyLengths}, skipped);
  return outputTensor(backend, geometry, output);
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
      keptMass: keptMass(sparse.scores, sparse.blockLists, geometry, attrs.probeRows > 0),
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

function planBlocks(
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  attrs: PBSAttentionAttrs,
  keyLengths?: Int32Array,
): {keyIndices: Int32Array; blockLists: Int32Array; scores: Float64Array} {
  const {scale, causal, threshold, exactLastBlock, probeRows} = attrs;
  const order = permute(query, key, geometry, scale, attrs.permute, causal, keyLengths);
  const scores =
    probeRows > 0
      ? probedScores(query, key, order, geometry, scale, causal, exactLastBlock, probeRows, keyLengths)
      : scoreBlocks(query, key, order, geometry, scale, causal, exactLastBlock, keyLengths);
  const lists = selectBlocks(scores, order.keyIndices, geometry, threshold, causal, probeRows > 0);
  return {keyIndices: order.keyIndices, blockLists: lists, scores};
}

function outputTensor(backend: MathBackendCPU, geometry: BlockGeometry, output: Float32Array): TensorInfo {
  const {batch, heads, queryLength, valueDim} = geometry;
  return backend.makeTensorInfo([batch, heads, queryLength, valueDim], 'float32', output);
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
];
