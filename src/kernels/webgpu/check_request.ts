import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {AttentionRequest} from '../../attention/attention_call.js';
import {isSparse} from '../../attention/attention_call.js';
import {float16RowsShape} from './attend/attend.js';
import {gradientShapes} from './gradients/attend_gradients.js';
import {checkBufferSizes} from './runtime/device_limits.js';
import {proxyStatisticsShape} from './permute/proxy_key_scores.js';
import {stateVectors} from './wgsl/softmax_state.js';
import {sampledMassShape} from './select/sampled_mass.js';
import {blockMeansShape} from './select/score_blocks.js';

/** Throws if what the call is given, what comes out, or what its stages pass on is too large for the device. */
export function checkRequest(backend: WebGPUBackend, request: AttentionRequest): void {
  const {op, inputs, geometry, result} = request;
  const {batch, heads, queryLength, valueDim} = geometry;
  const tensors = Object.entries(inputs) as Array<[string, TensorInfo]>;
  const sparse = isSparse(request);
  const withLogSumExp = result === 'logSumExp';
  const attends = result === 'output' || withLogSumExp;
  const rows = attends ? float16RowsShape({...request, backend}, {sparse, withLogSumExp}) : undefined;
  checkBufferSizes(op, backend, {
    ...Object.fromEntries(tensors.map(([name, {shape}]) => [name, shape])),
    // Packed rows are mostly unpacked.
    ...(inputs.key.dtype === 'int32' && {'unpacked key': [...inputs.key.shape.slice(0, 3), geometry.headDim]}),
    ...(inputs.value?.dtype === 'int32' && {'unpacked value': [...inputs.value.shape.slice(0, 3), valueDim]}),
    ...(rows && {'rows of float16': rows}),
    ...(attends && {output: [batch, heads, queryLength, valueDim]}),
    ...(withLogSumExp && {states: [batch, heads, queryLength, 4 * stateVectors(valueDim)]}),
    ...((sparse || result === 'plan') && planShapes(request)),
    ...(result === 'gradients' && gradientShapes(geometry, sparse, inputs.alibiSlopes ? {slopes: true} : {})),
  });
}

function planShapes({geometry, rule}: AttentionRequest): Record<string, number[]> {
  const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
  return {
    'key order': [batch, heads, keyLength],
    'block lists': [batch, heads, queryBlocks, keyBlocks + 1],
    ...(rule?.estimate === 'sampled' && {'sampled mass': sampledMassShape(geometry)}),
    ...(rule?.estimate === 'pooled' && {'block means': blockMeansShape(geometry)}),
    ...(rule?.estimate === 'pooled' && rule.permute && {'proxy statistics': proxyStatisticsShape(geometry)}),
  };
}
