import type {TypedArray} from '@tensorflow/tfjs-core';
import type {AttentionCall} from '../../attention/attention_call.js';
import type {BlockPlan} from '../../attention/stage_set.js';

/** A mask that broadcasts to `[batch, heads, queryLength, keyLength]`. */
export interface AttentionMask {
  values: TypedArray;
  shape: number[];
  /** bool: whether a row may see a key. float32: what is added to the scaled score; −Infinity hides the key. */
  dtype: string;
}

/** A call with its tensors as arrays. */
export type CPUCall = AttentionCall<Float32Array, Int32Array, AttentionMask>;

/** One that asks for gradients. */
export type CPUGradientCall = CPUCall & Required<Pick<CPUCall, 'output' | 'dy'>>;

export type CPUPlan = BlockPlan<Int32Array>;
