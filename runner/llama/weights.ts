import * as tf from '@tensorflow/tfjs-core';
import {GROUP} from '../gguf/block_values';
import {PackedMatrix} from '../quantised/packed_matrix';
import {PackedProduct} from '../quantised/ops';
import {cut} from '../message_text';
import type {LlamaConfig} from './config';
import {hasKernel} from './kernels/run_kernel';
import type {LayerWeights, Projection} from './layer_weights';
import {
  disposeWeights,
  matrixOf,
  prepareLayer,
  prepareStoredLayer,
  type PreparedLayer,
  type PreparedWeights,
  type Stored,
} from './prepared_weights';
import type {WeightSource} from './weight_source';
import {checkTensorSizes, largestTensor} from './tensor_limit';

/** The tensors of a checkpoint, or what stands for them. */
type DecoderWeights<T> = {
  /** `[vocabSize, hiddenSize]` */
  embedding: T;
  layers: LayerWeights<T>[];
  norm: T;
  /** Weight `[vocabSize, hiddenSize]`: the embedding when the head is tied. */
  head: Projection<T>;
};

/** A buffer that early Llama checkpoints carry; it follows from `config.json`. */
const ROTARY_BUFFER = /\.rotary_emb\.inv_freq$/;

/**
 * Holds the tensors of a checkpoint against its config. One that is missing, misshapen or unknown throws by name: a
 * tensor that the model would leave out (a bias, a norm of queries) means that it would compute something else.
 */
export function checkWeights(config: LlamaConfig, source: WeightSource): void {
  const shapes = new Map<string, number[]>();
  // One after the other, so that the first that is missing ends it: the config may claim any number of layers.
  arrangeWeights(config, (name, shape) => {
    source.check(name, shape);
    shapes.set(name, shape);
  });
  // A tied checkpoint may store the head all the same; transformers takes the embedding too.
  const idle = (name: string) => ROTARY_BUFFER.test(name) || (config.tiedHead && name === 'lm_head.weight');
  const unknown = source.names().filter((name) => !shapes.has(name) && !idle(name));
  if (unknown.length > 0) {
    throw new Error(
      `${source.fileOf(unknown[0])}: tensor "${cut(unknown[0])}" has no place in a ${config.architecture} with ` +
        `what its config says (${unknown.length} such); accepted: the ${shapes.size} tensors of the decoder`,
    );
  }
}

/**
 * Reads every tensor, one after the other, onto the current backend, and brings those of the layers into the form that the
 * model multiplies with. Where the backend has kernels for blocks (WebGPU) and the source has some, matrices stay in the types in
 * which they are stored, as far as the GPU keeps those; all else becomes float32. Nothing stays behind if something fails.
 *
 * @param onProgress tensors so far, and tensors in all.
 * @throws Error by name if a tensor is too large for the backend; where all becomes float32, before anything is read.
 */
export async function uploadWeights(
  config: LlamaConfig,
  source: WeightSource,
  onProgress?: (done: number, total: number) => void,
): Promise<PreparedWeights> {
  const shapes = weightShapes(config);
  const {hiddenSize, intermediateSize} = config;
  const blocksOf = hasKernel(PackedProduct) ? source.blocks?.bind(source) : undefined;
  if (blocksOf === undefined) {
    checkTensorSizes([
      ...[...shapes].map(([name, shape]): [string, number[]] => [`tensor "${name}"`, shape]),
      ['gate and up projections of a layer', [2, hiddenSize, intermediateSize]],
    ]);
  }
  const uploaded = new Map<string, Stored>();
  const prepared: PreparedLayer[] = [];
  try {
    for (const [name, shape] of shapes) {
      const blocks = shape.length === 2 && shape[1] % GROUP === 0 ? blocksOf?.(name) : undefined;
      if (blocks) {
        const [outputs, inputs] = shape;
        const {type, readRows} = blocks;
        uploaded.set(name, await PackedMatrix.upload(type, [outputs, inputs], readRows, largestTensor().bytes));
      } else {
        if (blocksOf) checkTensorSizes([[`tensor "${name}"`, shape]]);
        const values = asMultiplied(config, name, await source.read(name));
        checkFinite(values, `${source.fileOf(name)}: tensor "${name}"`);
        uploaded.set(name, tf.tensor(values, shape));
      }
      onProgress?.(uploaded.size, shapes.size);
    }
    const {embedding, layers, norm, head} = arrangeWeights(config, (name) => uploaded.get(name)!);
    for (const layer of layers) {
      prepared.push(
        blocksOf ? prepareStoredLayer(config, layer) : prepareLayer(config, layer as LayerWeights<tf.Tensor>),
      );
    }
    const embedded = matrixOf(embedding);
    return {
      embedding: embedded,
      layers: prepared,
      norm: norm as tf.Tensor,
      head: head.weight === embedding ? embedded : matrixOf(head.weight),
    };
  } catch (error) {
    uploaded.forEach((stored) => stored.dispose());
    disposeWeights(prepared);
    throw error;
  }
}

