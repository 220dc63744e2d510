import type {NamedAttrMap, NamedTensorMap, Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {add, engine, grads, matMul, mul, setBackend, softmax, tensor4d} from '@tensorflow/tfjs-core';
import type {FlashAttentionOptions, PBSAttentionOptions} from '../../src/index';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {FlashAttentionGrad, PBSAttentionGrad} from '../../src/attention/attention_kernels';
import {flashAttentionAttrs, pbsAttentionAttrs} from '../../src/ops/check_arguments';
import type {Inputs} from './attention';
import {randomInputs, repeatHeads, tensors} from './attention';

/** Which key a query row sees: `[batch, heads, length, length]`, 1 or 0. */
export type Visibility = Uint8Array;
export type Gradients = Record<'query' | 'key' | 'value', ArrayLike<number>>;

/** tfjs's `grads` for functions of tensors of rank 4, which is typed for tensors of any rank. */
export const grads4D = grads as unknown as (
  f: (...x: Tensor4D[]) => Tensor4D,
) => (x: Tensor4D[], dy?: Tensor4D) => Tensor4D[];

/** A gradient of a loss by the output: the same on every backend. */
export function outputGradient({queryShape}: Inputs, seed: number): Float32Array {
  const [batch, heads, length, headDim] = queryShape;
  return randomInputs({batch, heads, length, headDim}, seed + 1000).value;
}

/** What tfjs's `grads` gives for attention on a backend; everything is freed. */
export async function gradientsOf(
  backend: string,
  inputs: Inputs,
  dy: Float32Array,
  attention: (query: Tensor4D, key: Tensor4D, value: Tensor4D) => Tensor4D,
): Promise<Gradients> {
  await setBackend(backend);
  const [q, k, v] = tensors(inputs);
  const dyTensor = tensor4d(dy, inputs.queryShape);
  const gradients = grads4D(attention)([q, k, v], dyTensor);
  const [query, key, value] = await Promise.all(gradients.map((x) => x.data()));
  [q, k, v, dyTensor, ...gradients].forEach((x) => x.dispose());
  return {query, key, value};
}

export const flashGradients = (backend: string, inputs: Inputs, dy: Float32Array, options: FlashAttentionOptions) =>
  gradientsOf(backend, inputs, dy, (q, k, v) => flashAttention(q, k, v, options));

export const pbsGradients = (backend: string, inputs: Inputs, dy: Float32Array, options: PBSAttentionOptions) =>
  gradientsOf(backend, inputs, dy, (q, k, v) => pbsAttention(q, k, v, options));

/** Gradients of attention written with tfjs's own ops and an additive mask, on the CPU. */
export function composedGradients(inputs: Inputs, dy: Float32Array, visibility: Visibility): Promise<Gradients> {
  const [batch, heads, length, headDim] = inputs.queryShape;
  return gradientsOf('cpu', inputs, dy, (query, key, value) => {
    const [k, v] = [key, value].map((x) => repeatHeads(x, heads / x.shape[1]));
    const mask = tensor4d(
      Float32Array.from(visibility, (seen) => (seen ? 0 : -1e9)),
      [batch, heads, length, length],
    );
    const scores = add(mul(matMul(query, k, false, true), 1 / Math.sqrt(headDim)), mask);
    return matMul(softmax(scores), v) as Tensor4D;
  });
}

export function exactVisibility({queryShape: [batch, heads, length]}: Inputs, causal: boolean): Visibility {
  const row = (i: number) => Math.floor(i / length) % length;
  return Uint8Array.from({length: batch * heads * length ** 2}, (_, i) => (causal && i % length > row(i) ? 0 : 1));
}

/** The pairs that `pbsAttention` computes on a backend: its plan there, key by key. */
export async function plannedVisibility(
  backend: string,
  inputs: Inputs,
  options: PBSAttentionOptions & {causal: boolean},
): Promise<Visibility> {
  await setBackend(backend);
  const [q, k, v] = tensors(inputs);
  const {keyIndices, blockMask, sizes} = pbsAttentionPlan(q, k, options);
  const [indices, mask] = await Promise.all([keyIndices.data(), blockMask.data()]);
  [q, k, v, keyIndices, blockMask].forEach((x) => x.dispose());
  const [batch, heads, length] = inputs.queryShape;
  const {blockSize, keyBlockSize} = sizes!;
  const [queryBlocks, keyBlocks] = [blockSize, keyBlockSize].map((size) => Math.ceil(length / size));
  const visibility = new Uint8Array(batch * heads * length ** 2);
  for (let row = 0; row < batch * heads * length; ++row) {
    const [head, query] = [Math.floor(row / length), row % length];
    const maskRow = (head * queryBlocks + Math.floor(query / blockSize)) * keyBlocks;
    for (let position = 0; position < length; ++position) {
      const key = indices[head * length + position];
      const isKept = mask[maskRow + Math.floor(position / keyBlockSize)];
      visibility[row * length + key] = isKept && (!options.causal || key <= query) ? 1 : 0;
    }
  }
  return visibility;
}

/** Σ dy · attention over the visible pairs, in float64, by its definition. */
export function attentionLoss(
  inputs: Record<'query' | 'key' | 'value', Float64Array> & Pick<Inputs, 'queryShape' | 'keyShape'>,
  dy: ArrayLike<number>,
  visibility: Visibility,
): number {
  const {query, key, value, queryShape, keyShape} = inputs;
  const [, heads, length, headDim] = queryShape;
  const group = heads / keyShape[1];
  let loss = 0;
  for (let row = 0; row < query.length / headDim; ++row) {
    const firstKey = Math.floor(Math.floor(row / length) / group) * length;
    let [weights, weighted] = [0, 0];
    for (let i = 0; i < length; ++i) {
      if (visibility[row * length + i]) {
        let [score, product] = [0, 0];
        for (let d = 0; d < headDim; ++d) {
          score += query[row * headDim + d] * key[(firstKey + i) * headDim + d];
          product += dy[row * headDim + d] * value[(firstKey + i) * headDim + d];
        }
        const weight = Math.exp(score / Math.sqrt(headDim));
        weights += weight;
        weighted += weight * product;
      }
    }
    loss += weighted / weights;
  }
  return loss;
}

/**
 * The kernels of the gradients alone, with any output and dy: tfjs keeps what it saved for a gradient that fails, which
 * hides what a kernel leaves.
 */
export const gradientKernels = {
  'gradient of flashAttention': (q: Tensor4D, k: Tensor4D, v: Tensor4D): Tensor[] => {
    const inputs: NamedTensorMap = {query: q, key: k, value: v, output: q, dy: q};
    return engine().runKernel(
      FlashAttentionGrad,
      inputs,
      flashAttentionAttrs('test', {}, q, k) as unknown as NamedAttrMap,
    ) as unknown as Tensor[];
  },
  'gradient of pbsAttention': (
    q: Tensor4D,
    k: Tensor4D,
    v: Tensor4D,
    options: PBSAttentionOptions = {blockSize: 16, segmentSize: 32, threshold: 0.8, auto: false},
  ): Tensor[] => {
    const inputs: NamedTensorMap = {query: q, key: k, value: v, output: q, dy: q};
    return engine().runKernel(
      PBSAttentionGrad,
      inputs,
      pbsAttentionAttrs('test', options, q, k) as unknown as NamedAttrMap,
    ) as unknown as Tensor[];
  },
};
