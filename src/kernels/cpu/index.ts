import type {KernelConfig, TensorInfo, TypedArray} from '@tensorflow/tfjs-core';
import type {MathBackendCPU} from '@tensorflow/tfjs-backend-cpu';
import type {AttentionRequest} from '../../attention/attention_call.js';
import {attentionKernels} from '../../attention/driver.js';
import type {StageSet} from '../../attention/stage_set.js';
import {attend} from './attend/attend.js';
import {costsOf} from './costs.js';
import type {CPUGradientCall} from './cpu_call.js';
import {attendGradients} from './gradients/attend_gradients.js';
import {permute} from './permute/permute.js';
import {blockLists} from './select/block_lists.js';
import {blockMask} from './select/block_mask.js';
import {keptMass} from './select/kept_mass.js';
import {sampledMass, sampledScores} from './select/sampled_mass.js';
import {scoreBlocks} from './select/score_blocks.js';
import {selectBlocks} from './select/select_blocks.js';

type Call = CPUGradientCall & Pick<AttentionRequest, 'inputs'> & {backend: MathBackendCPU};

/** The readable reference: one file a stage, in float64. */
const stages: StageSet<MathBackendCPU, Call, Int32Array, Float32Array | Float64Array> = {
  backendName: 'cpu',
  costs: costsOf,
  exactBlockSize: Math.max,
  check: () => {},
  open(backend, request) {
    const {query, key, value, keyLengths, mask, alibiSlopes, sinks, output, dy, dLogSumExp} = request.inputs;
    const valuesOf = ({dataId}: TensorInfo) => backend.data.get(dataId).values as TypedArray;
    const floats = (x?: TensorInfo) => x && (valuesOf(x) as Float32Array);
    return {
      ...request,
      backend,
      query: floats(query),
      key: floats(key),
      value: floats(value),
      output: floats(output),
      dy: floats(dy),
      dLogSumExp: floats(dLogSumExp),
      alibiSlopes: floats(alibiSlopes),
      sinks: floats(sinks),
      keyLengths: keyLengths && (valuesOf(keyLengths) as Int32Array),
      mask: mask && {values: valuesOf(mask), shape: mask.shape, dtype: mask.dtype},
    } as Call;
  },
  free: () => {},
  freeTensor: (backend, {dataId}) => void backend.disposeData(dataId),
  permute,
  scoreBlocks(call, {estimate}, keyIndices) {
    if (estimate === 'pooled') {
      const scores = scoreBlocks(call, keyIndices);
      return {scores, masses: () => scores};
    }
    const mass = sampledMass(call, keyIndices);
    return {scores: sampledScores(mass), masses: () => mass.means};
  },
  selectBlocks,
  keptMass,
  attend(call, plan) {
    const {batch, heads, queryLength, valueDim} = call.geometry;
    const output = attend(call, plan);
    return call.backend.makeTensorInfo([batch, heads, queryLength, valueDim], 'float32', output);
  },
  attendWithLogSumExp(call) {
    const {batch, heads, queryLength, valueDim} = call.geometry;
    const logSums = new Float32Array(batch * heads * queryLength);
    const output = attend(call, undefined, logSums);
    return [
      call.backend.makeTensorInfo([batch, heads, queryLength, valueDim], 'float32', output),
      call.backend.makeTensorInfo([batch, heads, queryLength], 'float32', logSums),
    ];
  },
  attendGradients(call, plan) {
    const {query, key, value} = call.inputs;
    const gradients = attendGradients(call, plan);
    return [query, key, value!].map(({shape}, i) => call.backend.makeTensorInfo(shape, 'float32', gradients[i]));
  },
  loadPlan({backend, geometry}, plan) {
    const [keyIndices, mask] = [plan.keyIndices, plan.blockMask].map(({dataId}) => backend.data.get(dataId).values);
    return {keyIndices: keyIndices as Int32Array, blockLists: blockLists(mask as Uint8Array, geometry)};
  },
  storePlan({backend, geometry}, plan) {
    const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
    const mask = blockMask(plan.blockLists, geometry);
    return [
      backend.makeTensorInfo([batch, heads, keyLength], 'int32', plan.keyIndices),
      backend.makeTensorInfo([batch, heads, queryBlocks, keyBlocks], 'bool', mask),
      ...(plan.keptMass
        ? [backend.makeTensorInfo([batch, heads, queryBlocks], 'float32', Float32Array.from(plan.keptMass))]
        : []),
    ];
  },
};

export const cpuKernels: KernelConfig[] = attentionKernels(stages);
