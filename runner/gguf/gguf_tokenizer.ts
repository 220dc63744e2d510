import {byteLevelBPE} from './byte_level_bpe';
import {sentencePieceBPE} from './sentencepiece_bpe';
import {TokenizerFields, TokenType, type Metadata} from './tokenizer_fields';
import type {PartsOf} from './tokenizer_parts';

const MODELS: ReadonlyMap<string, PartsOf> = new Map([
  ['gpt2', byteLevelBPE],
  ['llama', sentencePieceBPE],
]);

/** Tokens that end an answer in one chat format or another, whether or not the file says so. */
const END_OF_TURN = ['<|im_end|>', '<|eot_id|>', '<|end_of_text|>', '<|endoftext|>', '</s>', '<end_of_turn>'];

/**
 * The object that `tokenizer.json` of the same model would hold, for `createTokenizer`. Where llama.cpp and the published
 * tokenizer of a model differ, it follows the published one: Qwen's text is composed (NFC), and an ordinary token that looks
 * like a control token stays one.
 *
 * @throws if a field is missing or of another kind, or if it asks for a tokenizer that cannot be built; the error says which
 *   file and field, what it holds and what is accepted.
 */
export function tokenizerOfGGUF(metadata: Metadata, fileName?: string): Record<string, unknown> {
  const fields = new TokenizerFields(metadata, fileName);
  const modelName = fields.string('model', [...MODELS.keys()]);
  const tokens = fields.tokens();
  const types = fields.types(tokens.length);
  const {model, merges, addBOS, normalizedTokens, ...parts} = MODELS.get(modelName)!(fields, tokens, types);
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(tokens, types, normalizedTokens),
    ...parts,
    post_processor: postProcessor(fields, tokens, addBOS),
    // By `fromEntries`, as a vocabulary may have a token `__proto__`.
    model: {type: 'BPE', ...model, vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges},
  };
}

/**
 * Ids that end an answer: `eos_token_id`, `eot_token_id`, and the control tokens that end a turn in common chat formats.
 *
 * @throws if one of the fields is no token, or if `tokens` or `token_type` are not what they should be.
 */
export function endTokens(metadata: Metadata, fileName?: string): number[] {
  const fields = new TokenizerFields(metadata, fileName);
  const tokens = fields.tokens();
  const types = fields.types(tokens.length);
  const ids = ['eos_token_id', 'eot_token_id'].map((field) => fields.token(field, tokens.length));
  const byText = END_OF_TURN.map((token) => tokens.indexOf(token)).filter((id) => types[id] === TokenType.control);
  return [...new Set([...ids.filter((id) => id !== undefined), ...byText])];
}

/** Tokens that are found in a text before it is split. */
function addedTokens(tokens: readonly string[], types: readonly number[], normalizedTokens: boolean) {
  return tokens.flatMap((content, id) => {
    const special = types[id] === TokenType.control || types[id] === TokenType.unknown;
    if (!special && types[id] !== TokenType.userDefined) return [];
    const normalized = normalizedTokens && !special;
    return [{id, content, single_word: false, lstrip: false, rstrip: false, normalized, special}];
  });
}

function postProcessor(fields: TokenizerFields, tokens: readonly string[], addBOS: boolean) {
  const special = (flag: string, field: string, byDefault: boolean) => {
    if (!fields.boolean(flag, byDefault)) return [];
    const id = fields.token(field, tokens.length);
    if (id === undefined) throw fields.unaccepted(field, `a token id, as ${flag} is true`);
    return [{token: tokens[id], id}];
  };
  const first = special('add_bos_token', 'bos_token_id', addBOS);
  const last = special('add_eos_token', 'eos_token_id', false);
  if (first.length + last.length === 0) return null;
  const named = (list: typeof first) => list.map(({token}) => ({SpecialToken: {id: token, type_id: 0}}));
  const sequence = (id: 'A' | 'B', type_id: number) => ({Sequence: {id, type_id}});
  return {
    type: 'TemplateProcessing',
    single: [...named(first), sequence('A', 0), ...named(last)],
    pair: [...named(first), sequence('A', 0), ...named(last), sequence('B', 1), ...named(last)],
    special_tokens: Object.fromEntries(
      [...first, ...last].map(({token, id}) => [token, {id: token, ids: [id], tokens: [token]}]),
    ),
  };
}
