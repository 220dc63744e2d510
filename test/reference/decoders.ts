import * as tf from '@tensorflow/tfjs-core';
import {composedGatedActivation} from '../../runner/llama/kernels/gated_activation';
import {composedRMSNorm} from '../../runner/llama/kernels/rms_norm';
import {composedRotaryEmbedding} from '../../runner/llama/kernels/rotary_embedding';
import {rotaryTables} from '../../runner/llama/rotary';
import type {AttentionOptions} from '../../src/index';

// The models of golden/decoders.py in tfjs's ops, but for their attention, which is given.

const [HEADS, KEY_HEADS, HEAD_DIM, LAYERS, WINDOW] = [4, 2, 8, 2, 12];

type Attention = (query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D, options: AttentionOptions) => tf.Tensor4D;
/** A weight by its name in transformers; nothing where a projection has no bias. */
export type Weights = (name: string) => tf.Tensor;
/** Logits `[length, vocabulary]`. */
export type Decoder = (ids: number[], weights: Weights, attention: Attention) => tf.Tensor2D;

/** What is not the same in all that have the parts of Llama. */
interface Family {
  epsilon: number;
  normOffset: number;
  postNorms: boolean;
  embeddingScale: number;
  /** Where the head is not the embedding. */
  head?: string;
  finalSoftCap?: number;
  form(layer: number, weights: Weights): AttentionOptions;
  mlp(x: tf.Tensor2D, name: string, weights: Weights): tf.Tensor2D;
}

function decoderOf({epsilon, normOffset, postNorms, ...family}: Family): Decoder {
  return (ids, weights, attention) => {
    const norm = (x: tf.Tensor2D, name: string) =>
      composedRMSNorm(x, epsilon, {weight: tf.add(weights(`${name}.weight`), normOffset)});
    const tables = rotaryTables(ids.length, HEAD_DIM, 100);
    const rotated = (x: tf.Tensor4D) => {
      const [heads] = composedRotaryEmbedding(tf.squeeze(x, [0]), tables, 0, [x.shape[1]]);
      return tf.expandDims(heads) as tf.Tensor4D;
    };
    const embedding = weights('model.embed_tokens.weight');
    let x = tf.mul(tf.gather(embedding, ids), family.embeddingScale) as tf.Tensor2D;
    for (let layer = 0; layer < LAYERS; ++layer) {
      const at = `model.layers.${layer}`;
      const project = (part: string, from: tf.Tensor2D) => linear(from, `${at}.self_attn.${part}_proj`, weights);
      const normed = norm(x, `${at}.input_layernorm`);
      const query = rotated(byHead(project('q', normed), HEADS));
      const key = rotated(byHead(project('k', normed), KEY_HEADS));
      const value = byHead(project('v', normed), KEY_HEADS);
      let added = project('o', joined(attention(query, key, value, family.form(layer, weights))));
      if (postNorms) added = norm(added, `${at}.post_attention_layernorm`);
      x = tf.add(x, added);
      const inner = norm(x, `${at}.${postNorms ? 'pre_feedforward' : 'post_attention'}_layernorm`);
      added = family.mlp(inner, `${at}.mlp`, weights);
      x = tf.add(x, postNorms ? norm(added, `${at}.post_feedforward_layernorm`) : added);
    }
    const head = family.head ? weights(family.head) : embedding;
    const logits: tf.Tensor2D = tf.matMul(norm(x, 'model.norm'), head as tf.Tensor2D, false, true);
    const {finalSoftCap: cap} = family;
    return cap === undefined ? logits : tf.mul(tf.tanh(tf.div(logits, cap)), cap);
  };
}

const gated =
  (activation: 'silu' | 'gelu'): Family['mlp'] =>
  (x, name, weights) => {
    const parts = ['gate_proj', 'up_proj'].map((part) => linear(x, `${name}.${part}`, weights));
    return linear(composedGatedActivation(tf.stack(parts) as tf.Tensor3D, activation), `${name}.down_proj`, weights);
  };