/** A norm's weights as they are multiplied with: those of queries with what their scores are scaled by, beside the usual scale. */
function asMultiplied({normOffset, queryScale}: LlamaConfig, name: string, values: Float32Array): Float32Array {
  if (!name.endsWith('norm.weight')) return values;
  const scale = name.endsWith('.q_norm.weight') ? queryScale : 1;
  return normOffset === 0 && scale === 1 ? values : values.map((weight) => (normOffset + weight) * scale);
}

/** A weight that is no number makes everything so, or goes unseen until its token comes up. */
function checkFinite(values: Float32Array, what: string): void {
  let sum = 0;
  for (let i = 0; i < values.length; ++i) sum += 0 * values[i];
  if (sum === 0) return;
  const at = values.findIndex((value) => !Number.isFinite(value));
  throw new Error(`${what} has ${values[at]} at ${at}; accepted: finite numbers`);
}

function weightShapes(config: LlamaConfig): Map<string, number[]> {
  const shapes = new Map<string, number[]>();
  arrangeWeights(config, (name, shape) => void shapes.set(name, shape));
  return shapes;
}

/** Asks for each tensor by its name in the checkpoint, with the shape that the config gives it. */
function arrangeWeights<T>(config: LlamaConfig, take: (name: string, shape: number[]) => T): DecoderWeights<T> {
  const {vocabSize, hiddenSize, intermediateSize, headDim, inputBias, outputBias, mlpBias} = config;
  const {headNorms, postNorms} = config;
  const queryRows = config.heads * headDim;
  const keyRows = config.keyValueHeads * headDim;
  const projection = (name: string, outputs: number, inputs: number, biased: boolean): Projection<T> => ({
    weight: take(`${name}.weight`, [outputs, inputs]),
    ...(biased && {bias: take(`${name}.bias`, [outputs])}),
  });

  const embedding = take('model.embed_tokens.weight', [vocabSize, hiddenSize]);
  const layerOf = (index: number): LayerWeights<T> => {
    const at = `model.layers.${index}`;
    return {
      attentionNorm: take(`${at}.input_layernorm.weight`, [hiddenSize]),
      query: projection(`${at}.self_attn.q_proj`, queryRows, hiddenSize, inputBias),
      key: projection(`${at}.self_attn.k_proj`, keyRows, hiddenSize, inputBias),
      value: projection(`${at}.self_attn.v_proj`, keyRows, hiddenSize, inputBias),
      ...(headNorms && {
        queryNorm: take(`${at}.self_attn.q_norm.weight`, [headDim]),
        keyNorm: take(`${at}.self_attn.k_norm.weight`, [headDim]),
      }),
      output: projection(`${at}.self_attn.o_proj`, hiddenSize, queryRows, outputBias),
      ...(postNorms && {attentionPostNorm: take(`${at}.post_attention_layernorm.weight`, [hiddenSize])}),
      mlpNorm: take(`${at}.${postNorms ? 'pre_feedforward' : 'post_attention'}_layernorm.weight`, [hiddenSize]),
      gate: projection(`${at}.mlp.gate_proj`, intermediateSize, hiddenSize, mlpBias),
      up: projection(`${at}.mlp.up_proj`, intermediateSize, hiddenSize, mlpBias),
      down: projection(`${at}.mlp.down_proj`, hiddenSize, intermediateSize, mlpBias),
      ...(postNorms && {mlpPostNorm: take(`${at}.post_feedforward_layernorm.weight`, [hiddenSize])}),
    };
  };
  const layers: LayerWeights<T>[] = [];
  while (layers.length < config.layers) layers.push(layerOf(layers.length));
  return {
    embedding,
    layers,
    norm: take('model.norm.weight', [hiddenSize]),
    head: config.tiedHead ? {weight: embedding} : projection('lm_head', vocabSize, hiddenSize, false),
  };
}
