import type {GradConfig, GradFunc, NamedAttrMap, NamedTensorMap, Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {engine, zeros} from '@tensorflow/tfjs-core';
import type {FlashAttentionAttrs} from './attention_kernels.js';
import {
  AttentionWithLogSumExp,
  FlashAttention,
  FlashAttentionGrad,
  PBSAttention,
  PBSAttentionGrad,
  PBSAttentionPlan,
} from './attention_kernels.js';
import {maskGradient} from './mask_gradient.js';

/**
 * Runs an attention kernel so that tfjs saves its inputs for the gradient. It saves a fixed list of inputs and fails on one that is
 * missing, or all inputs if they are an array, as those of `Concat`; so inputs of which some are optional are an array with names, and
 * the attributes say which.
 *
 * @param inputs query, key, value, then those that are optional.
 */
export function runDifferentiable<Result = Tensor4D>(
  kernelName: string,
  inputs: NamedTensorMap,
  attrs: object,
): Result {
  const named = Object.assign([], inputs) as unknown as NamedTensorMap;
  const optionalInputs = Object.keys(inputs).slice(3);
  return engine().runKernel(kernelName, named, {...attrs, optionalInputs}) as Result;
}

/**
 * Gradients of attention by query, key, value and, where it is exact, an added mask, by recomputation (FlashAttention-2, arXiv 2307.08691, section 3.1.2):
 * the forward pass saves its inputs and its output, and no scores. One kernel gives all three, so it runs at once and not
 * when tfjs asks for each; that by a mask that is added is computed where it is asked for. Slopes or sinks that depend on the variable have no gradient: tfjs throws then.
 */
function gradientOf(kernelName: string, gradKernelName: string): GradConfig {
  const gradFunc = (dys: Tensor | Tensor[], saved: Tensor[], attrs: NamedAttrMap) => {
    const [query, key, value, ...others] = saved;
    if (key.dtype === 'int32') {
      throw new Error(`gradient of ${kernelName}: key: got packed float16; takes float32`);
    }
    const output = others.pop()!;
    const names = attrs['optionalInputs'] as string[];
    const named = Object.fromEntries(others.map((x, i) => [names[i], x]));
    const [dy, dLogSumExp] = [dys].flat();
    const inputs: NamedTensorMap = {query, key, value, ...named, output, dy, ...(dLogSumExp && {dLogSumExp})};
    const [dQuery, dKey, dValue] = engine().runKernel(gradKernelName, inputs, attrs) as unknown as Tensor[];
    const byPlan = Object.fromEntries(
      ['keyIndices', 'blockMask'].filter((name) => name in named).map((name) => [name, zerosLike(named[name])]),
    );
    const {mask} = named;
    // That of exact attention knows no blocks.
    const byMask = kernelName !== PBSAttention &&
      mask?.dtype === 'float32' && {
        mask: () => maskGradient(inputs, attrs as unknown as FlashAttentionAttrs),
      };
    return {query: () => dQuery, key: () => dKey, value: () => dValue, ...byPlan, ...byMask};
  };
  return {kernelName, saveAllInputs: true, outputsToSave: [true], gradFunc: gradFunc as unknown as GradFunc};
}

/** A plan counts as a constant, also one that was made of the variable: as the condition of tfjs's `where`. */
const gradientOfPlan: GradConfig = {
  kernelName: PBSAttentionPlan,
  inputsToSave: ['query', 'key'],
  gradFunc: (_, [query, key]) => ({query: zerosLike(query), key: zerosLike(key)}),
};

const zerosLike =
  ({shape}: Tensor) =>
  () =>
    zeros(shape);

export const attentionGradients: GradConfig[] = [
  gradientOf(FlashAttention, FlashAttentionGrad),
  gradientOf(AttentionWithLogSumExp, FlashAttentionGrad),
  gradientOf(PBSAttention, PBSAttentionGrad),
  gradientOfPlan,
];
