import {dispose, type Tensor4D, tidy, zeros} from '@tensorflow/tfjs-core';
import {flashAttention, pbsAttention, type FlashAttentionOptions, type PBSAttentionOptions} from '../src/index';
import type {Inputs} from './captured_attention';

export type Precision = 'float32' | 'float16';

/** Exact attention of the library, causal; `form` is what it has besides. */
export function exactAttention(
  {query, key, value}: Inputs,
  precision: Precision,
  form?: FlashAttentionOptions,
): Tensor4D {
  // Not given where it is the default: an older version does not know the option.
  const options = precision === 'float32' ? {} : ({precision} as FlashAttentionOptions);
  return flashAttention(query, key, value, {...options, ...form});
}

/** Why the library cannot compute in a precision on this device, or undefined if it can. */
export function whyNot(precision: Precision, device: GPUDevice): string | undefined {
  if (precision === 'float32') return undefined;
  if (!device.features.has('shader-f16')) return 'the device has no shader-f16';
  return rejects(() => exactAttention(tinyInputs(), precision));
}

/**
 * Options of block-sparse attention for the benchmark. With `auto` the library may choose exact attention instead, which
 * is not what is measured here.
 */
export function sparseOptions(threshold: number): PBSAttentionOptions {
  const options: PBSAttentionOptions = {threshold};
  const forced = {...options, auto: false} as PBSAttentionOptions;
  const known = tidy(() => {
    const {query, key, value} = tinyInputs();
    return rejects(() => pbsAttention(query, key, value, forced)) === undefined;
  });
  return known ? forced : options;
}

function tinyInputs(): Inputs {
  const input = () => zeros([1, 1, 16, 16]) as Tensor4D;
  return {query: input(), key: input(), value: input()};
}

function rejects(run: () => Tensor4D): string | undefined {
  try {
    dispose(tidy(run));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
