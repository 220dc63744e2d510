import type {Activation} from './kernels/gated_activation';

/** Whether projections have a bias: by the architecture, or by a field of `config.json` that is false by default. */
type Bias = boolean | 'attention_bias' | 'mlp_bias';

/** What a decoder of one architecture has, and what transformers takes where `config.json` leaves a field out. */
export interface Traits {
  /** Biases of the projections to queries, keys and values, of the one from the attended values, of those of the MLP. */
  inputBias: Bias;
  outputBias: Bias;
  mlpBias: Bias;
  /** RMS norms of each head's queries and keys, before the rotary embedding. */
  headNorms: boolean;
  /**
   * Whether attention has a sliding window: never; of `sliding_window` in every layer; if `use_sliding_window` says so, in the layers of
   * `layer_types` or else from `max_window_layers` on; or in those of `layer_types`, or else in all but every sixth.
   */
  window: 'none' | 'always' | 'if used' | 'alternating';
  /** Norms of what attention and the MLP add, too. */
  postNorms: boolean;
  /** What norms add to their weights. */
  normOffset: 0 | 1;
  /** Whether embeddings are multiplied by the root of the hidden size. */
  scalesEmbedding: boolean;
  /** Of the gates of the MLP; `activationName` is what `config.json` calls it. */
  activation: Activation;
  activationName: string;
  /** Default of `query_pre_attn_scalar`: scores are scaled by its root instead of that of the head dim. Null: there is no such field. */
  queryScalar: number | null;
  /** Default of `rope_theta`. */
  ropeTheta: number;
  /** Default of `rope_local_base_freq`, that of layers with a window; null: all layers have one. */
  localRopeTheta: number | null;
  /** Default of `tie_word_embeddings`. */
  tiedHead: boolean;
  /** Default of `max_position_embeddings`. */
  maxPositions: number;
  /** Default of `num_key_value_heads`; null: as many as queries. */
  keyValueHeads: number | null;
  /** Default of `head_dim`; null: the hidden size by the heads. */
  headDim: number | null;
  /** Default of `eos_token_id`. */
  endTokens: readonly number[];
}

const LLAMA: Traits = {
  inputBias: 'attention_bias',
  outputBias: 'attention_bias',
  mlpBias: 'mlp_bias',
  headNorms: false,
  postNorms: false,
  normOffset: 0,
  scalesEmbedding: false,
  activation: 'silu',
  activationName: 'silu',
  queryScalar: null,
  ropeTheta: 10_000,
  localRopeTheta: null,
  tiedHead: false,
  window: 'none',
  maxPositions: 2048,
  keyValueHeads: null,
  headDim: null,
  endTokens: [2],
};

const QWEN2: Traits = {
  ...LLAMA,
  inputBias: true,
  outputBias: false,
  mlpBias: false,
  window: 'if used',
  maxPositions: 32_768,
  keyValueHeads: 32,
  endTokens: [],
};

export type Architecture =
  'LlamaForCausalLM' | 'MistralForCausalLM' | 'Qwen2ForCausalLM' | 'Qwen3ForCausalLM' | 'Gemma3ForCausalLM';

/** The architectures that are read, as transformers 5.24 defines them. */
export const ARCHITECTURES: Readonly<Record<Architecture, Traits>> = {
  LlamaForCausalLM: LLAMA,
  MistralForCausalLM: {
    ...LLAMA,
    inputBias: false,
    outputBias: false,
    mlpBias: false,
    window: 'always',
    maxPositions: 131_072,
    keyValueHeads: 8,
  },
  Qwen2ForCausalLM: QWEN2,
  Qwen3ForCausalLM: {
    ...QWEN2,
    inputBias: 'attention_bias',
    outputBias: 'attention_bias',
    headNorms: true,
    headDim: 128,
  },
  Gemma3ForCausalLM: {
    inputBias: 'attention_bias',
    outputBias: 'attention_bias',
    mlpBias: false,
    headNorms: true,
    postNorms: true,
    normOffset: 1,
    scalesEmbedding: true,
    activation: 'gelu',
    activationName: 'gelu_pytorch_tanh',
    queryScalar: 256,
    ropeTheta: 1_000_000,
    localRopeTheta: 10_000,
    tiedHead: true,
    window: 'alternating',
    maxPositions: 131_072,
    keyValueHeads: 4,
    headDim: 256,
    endTokens: [1],
  },
};
