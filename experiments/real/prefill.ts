import * as tf from '@tensorflow/tfjs-core';
import type {LlamaModel} from '../../runner/llama/model';
import type {PrefillRequest} from '../../runner/llama/prefill_request';
import {pbsAttention} from '../../src/index';
import {blockGeometry, visibleBlocks} from '../../src/internal';
import {keptShares} from './attention_mass';
import {type LayerRules, planOf} from './rules';

/** What a prefill left of the rows that were asked for; the caller disposes `hidden`. */
export interface ReadRows {
  /** `[rows, hiddenSize]` after the last layer. */
  hidden: tf.Tensor2D;
  /** Share of visible blocks kept, by layer and head. */
  densities: number[][];
  /** Share of exact attention's weight in the kept blocks, for each layer, head and row of `massRows`. */
  keptShares: Float32Array;
}

/** Reads tokens with exact attention, or with every layer attending by its rule. */
export async function readRows(
  model: LlamaModel,
  ids: readonly number[],
  rows: readonly number[],
  rules?: LayerRules,
  massRows: readonly number[] = [],
): Promise<ReadRows> {
  let hidden: tf.Tensor2D | undefined;
  const counts: tf.Tensor1D[] = [];
  const shares: tf.Tensor1D[] = [];
  const visible: number[] = [];
  const request: PrefillRequest = {
    attention: 'flash',
    onHidden: (all) => void (hidden = tf.keep(tf.tidy(() => tf.gather(all, tf.tensor1d([...rows], 'int32'))))),
    attend:
      rules &&
      ((layer, query, key, value) => {
        const plan = planOf(rules.ofLayer(layer), query, key);
        const [, heads, queryBlocks, keyBlocks] = plan.blockMask.shape;
        const geometry = blockGeometry(query, key, plan.sizes!);
        const seen = Array.from({length: queryBlocks}, (_, block) => visibleBlocks(geometry, true, block));
        visible.push(seen.reduce((sum, blocks) => sum + blocks, 0));
        counts.push(tf.keep(tf.sum(tf.reshape(plan.blockMask, [heads, queryBlocks * keyBlocks]), 1)));
        if (massRows.length > 0) {
          shares.push(tf.keep(tf.reshape(keptShares(query, key, plan, massRows), [heads * massRows.length])));
        }
        return pbsAttention(query, key, value, {plan});
      }),
  };
  try {
    const {logits, cache} = await model.prefill(ids, request);
    logits.dispose();
    cache.dispose();
    // One transfer for all layers.
    const [count, share] = await Promise.all([readAll(counts), readAll(shares)]);
    const {heads} = model.config;
    return {
      hidden: hidden!,
      densities: counts.map((_, layer) =>
        Array.from(count.subarray(layer * heads, (layer + 1) * heads), (kept) => kept / visible[layer]),
      ),
      keptShares: Float32Array.from(share),
    };
  } catch (error) {
    hidden?.dispose();
    throw error;
  } finally {
    tf.dispose([counts, shares]);
  }
}

async function readAll(tensors: readonly tf.Tensor1D[]): Promise<Float32Array | Int32Array> {
  if (tensors.length === 0) return new Float32Array();
  const joined = tf.concat([...tensors]);
  try {
    return (await joined.data()) as Float32Array | Int32Array;
  } finally {
    joined.dispose();
  }
}
