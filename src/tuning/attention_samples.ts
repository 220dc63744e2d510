import type {Tensor4D} from '@tensorflow/tfjs-core';
import {clone, dispose, keep, tidy} from '@tensorflow/tfjs-core';
import {attentionTensors} from '../ops/attention_tensors.js';
import {check, describe} from '../ops/check_arguments.js';
import {flashAttention} from '../ops/flash_attention.js';
import type {AttentionOp, FlashAttentionOptions} from '../ops/options.js';

const op = 'collectAttentionSamples';

/** What a layer attends with: query, key and value as {@link pbsAttention} takes them. */
export interface AttentionSample {
  /** float32 `[batch, heads, length, headDim]`. */
  query: Tensor4D;
  /** float32 `[batch, keyValueHeads, length, headDim]`. */
  key: Tensor4D;
  /** float32 `[batch, keyValueHeads, length, valueDim]`. */
  value: Tensor4D;
  /** Whether the layer attends causally, where the tuner's options do not say so. Default `true`. */
  causal?: boolean;
  /** The layer's scale, where the tuner's options have none. Default `1 / sqrt(headDim)`. */
  scale?: number;
}

/** Exact attention that remembers what it was called with. */
export interface AttentionSampleCollector {
  /**
   * {@link flashAttention}, to be called in its place: keeps query, key and value, also past the end of a `tidy`, and `causal`
   * and `scale`. Refuses what the tuner does not measure: `mask`, `keyLengths`, `keyStarts`, `window`, `softCap`,
   * `alibiSlopes`, `sinks`, and queries that do not end with the keys.
   */
  attention: AttentionOp<FlashAttentionOptions>;
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
 * await runModel(prompt, {attention: collector.attention});
 * const tuned = await tunePBSAttention(collector.samples, {maxRelativeL1: 0.05});
 * collector.dispose();
 * ```
 */
export function collectAttentionSamples(): AttentionSampleCollector {
  const samples: AttentionSample[] = [];
  return {
    samples,
    attention: ((...[query, key, value, options]: Parameters<typeof flashAttention>) => {
      const {mask, keyLengths, queryOffset, causal, scale} = options ?? {};
      check(mask === undefined, op, 'mask', 'got one', 'none: the tuner measures attention without');
      check(keyLengths === undefined, op, 'keyLengths', 'got some', 'none: the tuner measures prompts without padding');
      for (const name of ['keyStarts', 'window', 'softCap', 'alibiSlopes', 'sinks'] as const) {
        check(options?.[name] === undefined, op, name, 'got one', 'none: the tuner measures attention without');
      }
      return tidy(() => {
        const sample = attentionTensors(op, query, key, value);
        const end = sample.key.shape[2] - sample.query.shape[2];
        const isLast = causal === false || queryOffset === undefined || queryOffset === end;
        check(isLast, op, 'queryOffset', `got ${describe(queryOffset)}`, `${end}, of queries that end with the keys`);
        const output = flashAttention(query, key, value, options);
        const [q, k, v] = [sample.query, sample.key, sample.value].map((x) => keep(clone(x)));
        samples.push({query: q, key: k, value: v, causal, scale});
        return output;
      });
    }) as AttentionOp<FlashAttentionOptions>,
    dispose: () => {
      for (const {query, key, value} of samples.splice(0)) {
        dispose([query, key, value]);
      }
    },
  };
}
