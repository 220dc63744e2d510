import {ARCHITECTURES, type Architecture} from './architectures';
import {Fields, type Json} from './config_fields';
import {MAX_HEAD_DIM, QUERY_SCALAR, RMS_NORM_EPSILON} from './config_limits';
import type {Activation} from './kernels/gated_activation';
import {parseRotary, type RotaryScaling} from './rotary_config';
import {parseSlidingWindow, type SlidingWindow} from './sliding_window';

/** What the runner needs from a Hugging Face `config.json` of a decoder of one of the {@link ARCHITECTURES}. */
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
  /** Whether each head's queries and keys go through an RMS norm before the rotary embedding. */
  headNorms: boolean;
  /** Whether what attention and the MLP add goes through an RMS norm of its own. */
  postNorms: boolean;
  /** What is added to the weights of norms as they are stored. */
  normOffset: 0 | 1;
  /** Queries are multiplied by it, beside the usual scale of scores; other than 1 only with `headNorms`. */
  queryScale: number;
  embeddingScale: number;
  /** Of the gates of the MLP. */
  activation: Activation;
  rmsNormEpsilon: number;
  ropeTheta: number;
  ropeScaling: RotaryScaling | null;
  /** Base of the rotary embedding in layers with a window, without a scaling; null: that of the others. */
  localRopeTheta: number | null;
  /** Longest context that the checkpoint was made for, in tokens. */
  maxPositions: number;
  /** Of the layers that have one; null if none has. */
  slidingWindow: SlidingWindow | null;
  /** The output head is the token embedding, transposed. */
  tiedHead: boolean;
  /** Tokens that end a continuation; may be empty. */
  endTokens: number[];
}

/**
 * Checks a parsed `config.json` and picks out what the runner uses.
 *
 * Defaults are those of transformers, but for the sizes that it always writes. Anything the runner would silently compute
 * wrong (another architecture, another scaling of the rotary embedding, quantised weights) throws an `Error` that names the
 * field, what it holds and what is accepted.
 */
export function parseConfig(json: Json): LlamaConfig {
  const fields = new Fields(json);
  const architecture = parseArchitecture(fields);
  const traits = ARCHITECTURES[architecture];
  // Before the sizes, so that a quantised file is called that, and not a file with a tensor missing.
  fields.acceptOnly('quantization_config', [null]);
  for (const field of ['hidden_act', 'hidden_activation']) fields.acceptOnly(field, [traits.activationName]);
  for (const field of ['attn_logit_softcapping', 'final_logit_softcapping']) fields.acceptOnly(field, [null]);
  fields.acceptOnly('use_bidirectional_attention', [false]);
  const slidingWindow = parseSlidingWindow(fields, traits.window);

  const hiddenSize = fields.positiveInteger('hidden_size');
  const layers = fields.positiveInteger('num_hidden_layers');
  const heads = fields.positiveInteger('num_attention_heads');
  const keyValueHeads =
    json.num_key_value_heads === null
      ? heads
      : fields.positiveInteger('num_key_value_heads', traits.keyValueHeads ?? heads);
  if (heads % keyValueHeads !== 0) {
    throw fields.unaccepted('num_key_value_heads', `a divisor of num_attention_heads (${heads})`, keyValueHeads);
  }
  const headDim = fields.positiveInteger('head_dim', traits.headDim ?? hiddenSize / heads);
  if (headDim % 2 !== 0 || headDim > MAX_HEAD_DIM) {
    throw fields.unaccepted(
      'head_dim',
      `an even number up to ${MAX_HEAD_DIM}: rotary embedding turns pairs, by tables as wide`,
      headDim,
    );
  }
  const trained = fields.positiveInteger('max_position_embeddings', traits.maxPositions);
  const queryScalar =
    traits.queryScalar && fields.positiveNumber('query_pre_attn_scalar', QUERY_SCALAR, traits.queryScalar);
  const hasBias = (bias: boolean | string) => (typeof bias === 'boolean' ? bias : fields.boolean(bias, false));
  return {
    architecture,
    vocabSize: fields.positiveInteger('vocab_size'),
    hiddenSize,
    intermediateSize: fields.positiveInteger('intermediate_size'),
    layers,
    heads,
    keyValueHeads,
    headDim,
    inputBias: hasBias(traits.inputBias),
    outputBias: hasBias(traits.outputBias),
    mlpBias: hasBias(traits.mlpBias),
    headNorms: traits.headNorms,
    postNorms: traits.postNorms,
    normOffset: traits.normOffset,
    queryScale: queryScalar === null ? 1 : Math.sqrt(headDim / queryScalar),
    embeddingScale: traits.scalesEmbedding ? Math.fround(Math.sqrt(hiddenSize)) : 1,
    activation: traits.activation,
    rmsNormEpsilon: fields.positiveNumber('rms_norm_eps', RMS_NORM_EPSILON, 1e-6),
    ...parseRotary(fields, trained, traits),
    maxPositions: trained,
    slidingWindow,
    tiedHead: fields.boolean('tie_word_embeddings', traits.tiedHead),
    endTokens: fields.tokens('eos_token_id', traits.endTokens),
  };
}

function parseArchitecture(fields: Fields): Architecture {
  const {architectures} = fields.json;
  const known = Object.keys(ARCHITECTURES) as Architecture[];
  const found = known.find((name) => Array.isArray(architectures) && architectures.includes(name));
  if (found === undefined) {
    throw fields.unaccepted('architectures', known.map((name) => `["${name}"]`).join(', '));
  }
  return found;
}
