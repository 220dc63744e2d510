/**
 * A Llama or Qwen2 decoder in plain loops over float64, written from the published definitions for the tests alone: it
 * shares no line with what it checks.
 */

export interface ReferenceConfig {
  architectures: string[];
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  head_dim?: number;
  rms_norm_eps: number;
  rope_theta?: number;
  rope_scaling?: ReferenceRope;
  rope_parameters?: ReferenceRope;
  tie_word_embeddings: boolean;
}

export interface ReferenceRope {
  rope_type?: string;
  type?: string;
  rope_theta?: number;
  factor?: number;
  low_freq_factor?: number;
  high_freq_factor?: number;
  original_max_position_embeddings?: number;
}

/** Row-major values by the name in the checkpoint. A bias that is there is added. */
export type ReferenceTensors = Record<string, ArrayLike<number>>;

/** Logits after each token. */
export function referenceLogits(config: ReferenceConfig, tensors: ReferenceTensors, ids: number[]): number[][] {
  const width = config.hidden_size;
  const embedding = tensors['model.embed_tokens.weight'];
  let rows = ids.map((id) => Array.from({length: width}, (_, i) => embedding[id * width + i]));
  for (let layer = 0; layer < config.num_hidden_layers; ++layer) {
    const at = `model.layers.${layer}`;
    const normed = rows.map((row) => rmsNorm(row, tensors[`${at}.input_layernorm.weight`], config.rms_norm_eps));
    const attended = selfAttention(config, tensors, `${at}.self_attn`, normed);
    rows = rows.map((row, i) => row.map((x, j) => x + attended[i][j]));
    rows = rows.map((row) => {
      const y = rmsNorm(row, tensors[`${at}.post_attention_layernorm.weight`], config.rms_norm_eps);
      const gate = linear(tensors, `${at}.mlp.gate_proj`, y);
      const up = linear(tensors, `${at}.mlp.up_proj`, y);
      const inner = gate.map((x, i) => (x / (1 + Math.exp(-x))) * up[i]);
      const down = linear(tensors, `${at}.mlp.down_proj`, inner);
      return row.map((x, i) => x + down[i]);
    });
  }
  const head = config.tie_word_embeddings ? 'model.embed_tokens' : 'lm_head';
  return rows.map((row) => linear(tensors, head, rmsNorm(row, tensors['model.norm.weight'], config.rms_norm_eps)));
}

function selfAttention(config: ReferenceConfig, tensors: ReferenceTensors, at: string, rows: number[][]): number[][] {
  const heads = config.num_attention_heads;
  const dim = config.head_dim ?? config.hidden_size / heads;
  const sharing = heads / config.num_key_value_heads;
  const frequencies = rotaryFrequencies(config, dim);
  const head = (vector: number[], index: number) => vector.slice(index * dim, (index + 1) * dim);
  const queries = rows.map((row) => linear(tensors, `${at}.q_proj`, row));
  const keys = rows.map((row) => linear(tensors, `${at}.k_proj`, row));
  const values = rows.map((row) => linear(tensors, `${at}.v_proj`, row));

  return rows.map((_, i) => {
    const joined: number[] = [];
    for (let h = 0; h < heads; ++h) {
      const shared = Math.floor(h / sharing);
      const query = rotateAt(head(queries[i], h), i, frequencies);
      const scores: number[] = [];
      for (let j = 0; j <= i; ++j) {
        const key = rotateAt(head(keys[j], shared), j, frequencies);
        scores.push(query.reduce((sum, x, k) => sum + x * key[k], 0) / Math.sqrt(dim));
      }
      const largest = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - largest));
      const total = weights.reduce((sum, x) => sum + x, 0);
      for (let k = 0; k < dim; ++k) {
        joined.push(weights.reduce((sum, weight, j) => sum + weight * values[j][shared * dim + k], 0) / total);
      }
    }
    return linear(tensors, `${at}.o_proj`, joined);
  });
}

function linear(tensors: ReferenceTensors, name: string, x: number[]): number[] {
  const weight = tensors[`${name}.weight`];
  const bias = tensors[`${name}.bias`];
  return Array.from({length: weight.length / x.length}, (_, row) => {
    let sum = bias === undefined ? 0 : bias[row];
    for (let i = 0; i < x.length; ++i) sum += weight[row * x.length + i] * x[i];
    return sum;
  });
}

function rmsNorm(x: number[], weight: ArrayLike<number>, epsilon: number): number[] {
  const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return x.map((value, i) => (value / Math.sqrt(meanSquare + epsilon)) * weight[i]);
}

/** The first half of a head holds the real parts, the second the imaginary ones: the pair turns by its angle. */
function rotateAt(x: number[], position: number, frequencies: number[]): number[] {
  const half = x.length / 2;
  return x.map((value, i) => {
    const angle = position * frequencies[i % half];
    return i < half
      ? value * Math.cos(angle) - x[i + half] * Math.sin(angle)
      : value * Math.cos(angle) + x[i - half] * Math.sin(angle);
  });
}

/** Radians a position, for each pair; scaled as transformers documents for `linear` and for `llama3`. */
function rotaryFrequencies(config: ReferenceConfig, dim: number): number[] {
  const rope = config.rope_parameters ?? config.rope_scaling ?? {};
  const theta = rope.rope_theta ?? config.rope_theta ?? NaN;
  const {
    factor = NaN,
    low_freq_factor: low = NaN,
    high_freq_factor: high = NaN,
    original_max_position_embeddings: context = NaN,
  } = rope;
  return Array.from({length: dim / 2}, (_, i) => {
    const frequency = 1 / theta ** ((2 * i) / dim);
    const type = rope.rope_type ?? rope.type;
    if (type === 'linear') return frequency / factor;
    if (type !== 'llama3') return frequency;
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength < context / high) return frequency;
    if (wavelength > context / low) return frequency / factor;
    const smooth = (context / wavelength - low) / (high - low);
    return (1 - smooth) * (frequency / factor) + smooth * frequency;
  });
}
