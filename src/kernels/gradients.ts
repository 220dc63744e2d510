import type {GradConfig, GradFunc, NamedAttrMap, NamedTensorMap, Tensor} from '@tensorflow/tfjs-core';
import {engine} from '@tensorflow/tfjs-core';
import {FlashAttention, FlashAttentionGrad, PBSAttention, PBSAttentionGrad} from './attention_kernels.js';

/**
 * Gradients of attention by query, key and value, by recomputation (FlashAttention-2, arXiv 2307.08691, section 3.1.2):
 * the forward pass saves its inputs and its output, and no scores. One kernel gives all three, so it runs at once and not
 * when tfjs asks for each.
 */
function gradientOf(kernelName: string, gradKernelName: string): GradConfig {
  const gradFunc = (dy: Tensor, saved: Tensor[], attrs: NamedAttrMap) => {
    const [query, key, value, output] = saved;
    const inputs: NamedTensorMap = {query, key, value, output, dy};
    const [dQuery, dKey, dValue] = engine().runKernel(gradKernelName, inputs, attrs) as unknown as Tensor[];
    return {query: () => dQuery, key: () => dKey, value: () => dValue};
  };
  return {
    kernelName,
    inputsToSave: ['query', 'key', 'value'],
    outputsToSave: [true],
    gradFunc: gradFunc as unknown as GradFunc,
  };
}

export const attentionGradients: GradConfig[] = [
  gradientOf(FlashAttention, FlashAttentionGrad),
  gradientOf(PBSAttention, PBSAttentionGrad),
];
