import {ARCHITECTURES, type Architecture, type Traits} from '../llama/architectures';
import type {LlamaConfig} from '../llama/config';
import {
  describeRange,
  MAX_HEAD_DIM,
  RMS_NORM_EPSILON,
  ROPE_FACTOR,
  ROPE_THETA,
  type NumberRange,
} from '../llama/config_limits';
import type {RotaryScaling} from '../llama/rotary_config';
import {EVERY_LAYER, GEMMA_FULL_EVERY, type SlidingWindow} from '../llama/sliding_window';
import {cut, shown} from '../message_text';
import type {GGUFFile} from './gguf_file';
import {endTokens} from './gguf_tokenizer';

/** The architectures of GGUF that are read, by `general.architecture`: Mistral's files say llama. */
const NAMES: Readonly<Record<string, Architecture>> = {
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
  gemma3: 'Gemma3ForCausalLM',
};

/** Factors by which the frequencies of the rotary embedding are divided (Llama 3.1 and later). */
export const ROTARY_FACTORS = 'rope_freqs.weight';

/**
 * What the runner needs of the metadata of a GGUF file. Anything that it would silently compute wrong throws an `Error` that names
 * the file and the field, what came and what is accepted.
 */
export async function configOfGGUF(file: GGUFFile): Promise<LlamaConfig> {
  const fields = new MetadataFields(file);
  const architecture = NAMES[fields.general('general.architecture') as string];
  if (architecture === undefined) {
    throw fields.unaccepted(
      'general.architecture',
      Object.keys(NAMES)
        .map((name) => `"${name}"`)
        .join(', '),
    );
  }
  const traits = ARCHITECTURES[architecture];
  fields.acceptOnly('expert_count', [0]);
  fields.acceptOnly('attention.causal', [true]);
  // llama.cpp takes 0 for none.
  for (const cap of ['attn_logit_softcapping', 'final_logit_softcapping']) fields.acceptOnly(cap, [0]);
  const hiddenSize = fields.count('embedding_length');
  const heads = fields.count('attention.head_count');
  const keyValueHeads = fields.count('attention.head_count_kv', heads);
  if (heads % keyValueHeads !== 0) {
    throw fields.unaccepted(fields.key('attention.head_count_kv'), `a divisor of ${heads}, the heads of the queries`);
  }
  const headDim = fields.count('attention.key_length', hiddenSize / heads);
  if (headDim % 2 !== 0 || headDim > MAX_HEAD_DIM) {
    throw fields.unaccepted(
      fields.key('attention.key_length'),
      `an even number up to ${MAX_HEAD_DIM}: rotary embedding turns pairs, by tables as wide`,
      headDim,
    );
  }
  fields.acceptOnly('attention.value_length', [headDim]);
  fields.acceptOnly('rope.dimension_count', [headDim]);
  const tokens = fields.general('tokenizer.ggml.tokens');
  if (!Array.isArray(tokens) || tokens.length === 0) {
    throw fields.unaccepted('tokenizer.ggml.tokens', 'a list of tokens', Array.isArray(tokens) ? '[]' : tokens);
  }
  return {
    architecture,
    vocabSize: tokens.length,
    hiddenSize,
    intermediateSize: fields.count('feed_forward_length'),
    layers: fields.count('block_count'),
    heads,
    keyValueHeads,
    headDim,
    // The file has a tensor for each bias that there is.
    inputBias: file.has('blk.0.attn_q.bias'),
    outputBias: file.has('blk.0.attn_output.bias'),
    mlpBias: file.has('blk.0.ffn_gate.bias'),
    headNorms: traits.headNorms,
    postNorms: traits.postNorms,
    // The file holds what norms multiply by.
    normOffset: 0,
    queryScale: queryScale(fields, architecture, {hiddenSize, heads, headDim}),
    embeddingScale: traits.scalesEmbedding ? Math.fround(Math.sqrt(hiddenSize)) : 1,
    activation: traits.activation,
    rmsNormEpsilon: fields.positive('attention.layer_norm_rms_epsilon', RMS_NORM_EPSILON),
    ropeTheta: fields.positive('rope.freq_base', ROPE_THETA, traits.ropeTheta),
    ropeScaling: await rotaryScaling(file, fields, headDim),
    localRopeTheta: traits.localRopeTheta && fields.positive('rope.freq_base_swa', ROPE_THETA, traits.localRopeTheta),
    maxPositions: fields.count('context_length'),
    slidingWindow: slidingWindow(fields, traits.window),
    tiedHead: !file.has('output.weight'),
    endTokens: endTokens(file.metadata, file.fileName),
  };
}

