import type {Tensor} from '@tensorflow/tfjs-core';
import {dispose} from '@tensorflow/tfjs-core';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {gradientKernels} from '../reference/attention_gradients';
import {randomInputs, tensors} from '../reference/attention';

type Values = ArrayLike<number>[];

const sizes = {blockSize: 16, keyBlockSize: 8, segmentSize: 32, threshold: 0.75, auto: false};
const inputs = randomInputs({heads: 4, keyValueHeads: 2, length: 72, headDim: 8}, 71);
const decoding = randomInputs({heads: 4, keyValueHeads: 2, length: 2, keyLength: 520, headDim: 8}, 72);

/** Reads tensors and frees them, whatever happens. */
async function take(outputs: Tensor[]): Promise<Values> {
  try {
    const reads = outputs.map((x) => x.data());
    await Promise.allSettled(reads);
    return await Promise.all(reads);
  } finally {
    dispose(outputs);
  }
}

/** Runs on new tensors, so that their upload can fail as well. */
async function onTensors(given: typeof inputs, body: (...x: ReturnType<typeof tensors>) => Tensor[]): Promise<Values> {
  const all = tensors(given);
  try {
    return await take(body(...all));
  } finally {
    dispose(all);
  }
}

/** Each way through the kernels: runs it and gives its values. */
export const attentionCalls: Record<string, () => Promise<Values>> = {
  exact: () => onTensors(inputs, (q, k, v) => [flashAttention(q, k, v)]),
  'sparse, sampled': () => onTensors(inputs, (q, k, v) => [pbsAttention(q, k, v, {...sizes, estimate: 'sampled'})]),
  'sparse, pooled': () => onTensors(inputs, (q, k, v) => [pbsAttention(q, k, v, {...sizes, estimate: 'pooled'})]),
  'by a plan': () =>
    onTensors(inputs, (q, k, v) => {
      const plan = pbsAttentionPlan(q, k, sizes);
      const made = [plan.keyIndices, plan.blockMask];
      try {
        return [...made, pbsAttention(q, k, v, {...sizes, plan})];
      } catch (error) {
        dispose(made);
        throw error;
      }
    }),
  gradients: () => onTensors(inputs, (q, k, v) => gradientKernels['gradient of pbsAttention'](q, k, v)),
  decoding: () => onTensors(decoding, (q, k, v) => [flashAttention(q, k, v)]),
};
