import type {Tensor4D} from '@tensorflow/tfjs-core';
import {clone, dispose, keep} from '@tensorflow/tfjs-core';
import {flashAttention} from '../ops/flash_attention.js';
import type {FlashAttentionOptions} from '../ops/options.js';

/** What a layer attends with: query, key and value as {@link pbsAttention} takes them. */
export interface AttentionSample {
  /** float32 `[batch, heads, length, headDim]`. */
  query: Tensor4D;
  /** float32 `[batch, keyValueHeads, length, headDim]`. */
  key: Tensor4D;
  /** float32, shaped as `key`. */
  value: Tensor4D;
}

/** Exact attention that remembers what it was called with. */
export interface AttentionSampleCollector {
  /** {@link flashAttention}, to be called in its place: keeps query, key and value, also past the end of a `tidy`. */
  attention(query: Tensor4D, key: Tensor4D, value: Tensor4D, options?: FlashAttentionOptions): Tensor4D;
  /** One entry a call, in the order of the calls: where a model runs once, sample i is layer i. Owned by the collector. */
  readonly samples: readonly AttentionSample[];
  /** Frees the samples. */
  dispose(): void;
}

/**
 * Collects samples for {@link tunePBSAttention} while a model runs a prompt once: its layers call `attention` in the place
 * of their own. Each sample holds on to its tensors until `dispose`: for a model of many layers, tune some layers at a time.
 *
 * ```js
 * const collector = collectAttentionSamples();
 * await model.prefill(prompt, {attend: collector.attention});
 * const tuned = await tunePBSAttention(collector.samples, {maxRelativeL1: 0.05});
 * collector.dispose();
 * ```
 */
export function collectAttentionSamples(): AttentionSampleCollector {
  const samples: AttentionSample[] = [];
  return {
    samples,
    attention: (query, key, value, options) => {
      const output = flashAttention(query, key, value, options);
      const [q, k, v] = [query, key, value].map((x) => keep(clone(x)));
      samples.push({query: q, key: k, value: v});
      return output;
    },
    dispose: () => {
      for (const {query, key, value} of samples.splice(0)) {
        dispose([query, key, value]);
      }
    },
  };
}
