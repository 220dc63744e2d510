import {type Tensor4D} from '@tensorflow/tfjs-core';
import {
  flashAttention,
  pbsAttention,
  type PBSAttentionPlan,
  pbsAttentionPlan,
  type PBSAttentionSettings,
} from '../../src/index';

/** One way of attending in every layer of a prefill. */
export interface Variant {
  /** Names it in tables and plots. */
  label: string;
  /**
   * Causal attention of one layer, `[1, heads, length, headDim]`.
   *
   * @param onPlan takes the key order and block mask that the attention used, and disposes them. Without it no plan is
   *     made that the attention does not need.
   */
  attend: (query: Tensor4D, key: Tensor4D, value: Tensor4D, onPlan?: (plan: PBSAttentionPlan) => void) => Tensor4D;
}

/** Exact attention by the library. */
export const exactVariant: Variant = {label: 'exact', attend: (q, k, v) => flashAttention(q, k, v)};

/** The library's block-sparse attention, also where it does not pay. */
export function pbsVariant(label: string, options: Omit<PBSAttentionSettings, 'auto' | 'causal' | 'scale'>): Variant {
  return {
    label,
    attend: (query, key, value, onPlan) => {
      onPlan?.(pbsAttentionPlan(query, key, options));
      return pbsAttention(query, key, value, {...options, auto: false});
    },
  };
}
