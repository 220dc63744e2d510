import {Fields, type Json} from './config_fields';
import {parseRotary, type RotaryScaling} from './rotary_config';

/** What the runner needs from a Hugging Face `config.json` of a Llama or Qwen2 decoder. */
export interface LlamaConfig {
  architecture: Architecture;
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  keyValueHeads: number;
  headDim: number;
  /** Whether the projections to queries, keys and values have a bias, the one from the attended values, those of the MLP. */
  inputBias: boolean;
  outputBias: boolean;
  mlpBias: boolean;
  rmsNormEpsilon: number;
  ropeTheta: number;
  ropeScaling: RotaryScaling | null;
  /** Longest context that the checkpoint was made for, in tokens. */
  maxPositions: number;
  /** The output head is the token embedding, transposed. */
  tiedHead: boolean;
  /** Tokens that end a continuation; may be empty. */
  endTokens: number[];
}

/** The default of `max_position_embeddings` in transformers; its other defaults are the same for both. */
const MAX_POSITIONS = {LlamaForCausalLM: 2048, Qwen2ForCausalLM: 32_768} as const;

export type Architecture = keyof typeof MAX_POSITIONS;

/**
 * Checks a parsed `config.json` and picks out what the runner uses.
 *
 * Defaults are those of transformers. Anything the runner would silently compute wrong (another architecture, another
 * scaling of the rotary embedding, a sliding window, quantised weights) throws an `Error` that names the field, what it
 * holds and what is accepted.
 */
export function parseConfig(json: Json): LlamaConfig {
  const fields = new Fields(json);
  const architecture = parseArchitecture(fields);
  // Before the sizes, so that a quantised file is called that, and not a file with a tensor missing.
  fields.acceptOnly('quantization_config', [null]);
  fields.acceptOnly('hidden_act', ['silu']);
  refuseSlidingWindow(fields, architecture);

  const hiddenSize = fields.positiveInteger('hidden_size');
  const layers = fields.positiveInteger('num_hidden_layers');
  const heads = fields.positiveInteger('num_attention_heads');
  const keyValueHeads = fields.positiveInteger('num_key_value_heads', heads);
  if (heads % keyValueHeads !== 0) {
    throw fields.unaccepted('num_key_value_heads', `a divisor of num_attention_heads (${heads})`);
  }
  const headDim = fields.positiveInteger('head_dim', hiddenSize / heads);
  if (headDim % 2 !== 0) {
    throw fields.unaccepted('head_dim', 'an even number: rotary embedding turns pairs', headDim);
  }
  // Llama says in config.json which projections have a bias. Qwen2 has no such fields: it is part of the architecture.
  const llama = architecture === 'LlamaForCausalLM';
  const attentionBias = llama && fields.boolean('attention_bias', false);
  return {
    architecture,
    vocabSize: fields.positiveInteger('vocab_size'),
    hiddenSize,
    intermediateSize: fields.positiveInteger('intermediate_size'),
    layers,
    heads,
    keyValueHeads,
    headDim,
    inputBias: !llama || attentionBias,
    outputBias: attentionBias,
    mlpBias: llama && fields.boolean('mlp_bias', false),
    rmsNormEpsilon: fields.positiveNumber('rms_norm_eps', 1e-6),
    ...parseRotary(fields),
    maxPositions: fields.positiveInteger('max_position_embeddings', MAX_POSITIONS[architecture]),
    tiedHead: fields.boolean('tie_word_embeddings', false),
    endTokens: fields.tokens('eos_token_id'),
  };
}

function parseArchitecture(fields: Fields): Architecture {
  const {architectures} = fields.json;
  const known = Object.keys(MAX_POSITIONS) as Architecture[];
  const found = known.find((name) => Array.isArray(architectures) && architectures.includes(name));
  if (found === undefined) {
    throw fields.unaccepted('architectures', known.map((name) => `["${name}"]`).join(', '));
  }
  return found;
}

/**
 * Qwen2 slides a window over the layers from `max_window_layers` on if `use_sliding_window` says so, and newer files
 * list what each layer does. Llama has no window in transformers; a checkpoint that names one was trained with it.
 */
function refuseSlidingWindow(fields: Fields, architecture: Architecture): void {
  const {layer_types: layerTypes, sliding_window: window} = fields.json;
  if (layerTypes !== undefined && layerTypes !== null) {
    if (!Array.isArray(layerTypes) || !layerTypes.every((type) => type === 'full_attention')) {
      throw fields.unaccepted('layer_types', 'a list of "full_attention" alone');
    }
    return;
  }
  if (architecture === 'Qwen2ForCausalLM') {
    // A window that is left out is 4,096 tokens long, and starts at layer 28.
    const firstLayer = Number(fields.json.max_window_layers ?? 28);
    const reached = !(firstLayer >= fields.positiveInteger('num_hidden_layers'));
    if (fields.boolean('use_sliding_window', false) && window !== null && reached) {
      throw fields.unaccepted('use_sliding_window', 'false, or max_window_layers of num_hidden_layers or more');
    }
  } else if (fields.boolean('use_sliding_window', true) && window !== undefined && window !== null) {
    throw fields.unaccepted('sliding_window', 'null');
  }
}
