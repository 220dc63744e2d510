import {openCheckpoint} from '../../../../runner/llama/checkpoint';
import {LlamaModel, type LoadOptions} from '../../../../runner/llama/model';

/** What `tinyTensors` reads of a `config.json`. */
export interface TinyConfig {
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  head_dim?: number;
  tie_word_embeddings: boolean;
}

/** `config.json` of a two-layer model that runs in milliseconds; grouped heads, odd sizes where they are free. */
export const tinyConfig = {
  architectures: ['LlamaForCausalLM'],
  vocab_size: 61,
  hidden_size: 36,
  intermediate_size: 52,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  tie_word_embeddings: true,
  eos_token_id: null,
};

export interface StoredTensor {
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
}

/** A `.safetensors` file of the given tensors, in their order. */
export function writeSafetensors(tensors: Record<string, StoredTensor>): ArrayBuffer {
  const header: Record<string, unknown> = {__metadata__: {format: 'pt'}};
  let end = 0;
  for (const [name, {dtype, shape, bytes}] of Object.entries(tensors)) {
    header[name] = {dtype, shape, data_offsets: [end, end + bytes.length]};
    end += bytes.length;
  }
  return writeFile(JSON.stringify(header), ...Object.values(tensors).map(({bytes}) => bytes));
}

/** Header length, header, data: whatever they hold. */
export function writeFile(header: string, ...data: Uint8Array[]): ArrayBuffer {
  const text = new TextEncoder().encode(header);
  const file = new Uint8Array(8 + text.length + data.reduce((sum, part) => sum + part.length, 0));
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  let at = 8;
  for (const part of [text, ...data]) {
    file.set(part, at);
    at += part.length;
  }
  return file.buffer;
}

export function float32Tensor(shape: number[], values: Float32Array): StoredTensor {
  return {dtype: 'F32', shape, bytes: new Uint8Array(values.buffer)};
}

/**
 * Random weights for a Llama without biases, large enough that attention is far from uniform: every tensor that
 * transformers would save for it, under the name that it has there.
 */
export function tinyTensors(config: TinyConfig = tinyConfig): Record<string, StoredTensor> {
  const {vocab_size: vocab, hidden_size: hidden, intermediate_size: inner} = config;
  const dim = config.head_dim ?? hidden / config.num_attention_heads;
  const [queryRows, keyRows] = [config.num_attention_heads * dim, config.num_key_value_heads * dim];
  let state = 1;
  const random = (shape: number[], scale: number, mean = 0) => {
    const size = shape.reduce((product, n) => product * n, 1);
    const values = Float32Array.from({length: size}, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return mean + scale * ((state / 2 ** 32) * 2 - 1);
    });
    return float32Tensor(shape, values);
  };
  const tensors: Record<string, StoredTensor> = {'model.embed_tokens.weight': random([vocab, hidden], 1)};
  const projection = (name: string, [outputs, inputs]: [number, number], scale: number) => {
    tensors[`${name}.weight`] = random([outputs, inputs], scale);
  };
  for (let layer = 0; layer < config.num_hidden_layers; ++layer) {
    const at = `model.layers.${layer}`;
    tensors[`${at}.input_layernorm.weight`] = random([hidden], 0.3, 1);
    projection(`${at}.self_attn.q_proj`, [queryRows, hidden], 0.6);
    projection(`${at}.self_attn.k_proj`, [keyRows, hidden], 0.6);
    projection(`${at}.self_attn.v_proj`, [keyRows, hidden], 0.3);
    projection(`${at}.self_attn.o_proj`, [hidden, queryRows], 0.3);
    tensors[`${at}.post_attention_layernorm.weight`] = random([hidden], 0.3, 1);
    projection(`${at}.mlp.gate_proj`, [inner, hidden], 0.3);
    projection(`${at}.mlp.up_proj`, [inner, hidden], 0.3);
    projection(`${at}.mlp.down_proj`, [hidden, inner], 0.3);
  }
  tensors['model.norm.weight'] = random([hidden], 0.3, 1);
  if (!config.tie_word_embeddings) tensors['lm_head.weight'] = random([vocab, hidden], 1);
  return tensors;
}

/** The least that passes for a `tokenizer.json`. */
export const tinyTokenizer = {model: {type: 'WordLevel', vocab: {}}};

/** The files of a checkpoint: `config.json`, `tokenizer.json` and one `model.safetensors`. */
export function tinyFiles(config: object = tinyConfig, tensors: Record<string, StoredTensor> = tinyTensors()): File[] {
  return [
    jsonFile('config.json', config),
    jsonFile('tokenizer.json', tinyTokenizer),
    new File([writeSafetensors(tensors)], 'model.safetensors'),
  ];
}

export function jsonFile(name: string, json: unknown): File {
  return new File([JSON.stringify(json)], name);
}

export async function loadModel(files: File[], options?: LoadOptions): Promise<LlamaModel> {
  return LlamaModel.load(await openCheckpoint(files), options);
}

/** The message with which a promise is rejected; fails if it is not. */
export async function rejection(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('was expected to be rejected');
}

/** Token ids of {@link tinyConfig}'s vocabulary, always the same ones. */
export function tinyIds(length: number): number[] {
  return Array.from({length}, (_, i) => (i * i * 7 + i * 3 + 5) % tinyConfig.vocab_size);
}