/** Layers of the Gemma 3 of 27 billion parameters, whose `query_pre_attn_scalar` is not the head dim. No field says it: llama.cpp goes by this, too. */
const GEMMA_27B_LAYERS = 62;

function queryScale(
  fields: MetadataFields,
  architecture: Architecture,
  {hiddenSize, heads, headDim}: Pick<LlamaConfig, 'hiddenSize' | 'heads' | 'headDim'>,
): number {
  if (architecture !== 'Gemma3ForCausalLM' || fields.count('block_count') !== GEMMA_27B_LAYERS) return 1;
  return Math.sqrt(headDim / (hiddenSize / heads));
}

/** As llama.cpp has it for `llama` and `gemma3`. Of the others no file says which layers would have a window. */
function slidingWindow(fields: MetadataFields, kind: Traits['window']): SlidingWindow | null {
  const [window, pattern] = ['attention.sliding_window', 'attention.sliding_window_pattern'];
  if (kind === 'alternating') {
    const tokens = fields.count(window);
    const layers = fields.value(pattern);
    if (!Array.isArray(layers)) return {tokens, layers: {first: 0, fullEvery: fields.count(pattern, GEMMA_FULL_EVERY)}};
    const count = fields.count('block_count');
    if (layers.length !== count || !layers.every((slides) => typeof slides === 'boolean')) {
      throw fields.unaccepted(fields.key(pattern), `a positive integer, or a boolean for each of ${count} layers`);
    }
    return {tokens, layers};
  }
  fields.acceptOnly(pattern, []);
  if (kind === 'if used') fields.acceptOnly(window, []);
  return fields.has(window) ? {tokens: fields.count(window), layers: EVERY_LAYER} : null;
}

async function rotaryScaling(file: GGUFFile, fields: MetadataFields, headDim: number): Promise<RotaryScaling | null> {
  if (file.has(ROTARY_FACTORS)) {
    const shape = file.shape(ROTARY_FACTORS);
    if (shape.join() !== `${headDim / 2}`) {
      throw new Error(
        `${file.fileName}: tensor "${ROTARY_FACTORS}" has shape [${shape}]; accepted: [${headDim / 2}], half of a head`,
      );
    }
    const factors = await file.read(ROTARY_FACTORS);
    const at = factors.findIndex((factor) => !(factor >= ROPE_FACTOR.min && factor <= ROPE_FACTOR.max));
    if (at !== -1) {
      throw new Error(
        `${file.fileName}: tensor "${ROTARY_FACTORS}" has ${factors[at]} at ${at}; accepted: ${describeRange(ROPE_FACTOR)}`,
      );
    }
    return {type: 'factors', factors};
  }
  fields.acceptOnly('rope.scaling.type', ['none', 'linear']);
  // Older files say the factor alone.
  const key = fields.has('rope.scaling.factor') ? 'rope.scaling.factor' : 'rope.scale_linear';
  if (fields.value('rope.scaling.type') === 'none' || !fields.has(key)) return null;
  const factor = fields.positive(key, ROPE_FACTOR);
  return factor === 1 ? null : {type: 'linear', factor};
}

/** Metadata by the names that they have after the architecture's. */
class MetadataFields {
  constructor(private readonly file: GGUFFile) {}

  general(key: string): unknown {
    return this.file.metadata.get(key);
  }

  key(name: string): string {
    return `${this.general('general.architecture') as string}.${name}`;
  }

  value(name: string): unknown {
    return this.general(this.key(name));
  }

  has(name: string): boolean {
    return this.file.metadata.has(this.key(name));
  }

  /** A positive integer. */
  count(name: string, byDefault?: number): number {
    const value = this.value(name) ?? byDefault;
    if (!Number.isSafeInteger(value) || (value as number) < 1) {
      throw this.unaccepted(this.key(name), 'a positive integer', value);
    }
    return value as number;
  }

  positive(name: string, range: NumberRange, byDefault?: number): number {
    const value = this.value(name) ?? byDefault;
    if (typeof value !== 'number' || !(value >= range.min && value <= range.max)) {
      throw this.unaccepted(this.key(name), describeRange(range), value);
    }
    return value;
  }

  /** A field that may be missing, and otherwise is one of these. */
  acceptOnly(name: string, accepted: unknown[]): void {
    if (this.has(name) && !accepted.includes(this.value(name))) {
      throw this.unaccepted(this.key(name), accepted.map((value) => JSON.stringify(value)).join(', ') || 'none');
    }
  }

  unaccepted(key: string, accepted: string, came: unknown = this.general(key)): Error {
    return new Error(`${this.file.fileName}: metadata "${cut(key)}": ${shown(came)}; accepted: ${accepted}`);
  }
}
