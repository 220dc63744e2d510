import type {Tensor4D} from '@tensorflow/tfjs-core';
import {randomNormal, transpose} from '@tensorflow/tfjs-core';
import type {FlashAttentionOptions, PBSAttentionOptions, PBSAttentionPlan} from 'tfjs-pbs-attention';
import {flashAttention, pbsAttention, pbsAttentionDensity, pbsAttentionPlan} from 'tfjs-pbs-attention';
import {registerWebGPUBackend} from 'tfjs-pbs-attention/webgpu';

const exact: FlashAttentionOptions = {causal: false, scale: 1, precision: 'float16'};
const sparse: PBSAttentionOptions = {...exact, threshold: 0.9};
const query: Tensor4D = randomNormal([1, 2, 8, 4]);
export const outputs: Tensor4D[] = [
  flashAttention(query, query, query, exact),
  pbsAttention(query, query, query, sparse),
  query.flashAttention(query, query, exact).pbsAttention(query, query),
  // Of no known rank, as most of tfjs's ops return it.
  transpose(query, [0, 2, 1, 3]).pbsAttention(query, query, sparse),
];
const plan: PBSAttentionPlan = pbsAttentionPlan(query, query, sparse);
export const density: Promise<number> = pbsAttentionDensity(plan, sparse);
export const device: Promise<GPUDevice> = registerWebGPUBackend();

// @ts-expect-error no such option
query.pbsAttention(query, query, {treshold: 0.9});
// @ts-expect-error exact attention has no threshold
flashAttention(query, query, query, {threshold: 0.9});
// @ts-expect-error the value is missing
query.flashAttention(query);
