import type {Tensor4D} from '@tensorflow/tfjs-core';
import {add, matMul, mul, softmax, tensor2d} from '@tensorflow/tfjs-core';
import type {PBSAttentionOptions, PBSAttentionReport} from 'tfjs-pbs-attention';
import {flashAttention, pbsAttention} from 'tfjs-pbs-attention';
import type {Attention} from './model';

/**
 * The three attentions that are compared. Sparse attention drops blocks at every length: `auto` would not, on few tokens. The
 * share of the blocks that a call has kept, it tells to `onKept`.
 */
export function attentions(
  options: PBSAttentionOptions,
  onKept: (share: number) => void = () => {},
): Record<'composed' | 'flash' | 'pbs', Attention> {
  const onReport = async (report: PBSAttentionReport) => {
    onKept(await report.density());
    report.dispose();
  };
  return {
    composed: composedAttention,
    flash: (query, key, value) => flashAttention(query, key, value),
    pbs: (query, key, value) => pbsAttention(query, key, value, {...options, auto: false, onReport}),
  };
}

/** As models write it with tfjs's own ops. */
function composedAttention(query: Tensor4D, key: Tensor4D, value: Tensor4D): Tensor4D {
  const [, , length, headDim] = query.shape;
  const mask = Array.from({length: length * length}, (_, i) => (i % length > Math.floor(i / length) ? -1e9 : 0));
  const scores = mul(matMul(query, key, false, true), 1 / Math.sqrt(headDim));
  return matMul(softmax(add(scores, tensor2d(mask, [length, length]))), value) as Tensor4D;
}
