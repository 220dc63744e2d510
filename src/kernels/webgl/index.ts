import type {KernelConfig, TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {attentionKernels} from '../../attention/driver.js';
import {runWithScratch} from '../../attention/scratch.js';
import type {StageSet} from '../../attention/stage_set.js';
import {attend, attendWithLogSumExp} from './attend/attend.js';
import {checkRequest} from './check_request.js';
import {costsOf} from './costs.js';
import {keyIndexSplit} from './glsl/tiles.js';
import {attendGradients} from './gradients/attend_gradients.js';
import {permute} from './permute/permute.js';
import {throwIfGone, throwIfLost} from './runtime/backend_guard.js';
import {attentionContext, contextOf, releaseKept} from './runtime/context.js';
import type {RowTexture} from './runtime/row_texture.js';
import {loadRows, storeRows, wholeRows} from './runtime/tensor_rows.js';
import {blockLists} from './select/block_lists.js';
import {blockMask} from './select/block_mask.js';
import {keptMass} from './select/kept_mass.js';
import {sampledMass} from './select/sampled_mass.js';
import {SampledScoresProgram} from './select/sampled_scores.js';
import {scoreBlocks} from './select/score_blocks.js';
import {selectBlocks} from './select/select_blocks.js';
import type {WebGLCall, WebGLPlan} from './webgl_call.js';
import {openCall} from './webgl_call.js';

/** One file a stage, all on the GPU: nothing is read back in between. */
const stages: StageSet<MathBackendWebGL, WebGLCall, RowTexture> = {
  backendName: 'webgl',
  costs: costsOf,
  // A block of a short sequence is not longer than it, but whole tiles of 8 keys.
  exactBlockSize: (_, keyLength) => Math.min(128, Math.ceil(keyLength / 8) * 8),
  check(backend, request) {
    const context = attentionContext(request.op, backend);
    throwIfLost(request.op, request.inputs);
    checkRequest(context, request);
  },
  open: (backend, request, scratch) => openCall(contextOf(backend), request, scratch),
  free: (backend, rows) => contextOf(backend).pool.release(rows),
  freeTensor: (backend, tensor) => backend.disposeIntermediateTensorInfo(tensor),
  throwIfLost: (backend, op) => throwIfGone(op, backend),
  releaseKept,
  permute,
  scoreBlocks(call, {estimate}, keyIndices, scratch) {
    if (estimate === 'pooled') {
      const scores = scoreBlocks(call, keyIndices);
      return {scores, masses: () => scores};
    }
    const mass = scratch(sampledMass(call, keyIndices));
    return {scores: new SampledScoresProgram(mass).run(call.context), masses: () => mass};
  },
  selectBlocks,
  keptMass,
  attend,
  attendWithLogSumExp,
  attendGradients,
  loadPlan(call, plan, scratch): WebGLPlan {
    const {context, geometry} = call;
    const {queryBlocks, keyBlocks} = geometry;
    const kept = scratch(loadRows(context, plan.blockMask, wholeRows(keyBlocks)));
    return {
      keyIndices: scratch(loadRows(context, plan.keyIndices, keyIndexSplit(geometry, context.drawBuffers))),
      blockLists: scratch(blockLists(call, kept)),
      ...(queryBlocks === 1 && {kept}),
    };
  },
  storePlan(call, plan, scratch) {
    const {context, geometry} = call;
    const mass = plan.keptMass && scratch(plan.keptMass);
    [plan.keyIndices, plan.blockLists].forEach(scratch);
    const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
    const indexSplit = keyIndexSplit(geometry, context.drawBuffers);
    const mask = scratch(blockMask(call, plan.blockLists));
    const rows = [batch, heads, queryBlocks];
    return runWithScratch(
      (tensor: TensorInfo) => context.backend.disposeIntermediateTensorInfo(tensor),
      (_, keep) => [
        keep(storeRows(context, plan.keyIndices, indexSplit, {shape: [batch, heads, keyLength], dtype: 'int32'})),
        keep(storeRows(context, mask, wholeRows(keyBlocks), {shape: [...rows, keyBlocks], dtype: 'bool'})),
        ...(mass ? [storeRows(context, mass, wholeRows(1), {shape: rows, dtype: 'float32'})] : []),
      ],
    );
  },
};

export const webglKernels: KernelConfig[] = attentionKernels(stages);
