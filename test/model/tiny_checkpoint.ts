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

/** Random weights for {@link tinyConfig}, large enough that attention is far from uniform. */
export function tinyTensors(): Record<string, StoredTensor> {
  const {vocab_size: vocab, hidden_size: hidden, intermediate_size: inner, head_dim: dim} = tinyConfig;
  const [queryRows, keyRows] = [tinyConfig.num_attention_heads * dim, tinyConfig.num_key_value_heads * dim];
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
  for (let layer = 0; layer < tinyConfig.num_hidden_layers; ++layer) {
    const at = `model.layers.${layer}`;
    tensors[`${at}.input_layernorm.weight`] = random([hidden], 0.3, 1);
    tensors[`${at}.self_attn.q_proj.weight`] = random([queryRows, hidden], 0.6);
    tensors[`${at}.self_attn.k_proj.weight`] = random([keyRows, hidden], 0.6);
    tensors[`${at}.self_attn.v_proj.weight`] = random([keyRows, hidden], 0.3);
    tensors[`${at}.self_attn.o_proj.weight`] = random([hidden, queryRows], 0.3);
    tensors[`${at}.post_attention_layernorm.weight`] = random([hidden], 0.3, 1);
    tensors[`${at}.mlp.gate_proj.weight`] = random([inner, hidden], 0.3);
    tensors[`${at}.mlp.up_proj.weight`] = random([inner, hidden], 0.3);
    tensors[`${at}.mlp.down_proj.weight`] = random([hidden, inner], 0.3);
  }
  tensors['model.norm.weight'] = random([hidden], 0.3, 1);
  return tensors;
}

/** Token ids of {@link tinyConfig}'s vocabulary, always the same ones. */
export function tinyIds(length: number): number[] {
  return Array.from({length}, (_, i) => (i * i * 7 + i * 3 + 5) % tinyConfig.vocab_size);
}
