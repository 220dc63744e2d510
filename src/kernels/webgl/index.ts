import type {KernelConfig, KernelFunc, TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
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
import type {Take} from '../../attention/scratch.js';
import {runWithScratch} from '../../attention/scratch.js';
import type {HiddenKeys} from './attend/attend.js';
import {attend} from './attend/attend.js';
import type {GradientRows} from './gradients/attend_gradients.js';
import {attendGradients} from './gradients/attend_gradients.js';
import {valueColumns} from './attend/attend_passes.js';
import type {BlockPlan} from './attend/attend_walk.js';
import {loadMask} from './glsl/attention_mask.js';
import {blockLists} from './select/block_lists.js';
import {blockMask} from './select/block_mask.js';
import type {AttentionContext} from './runtime/context.js';
import {attentionContext, throwIfLost} from './runtime/context.js';
import {webglCosts} from './costs.js';
import {
  checkGradientSizes,
  checkHiddenKeys,
  checkPlanSizes,
  checkPlanTensors,
  checkRowSizes,
} from './runtime/device_limits.js';
import {sumColumns} from './gradients/gradient_walk.js';
import {loadKeyLengths} from './glsl/key_lengths.js';
import {indexColumns, keyIndexSplit} from './permute/sort_keys.js';
import type {KeptRows} from './permute/permute_rows.js';
import {planBlocks, takePlan} from './select/plan_blocks.js';
import {withScratch} from './runtime/program.js';
import type {RowTexture} from './runtime/row_texture.js';
import {loadRows, storeRows, withTexture} from './runtime/tensor_rows.js';

/**
 * permute → score blocks → select blocks → attend, one file a stage, all on the GPU: nothing is read back in between.
 * Unpermute is the identity, because queries stay in place and `attend` writes each row where its query stands.
 *
 * Tensors are loaded into rows first, in which a fragment reads four values of a query or key at a time.
 */
function pbsAttention(args: {
  inputs: PBSAttentionInputs;
  backend: MathBackendWebGL;
  attrs: PBSAttentionAttrs;
}): TensorInfo {
  const {inputs, backend, attrs} = args;
  const geometry = blockGeometry(inputs.query, inputs.key, attrs, inputs.value);
  const {keyIndices, blockMask: planMask} = inputs;
  const plan = keyIndices && planMask && {keyIndices, blockMask: planMask};
  if (!plan && runsExact(geometry, attrs, webglCosts)) {
    return exactAttention('pbsAttention', inputs, backend, attrs);
  }
  return run('pbsAttention', backend, (context) => {
    checkRowSizes('pbsAttention', context, geometry);
    checkHiddenKeys('pbsAttention', context, geometry, inputs);
    checkPlanSizes('pbsAttention', context, geometry, keyIndices);
    if (plan) {
      return attendByPlan(context, inputs, plan, geometry, attrs);
    }
    return withScratch(context, (scratch) => {
      const query = scratch(loadHeads(context, inputs.query));
      const key = scratch(loadHeads(context, inputs.key));
      const keyLengths = inputs.keyLengths && scratch(loadKeyLengths(context, inputs.keyLengths));
      const plan = planBlocks(context, query, key, geometry, attrs, keyLengths);
      takePlan(plan, scratch);
      const value = scratch(loadValues(context, inputs.value));
      return attend(context, query, key, value, geometry, attrs.scale, attrs.causal, plan, {keyLengths});
    });
  });
}

/**
 * Attends by a plan that is given. Keys and values of a plan with one row of blocks, which is one of decoding, are read
 * where it keeps blocks; of other plans every block can be kept by some row.
 */
function attendByPlan(
  context: AttentionContext,
  inputs: PBSAttentionInputs,
  plan: GivenPlan,
  geometry: BlockGeometry,
  {scale, causal}: PBSAttentionAttrs,
): TensorInfo {
  const {headDim, valueDim, queryBlocks} = geometry;
  const {drawBuffers} = context;
  return withScratch(context, (scratch) => {
    const query = scratch(loadHeads(context, inputs.query));
    const keyLengths = inputs.keyLengths && scratch(loadKeyLengths(context, inputs.keyLengths));
    const kept = scratch(loadBlockMask(context, plan.blockMask));
    const rows = loadPlan(context, plan, kept, geometry, causal);
    scratch(rows.keyIndices);
    scratch(rows.blockLists);
    const attendTo = (key: RowTexture | KeptRows, value: RowTexture | KeptRows) =>
      attend(context, query, key, value, geometry, scale, causal, rows, {keyLengths});
    if (queryBlocks > 1) {
      return attendTo(scratch(loadHeads(context, inputs.key)), scratch(loadValues(context, inputs.value)));
    }
    return withTexture(context, inputs.key, (key) =>
      withTexture(context, inputs.value, (value) =>
        attendTo(
          {tensor: key, rowSize: headDim, columns: headDim, kept},
          {tensor: value, rowSize: valueDim, columns: valueColumns(valueDim, drawBuffers), kept},
        ),
      ),
    );
  });
}

interface GivenPlan {
  keyIndices: TensorInfo;
  blockMask: TensorInfo;
}

function loadBlockMask(context: AttentionContext, mask: TensorInfo): RowTexture {
  const keyBlocks = mask.shape[3];
  return loadRows(context, mask, {inner: keyBlocks, piece: keyBlocks});
}

/** A plan that is given, with its block mask as rows. The caller gives its textures back. */
function loadPlan(
  context: AttentionContext,
  {keyIndices}: GivenPlan,
  mask: RowTexture,
  geometry: BlockGeometry,
  causal: boolean,
): BlockPlan {
  return withScratch(context, (_, keep) => {
    const split = keyIndexSplit(geometry, context.drawBuffers);
    const columns = indexColumns(geometry.keyBlockSize, context.drawBuffers);
    const indices = keep(loadRows(context, keyIndices, split, columns, -1));
    return {keyIndices: indices, blockLists: blockLists(context, mask, geometry, causal)};
  });
}

function flashAttention(args: {
  inputs: FlashAttentionInputs;
  backend: MathBackendWebGL;
  attrs: FlashAttentionAttrs;
}): TensorInfo {
  return exactAttention('flashAttention', args.inputs, args.backend, args.attrs);
}

/** Blocks of exact attention: what a group of queries walks over at a time, and nothing that a user sees. */
const exactBlockSize = 128;

function exactAttention(
  op: string,
  inputs: FlashAttentionInputs,
  backend: MathBackendWebGL,
  attrs: FlashAttentionAttrs,
): TensorInfo {
  const {scale, causal} = attrs;
  const geometry = exactGeometry(inputs, attrs);
  return run(op, backend, (context) => {
    checkRowSizes(op, context, geometry);
    checkHiddenKeys(op, context, geometry, inputs);
    return withScratch(context, (scratch) => {
      const query = scratch(loadHeads(context, inputs.query));
      const key = scratch(loadHeads(context, inputs.key));
      const value = scratch(loadValues(context, inputs.value));
      const hidden = loadHiddenKeys(context, inputs, geometry, scratch);
      return attend(context, query, key, value, geometry, scale, causal, undefined, hidden);
    });
  });
}

function exactGeometry({query, key, value}: FlashAttentionInputs, {queryOffset}: FlashAttentionAttrs): BlockGeometry {
  // A block of a short sequence is not longer than it, but whole tiles of 8 keys.
  const blockSize = Math.min(exactBlockSize, Math.ceil(key.shape[2] / 8) * 8);
  return blockGeometry(query, key, {blockSize, keyBlockSize: blockSize, segmentSize: blockSize, queryOffset}, value);
}

function pbsAttentionPlan(args: {
  inputs: PBSAttentionPlanInputs;
  backend: MathBackendWebGL;
  attrs: PBSAttentionPlanAttrs;
}): TensorInfo[] {
  const {inputs, backend, attrs} = args;
  const geometry = blockGeometry(inputs.query, inputs.key, attrs);
  const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
  const shapes = {
    keyIndices: [batch, heads, keyLength],
    blockMask: [batch, heads, queryBlocks, keyBlocks],
    keptMass: [batch, heads, queryBlocks],
  };
  return run('pbsAttentionPlan', backend, (context) => {
    checkRowSizes('pbsAttentionPlan', context, geometry);
    checkHiddenKeys('pbsAttentionPlan', context, geometry, inputs);
    checkPlanTensors('pbsAttentionPlan', context, geometry);
    if (isExact(geometry, attrs)) {
      const plan = exactPlan(geometry, attrs.causal);
      const outputs = [
        backend.makeTensorInfo(shapes.keyIndices, 'int32', plan.keyIndices),
        backend.makeTensorInfo(shapes.blockMask, 'bool', plan.blockMask),
      ];
      return attrs.withMass ? [...outputs, backend.makeTensorInfo(shapes.keptMass, 'float32', plan.keptMass)] : outputs;
    }
    checkPlanSizes('pbsAttentionPlan', context, geometry);
    return withScratch(context, (scratch) => {
      const query = scratch(loadHeads(context, inputs.query));
      const key = scratch(loadHeads(context, inputs.key));
      const keyLengths = inputs.keyLengths && scratch(loadKeyLengths(context, inputs.keyLengths));
      const plan = planBlocks(context, query, key, geometry, attrs, keyLengths, attrs.withMass);
      takePlan(plan, scratch);
      if (plan.keptMass) {
        scratch(plan.keptMass);
      }
      const mask = scratch(blockMask(context, plan.blockLists));
      return runWithScratch(
        (tensor: TensorInfo) => backend.disposeIntermediateTensorInfo(tensor),
        (_, keep) => {
          const keySplit = keyIndexSplit(geometry, context.drawBuffers);
          return [
            keep(storeRows(context, plan.keyIndices, keySplit, shapes.keyIndices, 'int32')),
            keep(storeRows(context, mask, {inner: keyBlocks, piece: keyBlocks}, shapes.blockMask, 'bool')),
            ...(plan.keptMass
              ? [storeRows(context, plan.keptMass, {inner: 1, piece: 1}, shapes.keptMass, 'float32')]
              : []),
          ];
        },
      );
    });
  });
}

function flashAttentionGrad(args: {
  inputs: FlashAttentionGradInputs;
  backend: MathBackendWebGL;
  attrs: FlashAttentionAttrs;
}): TensorInfo[] {
  return exactGradients('gradient of flashAttention', args.inputs, args.backend, args.attrs);
}

/** In the form and over the blocks of the forward pass: the same inputs and attributes give the same plan again. */
function pbsAttentionGrad(args: {
  inputs: PBSAttentionGradInputs;
  backend: MathBackendWebGL;
  attrs: PBSAttentionAttrs;
}): TensorInfo[] {
  const op = 'gradient of pbsAttention';
  const {inputs, backend, attrs} = args;
  const geometry = blockGeometry(inputs.query, inputs.key, attrs, inputs.value);
  const {keyIndices, blockMask: planMask} = inputs;
  const given = keyIndices && planMask && {keyIndices, blockMask: planMask};
  if (!given && runsExact(geometry, attrs, webglCosts)) {
    return exactGradients(op, inputs, backend, attrs);
  }
  return run(op, backend, (context) => {
    checkGradientSizes(op, context, geometry);
    checkHiddenKeys(op, context, geometry, inputs);
    checkPlanSizes(op, context, geometry, keyIndices);
    return withScratch(context, (scratch) => {
      const rows = loadGradientRows(context, inputs, scratch);
      const keyLengths = inputs.keyLengths && scratch(loadKeyLengths(context, inputs.keyLengths));
      const plan = given
        ? loadPlan(context, given, scratch(loadBlockMask(context, given.blockMask)), geometry, attrs.causal)
        : planBlocks(context, rows.query, rows.key, geometry, attrs, keyLengths);
      takePlan(plan, scratch);
      return attendGradients(context, rows, geometry, attrs.scale, attrs.causal, plan, {keyLengths});
    });
  });
}

function exactGradients(
  op: string,
  inputs: FlashAttentionGradInputs,
  backend: MathBackendWebGL,
  attrs: FlashAttentionAttrs,
): TensorInfo[] {
  const geometry = exactGeometry(inputs, attrs);
  return run(op, backend, (context) => {
    checkGradientSizes(op, context, geometry);
    checkHiddenKeys(op, context, geometry, inputs);
    return withScratch(context, (scratch) => {
      const rows = loadGradientRows(context, inputs, scratch);
      const hidden = loadHiddenKeys(context, inputs, geometry, scratch);
      return attendGradients(context, rows, geometry, attrs.scale, attrs.causal, undefined, hidden);
    });
  });
}

function loadGradientRows(
  context: AttentionContext,
  {query, key, value, output, dy}: FlashAttentionGradInputs | PBSAttentionGradInputs,
  scratch: Take<RowTexture>,
): GradientRows {
  const load = (tensor: TensorInfo) => {
    const dim = tensor.shape[3];
    return scratch(loadRows(context, tensor, {inner: dim, piece: dim}, sumColumns(dim, context.drawBuffers)));
  };
  return {query: load(query), key: load(key), value: load(value), output: load(output), dy: load(dy)};
}

/** Runs a kernel on the backend's context; throws if the context was lost before or meanwhile. */
function run<T extends TensorInfo | TensorInfo[]>(
  op: string,
  backend: MathBackendWebGL,
  kernel: (context: AttentionContext) => T,
): T {
  const context = attentionContext(op, backend);
  const result = kernel(context);
  try {
    throwIfLost(op, context.gl);
  } catch (error) {
    [result].flat().forEach((tensor) => backend.disposeIntermediateTensorInfo(tensor));
    throw error;
  }
  return result;
}

/** What hides keys, where it is given. */
function loadHiddenKeys(
  context: AttentionContext,
  {keyLengths, mask}: FlashAttentionInputs,
  geometry: BlockGeometry,
  scratch: Take<RowTexture>,
): HiddenKeys {
  const hidden = mask && loadMask(context, mask, geometry);
  if (hidden) {
    scratch(hidden.rows);
  }
  return {keyLengths: keyLengths && scratch(loadKeyLengths(context, keyLengths)), mask: hidden};
}

/** Queries or keys as rows of `headDim` values. */
function loadHeads(context: AttentionContext, tensor: TensorInfo): RowTexture {
  const headDim = tensor.shape[3];
  return loadRows(context, tensor, {inner: headDim, piece: headDim});
}

function loadValues(context: AttentionContext, tensor: TensorInfo): RowTexture {
  const valueDim = tensor.shape[3];
  return loadRows(context, tensor, {inner: valueDim, piece: valueDim}, valueColumns(valueDim, context.drawBuffers));
}

export const webglKernels: KernelConfig[] = [
  {kernelName: FlashAttention, backendName: 'webgl', kernelFunc: flashAttention as unknown as KernelFunc},
  {kernelName: PBSAttention, backendName: 'webgl', kernelFunc: pbsAttention as unknown as KernelFunc},
  {kernelName: PBSAttentionPlan, backendName: 'webgl', kernelFunc: pbsAttentionPlan as unknown as KernelFunc},
  {kernelName: FlashAttentionGrad, backendName: 'webgl', kernelFunc: flashAttentionGrad as unknown as KernelFunc},
  {kernelName: PBSAttentionGrad, backendName: 'webgl', kernelFunc: pbsAttentionGrad as unknown as KernelFunc},
];