/** Of gpt-oss, where every expert takes part in every token. */
const experts: Family['mlp'] = (x, name, weights) => {
  const routing = tf.softmax(linear(x, `${name}.router`, weights));
  const part = (of: string, expert: number) => tf.gather(weights(`${name}.experts.${of}`), expert) as tf.Tensor2D;
  const outputs = [0, 1].map((expert) => {
    const sums = tf.add(tf.matMul(x, part('gate_up_proj', expert)), part('gate_up_proj_bias', expert));
    // Gates and ups take turns.
    const [gate, up] = tf.unstack(tf.reshape(sums, [x.shape[0], -1, 2]), 2);
    const [cut, cutUp] = [tf.minimum(gate, 7), tf.clipByValue(up, -7, 7)];
    const inner = tf.mul(tf.add(cutUp, 1), tf.mul(cut, tf.sigmoid(tf.mul(cut, 1.702)))) as tf.Tensor2D;
    const output = tf.add(tf.matMul(inner, part('down_proj', expert)), part('down_proj_bias', expert));
    return tf.mul(output, tf.slice(routing, [0, expert], [-1, 1]));
  });
  return tf.addN(outputs) as tf.Tensor2D;
};

const llamaLike = {normOffset: 0, postNorms: false, embeddingScale: 1, head: 'lm_head.weight'};

const everySecond = (layer: number): AttentionOptions => (layer % 2 === 0 ? {window: WINDOW} : {});

/** BLOOM: queries, keys and values of a head stand together. */
const bloomOf =
  (alibiSlopes: number[]): Decoder =>
  (ids, named, attention) => {
    const weights: Weights = (name) => named(`transformer.${name}`);
    const norm = (x: tf.Tensor2D, name: string) => layerNorm(x, name, weights);
    const embedding = weights('word_embeddings.weight') as tf.Tensor2D;
    let x = norm(tf.gather(embedding, ids), 'word_embeddings_layernorm');
    for (let layer = 0; layer < LAYERS; ++layer) {
      const at = `h.${layer}`;
      const all = linear(norm(x, `${at}.input_layernorm`), `${at}.self_attention.query_key_value`, weights);
      const [query, key, value] = tf
        .unstack(tf.reshape(all, [ids.length, HEADS, 3, -1]), 2)
        .map((part) => tf.expandDims(tf.transpose(part, [1, 0, 2])) as tf.Tensor4D);
      const attended = joined(attention(query, key, value, {alibiSlopes}));
      x = tf.add(x, linear(attended, `${at}.self_attention.dense`, weights));
      const inner = linear(norm(x, `${at}.post_attention_layernorm`), `${at}.mlp.dense_h_to_4h`, weights);
      const active = composedGatedActivation(tf.stack([inner, tf.onesLike(inner)]) as tf.Tensor3D, 'gelu');
      x = tf.add(x, linear(active, `${at}.mlp.dense_4h_to_h`, weights));
    }
    return tf.matMul(norm(x, 'ln_f'), embedding, false, true);
  };

/** @param bloomSlopes of ALiBi, one for each head. */
export function decoders(bloomSlopes: number[]): Record<string, Decoder> {
  return {
    mistral: decoderOf({...llamaLike, epsilon: 1e-6, form: () => ({window: WINDOW}), mlp: gated('silu')}),
    gpt_oss: decoderOf({
      ...{...llamaLike, epsilon: 1e-5, mlp: experts},
      form: (layer, weights) => ({
        ...everySecond(layer),
        sinks: weights(`model.layers.${layer}.self_attn.sinks`) as tf.Tensor1D,
      }),
    }),
    gemma2: decoderOf({
      ...{epsilon: 1e-6, normOffset: 1, postNorms: true, embeddingScale: 4, finalSoftCap: 5, mlp: gated('gelu')},
      form: (layer) => ({...everySecond(layer), softCap: 2, scale: 12 ** -0.5}),
    }),
    bloom: bloomOf(bloomSlopes),
  };
}

/** `x · weightᵀ`, and the bias where there is one. */
function linear(x: tf.Tensor2D, name: string, weights: Weights): tf.Tensor2D {
  const product: tf.Tensor2D = tf.matMul(x, weights(`${name}.weight`) as tf.Tensor2D, false, true);
  const bias = weights(`${name}.bias`) as tf.Tensor | undefined;
  return bias === undefined ? product : tf.add(product, bias);
}

function layerNorm(x: tf.Tensor2D, name: string, weights: Weights): tf.Tensor2D {
  const {mean, variance} = tf.moments(x, 1, true);
  const normed = tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, 1e-5)));
  return tf.add(tf.mul(normed, weights(`${name}.weight`)), weights(`${name}.bias`));
}

/** `[length, heads * headDim]` → `[1, heads, length, headDim]` */
function byHead(x: tf.Tensor2D, heads: number): tf.Tensor4D {
  return tf.transpose(tf.reshape(x, [1, x.shape[0], heads, -1]), [0, 2, 1, 3]);
}

/** `[1, heads, length, headDim]` → `[length, heads * headDim]` */
function joined(x: tf.Tensor4D): tf.Tensor2D {
  return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [x.shape[2], -1]);
}
