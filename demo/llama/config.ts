/** What the runner needs from a Hugging Face `config.json` of `LlamaForCausalLM`. */
export interface LlamaConfig {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  keyValueHeads: number;
  headDim: number;
  rmsNormEpsilon: number;
  ropeTheta: number;
  /** Longest context that the checkpoint was made for, in tokens. */
  maxPositions: number;
  /** The output head is the token embedding, transposed. */
  tiedHead: boolean;
  /** Tokens that end a continuation; may be empty. */
  endTokens: number[];
}

type Json = Record<string, unknown>;

/**
 * Checks a parsed `config.json` and picks out what the runner uses.
 *
 * Defaults are those of transformers' `LlamaConfig`. Anything the runner would silently compute wrong
 * (another architecture, scaled rotary embedding, biases, quantised weights) throws an `Error` that names
 * the field, what it holds and what is accepted.
 */
export function parseConfig(json: unknown): LlamaConfig {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new Error(`config.json: got ${describe(json)}; accepted: an object`);
  }
  const config = json as Json;
  const architectures = config.architectures;
  if (!Array.isArray(architectures) || !architectures.includes('LlamaForCausalLM')) {
    throw unaccepted('architectures', architectures, '["LlamaForCausalLM"]');
  }
  acceptOnly(config, 'hidden_act', ['silu']);
  acceptOnly(config, 'attention_bias', [false]);
  acceptOnly(config, 'mlp_bias', [false]);
  acceptOnly(config, 'quantization_config', [null]);
  acceptOnly(config, 'partial_rotary_factor', [1]);
  const rope = ropeFields(config);

  const hiddenSize = positiveInteger(config, 'hidden_size');
  const heads = positiveInteger(config, 'num_attention_heads');
  const keyValueHeads = positiveInteger(config, 'num_key_value_heads', heads);
  if (heads % keyValueHeads !== 0) {
    throw unaccepted('num_key_value_heads', keyValueHeads, `a divisor of num_attention_heads (${heads})`);
  }
  const headDim = positiveInteger(config, 'head_dim', hiddenSize / heads);
  if (headDim % 2 !== 0) {
    throw unaccepted('head_dim', headDim, 'an even number: rotary embedding turns pairs');
  }
  return {
    vocabSize: positiveInteger(config, 'vocab_size'),
    hiddenSize,
    intermediateSize: positiveInteger(config, 'intermediate_size'),
    layers: positiveInteger(config, 'num_hidden_layers'),
    heads,
    keyValueHeads,
    headDim,
    rmsNormEpsilon: positiveNumber(config, 'rms_norm_eps', 1e-6),
    ropeTheta: positiveNumber(rope, 'rope_theta', 10_000),
    maxPositions: positiveInteger(config, 'max_position_embeddings', 2048),
    tiedHead: boolean(config, 'tie_word_embeddings', false),
    endTokens: tokens(config, 'eos_token_id'),
  };
}

/** transformers 4 keeps `rope_theta` at the top and scaling in `rope_scaling`; 5 puts both in `rope_parameters`. */
function ropeFields(config: Json): Json {
  for (const field of ['rope_scaling', 'rope_parameters']) {
    const value = config[field] as Json | null | undefined;
    if (value === null || value === undefined) continue;
    if ((value.rope_type ?? value.type) !== 'default') {
      throw unaccepted(field, value, 'null, or {"rope_type": "default"}');
    }
  }
  return (config.rope_parameters as Json | null | undefined) ?? config;
}

function acceptOnly(config: Json, field: string, accepted: unknown[]): void {
  const value = config[field];
  if (value !== undefined && value !== null && !accepted.includes(value)) {
    throw unaccepted(field, value, accepted.map((a) => JSON.stringify(a)).join(', '));
  }
}

function positiveInteger(config: Json, field: string, byDefault?: number): number {
  const value = config[field] ?? byDefault;
  if (!Number.isInteger(value) || (value as number) <= 0) {
    throw unaccepted(field, value, 'a positive integer');
  }
  return value as number;
}

function positiveNumber(config: Json, field: string, byDefault: number): number {
  const value = config[field] ?? byDefault;
  if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0) {
    throw unaccepted(field, value, 'a positive number');
  }
  return value;
}

function boolean(config: Json, field: string, byDefault: boolean): boolean {
  const value = config[field] ?? byDefault;
  if (typeof value !== 'boolean') throw unaccepted(field, value, 'true, false');
  return value;
}

function tokens(config: Json, field: string): number[] {
  const value = config[field] ?? [];
  const list: unknown[] = Array.isArray(value) ? value : [value];
  if (!list.every((id) => Number.isInteger(id))) {
    throw unaccepted(field, value, 'a token id, a list of token ids, null');
  }
  return list as number[];
}

function unaccepted(field: string, value: unknown, accepted: string): Error {
  return new Error(`config.json: ${field} is ${describe(value)}; accepted: ${accepted}`);
}

function describe(value: unknown): string {
  return value === undefined ? 'missing' : JSON.stringify(value);
}
