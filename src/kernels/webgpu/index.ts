import type {KernelConfig, TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {PackFloat16} from '../../attention/attention_kernels.js';
import {attentionKernels} from '../../attention/driver.js';
import {isSparse} from '../../attention/attention_call.js';
import {peakWeight} from '../../attention/sampled_estimate.js';
import type {StageSet} from '../../attention/stage_set.js';
import {attend, attendWithLogSumExp, decodes} from './attend/attend.js';
import {checkRequest} from './check_request.js';
import {costsOf} from './costs.js';
import {floatInputs} from './float_inputs.js';
import {attendGradients} from './gradients/attend_gradients.js';
import {headForms} from './head_forms.js';
import {PackFloat16Program} from './pack_float16.js';
import {permute} from './permute/permute.js';
import {guardOf} from './runtime/backend_guard.js';
import {releaseKeptBuffers} from './runtime/buffers.js';
import {withScratch} from './runtime/program.js';
import {blockLists} from './select/block_lists.js';
import {blockMask} from './select/block_mask.js';
import {keptMass} from './select/kept_mass.js';
import {sampledMass} from './select/sampled_mass.js';
import {SampledScoresProgram} from './select/sampled_scores.js';
import {scoreBlocks} from './select/score_blocks.js';
import {selectBlocks} from './select/select_blocks.js';
import type {WebGPUCall, WebGPUGradientCall} from './webgpu_call.js';

/** One file a stage, all on the GPU: nothing is read back in between. */
export const webgpuStages: StageSet<WebGPUBackend, WebGPUGradientCall, TensorInfo> = {
  backendName: 'webgpu',
  costs: costsOf,
  exactBlockSize: Math.max,
  check(backend, request) {
    const guard = guardOf(backend);
    guard.throwIfGone(request.op);
    guard.throwIfLost(request.op, request.inputs);
    checkRequest(backend, request);
  },
  open(backend, request, scratch) {
    const isDecoded = () => !isSparse(request) && decodes({...request, ...request.inputs, backend} as WebGPUCall);
    const keepsPacked = request.inputs.key.dtype === 'int32' && isDecoded();
    const inputs = floatInputs(request.inputs, backend, scratch, {keepsPacked});
    const hasForms = inputs.alibiSlopes ?? inputs.sinks;
    const forms = hasForms && {headForms: scratch(headForms(backend, {...request, inputs}))};
    return {...request, ...inputs, ...forms, backend} as WebGPUGradientCall;
  },
  free: (backend, {dataId}) => void backend.disposeData(dataId),
  freeTensor: (backend, {dataId}) => void backend.disposeData(dataId),
  throwIfLost: (backend, op) => guardOf(backend).throwIfGone(op),
  releaseKept: releaseKeptBuffers,
  permute,
  scoreBlocks(call, {estimate}, keyIndices, scratch) {
    if (estimate === 'pooled') {
      const scores = scoreBlocks(call, keyIndices);
      return {scores, masses: () => scores};
    }
    const {backend, geometry} = call;
    const mass = scratch(sampledMass(call, keyIndices));
    const weighted = (weight: number) => new SampledScoresProgram(mass, geometry, weight).run(backend);
    return {scores: weighted(peakWeight), masses: () => scratch(weighted(0))};
  },
  selectBlocks,
  attend,
  attendWithLogSumExp,
  attendGradients,
  keptMass,
  loadPlan: (call, plan, scratch) => ({
    // The caller's own tensor.
    keyIndices: plan.keyIndices,
    blockLists: scratch(blockLists(call, plan.blockMask)),
  }),
  storePlan: (call, plan, scratch) =>
    withScratch(call.backend, (_, keep) => {
      scratch(plan.blockLists);
      const given = [plan.keyIndices, ...(plan.keptMass ? [plan.keptMass] : [])].map(keep);
      return [given[0], blockMask(call, plan.blockLists), ...given.slice(1)];
    }),
};

export const webgpuKernels: KernelConfig[] = [
  ...attentionKernels(webgpuStages),
  {
    kernelName: PackFloat16,
    backendName: 'webgpu',
    kernelFunc: ({inputs, backend}) => new PackFloat16Program(inputs['x']!).run(backend as WebGPUBackend),
  },
];
