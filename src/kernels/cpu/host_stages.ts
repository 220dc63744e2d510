import type {Tensor, TensorInfo, TypedArray} from '@tensorflow/tfjs-core';
import {tensor} from '@tensorflow/tfjs-core';
import type {AttentionRequest} from '../../attention/attention_call.js';
import type {StageSet} from '../../attention/stage_set.js';
import type {CPUCall, CPUGradientCall, CPUPlan} from './cpu_call.js';
import {unpackFloat16} from './pack_float16.js';
import {permute} from './permute/permute.js';
import {blockLists} from './select/block_lists.js';
import {blockMask} from './select/block_mask.js';
import {keptMass} from './select/kept_mass.js';
import {sampledMass, sampledScores} from './select/sampled_mass.js';
import {scoreBlocks} from './select/score_blocks.js';
import {selectBlocks} from './select/select_blocks.js';

type Call = CPUGradientCall & Pick<AttentionRequest, 'inputs'>;
type Stages = StageSet<object, Call, Int32Array, Float32Array | Float64Array>;

/** How a backend attends to arrays; what it attends to, the stages of the CPU choose. */
export interface HostAttention extends Pick<Stages, 'backendName' | 'costs'> {
  /** Float32 `[batch, heads, queryLength, valueDim]`; fills `logSums` with the logarithm of each row's sum of exp(score). */
  attend: (call: CPUCall, plan?: CPUPlan, logSums?: Float32Array) => Float32Array;
  /** By query, key and value. */
  attendGradients: (call: CPUGradientCall, plan?: CPUPlan) => Float32Array[];
}

/** The stages of a backend whose values pass between them as arrays of JavaScript, read when a call is opened. */
export function hostStages({backendName, costs, attend, attendGradients}: HostAttention): Stages {
  return {
    backendName,
    costs,
    exactBlockSize: Math.max,
    check: () => {},
    open(_backend, request) {
      const {query, key, value, keyLengths, mask, alibiSlopes, sinks, output, dy, dLogSumExp} = request.inputs;
      const floats = (x?: TensorInfo) => x && valuesOf<Float32Array>(x);
      const rows = (x?: TensorInfo) => (x?.dtype === 'int32' ? unpackFloat16(valuesOf<Int32Array>(x)) : floats(x));
      return {
        ...request,
        query: floats(query),
        key: rows(key),
        value: rows(value),
        output: floats(output),
        dy: floats(dy),
        dLogSumExp: floats(dLogSumExp),
        alibiSlopes: floats(alibiSlopes),
        sinks: floats(sinks),
        keyLengths: keyLengths && valuesOf<Int32Array>(keyLengths),
        mask: mask && {values: valuesOf(mask), shape: mask.shape, dtype: mask.dtype},
      } as Call;
    },
    free: () => {},
    freeTensor: (_backend, x) => (x as Tensor).dispose(),
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
      return tensor(attend(call, plan), [batch, heads, queryLength, valueDim]);
    },
    attendWithLogSumExp(call) {
      const {batch, heads, queryLength, valueDim} = call.geometry;
      const logSums = new Float32Array(batch * heads * queryLength);
      const output = attend(call, undefined, logSums);
      return [tensor(output, [batch, heads, queryLength, valueDim]), tensor(logSums, [batch, heads, queryLength])];
    },
    attendGradients(call, plan) {
      const {query, key, value} = call.inputs;
      const gradients = attendGradients(call, plan);
      return [query, key, value!].map(({shape}, i) => tensor(gradients[i], shape));
    },
    loadPlan: ({geometry}, {keyIndices, blockMask}) => ({
      keyIndices: valuesOf<Int32Array>(keyIndices),
      blockLists: blockLists(valuesOf<Uint8Array>(blockMask), geometry),
    }),
    storePlan({geometry}, plan) {
      const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
      const mask = blockMask(plan.blockLists, geometry);
      return [
        tensor(plan.keyIndices, [batch, heads, keyLength], 'int32'),
        tensor(mask, [batch, heads, queryBlocks, keyBlocks], 'bool'),
        ...(plan.keptMass ? [tensor(Float32Array.from(plan.keptMass), [batch, heads, queryBlocks])] : []),
      ];
    },
  };
}

/** Kernels get the tensors that the ops gave. */
function valuesOf<Values extends TypedArray>(x: TensorInfo): Values {
  return (x as Tensor).dataSync() as unknown as Values;
}
