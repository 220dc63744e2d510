import {TokenType, type TokenizerFields} from './tokenizer_fields';
import type {PartsOf} from './tokenizer_parts';

/**
 * Regular expressions that `@huggingface/tokenizers` runs as JavaScript's. Blanks are written out, since JavaScript's `\s` has
 * U+FEFF and lacks U+0085, and so are the two cases of letters, whatever an engine makes of `(?i:)`.
 */
const BLANK = String.raw`\p{White_Space}`;
const NO_BLANK = String.raw`\P{White_Space}`;
const BLANKS = `${BLANK}+(?!${NO_BLANK})|${BLANK}+`;

const GPT2_WORD = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^${BLANK}\p{L}\p{N}]+|${BLANKS}`;

const DIGIT = String.raw`\p{N}`;

const llama3Word = (digits: string) =>
  "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])" +
  String.raw`|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}| ?[^${BLANK}\p{L}\p{N}]+[\r\n]*|${BLANK}*[\r\n]+|${BLANKS}`;

interface PreTokenizer {
  /** Each splits what the one before left. */
  splits: string[];
  /** A word that is a token stays one, whatever the merges would make of it. */
  ignoreMerges: boolean;
  /** Where the file does not say whether a text begins with the BOS token. */
  addBOS: boolean;
}

const gpt2: PreTokenizer = {splits: [GPT2_WORD], ignoreMerges: false, addBOS: false};
const smollm: PreTokenizer = {splits: [DIGIT, GPT2_WORD], ignoreMerges: false, addBOS: false};
const llama3: PreTokenizer = {splits: [llama3Word(String.raw`\p{N}{1,3}`)], ignoreMerges: true, addBOS: true};
const qwen2: PreTokenizer = {splits: [llama3Word(DIGIT)], ignoreMerges: false, addBOS: false};

/**
 * By `tokenizer.ggml.pre`: names that llama.cpp gives the same expressions, flags and BOS token (`llm_tokenizer_bpe` and
 * `llama_vocab::impl::load` in `src/llama-vocab.cpp`). `default` is not among them: there it means four other expressions, for
 * files that do not say how they split, and a warning that quality suffers.
 */
const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ...['gpt-2', 'phi-2', 'gigachat', 'a.x-4.0', 'mellum', 'exaone4', 'mpt', 'olmo', 'jais', 'trillion'].map(
    (name) => [name, gpt2] as const,
  ),
  ...['smollm', 'starcoder', 'refact', 'command-r', 'codeshell', 'exaone', 'minerva-7b'].map(
    (name) => [name, smollm] as const,
  ),
  ...['llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2'].map(
    (name) => [name, llama3] as const,
  ),
  ...['qwen2', 'deepseek-r1-qwen', 'kormo', 'megrez', 'stablelm2', 'hunyuan', 'solar-open'].map(
    (name) => [name, qwen2] as const,
  ),
]);

/**
 * Parts of a `tokenizer.json` for byte-level BPE, `tokenizer.ggml.model` gpt2.
 *
 * @throws if `pre` is none that is known, or if `merges` are missing or join what are no tokens.
 */
export const byteLevelBPE: PartsOf = (fields, tokens, types) => {
  const pre = fields.string('pre', [...PRE_TOKENIZERS.keys()]);
  const {splits, ignoreMerges, addBOS} = PRE_TOKENIZERS.get(pre)!;
  return {
    // GGUF does not say it and llama.cpp does not do it; the published tokenizers of Qwen do.
    normalizer: pre === 'qwen2' ? {type: 'NFC'} : null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        ...splits.map((Regex) => ({type: 'Split', pattern: {Regex}, behavior: 'Isolated', invert: false})),
        {type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false},
        ...withoutUnknownBytes(tokens),
      ],
    },
    // Even where the file names an unknown token: its published tokenizer has none.
    model: {unk_token: null, fuse_unk: false, byte_fallback: false, ignore_merges: ignoreMerges},
    merges: mergesOf(fields, tokens, types),
    decoder: {type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false},
    addBOS,
    normalizedTokens: false,
  };
};

/**
 * Bytes that the vocabulary lacks (SmolLM2's has no 04, 06, 13, ...) vanish. In the Rust library they do so before what stands
 * around them is merged; the JavaScript one would merge first.
 */
function withoutUnknownBytes(tokens: readonly string[]): object[] {
  const vocabulary = new Set(tokens);
  const missing = byteCharacters().filter((character) => !vocabulary.has(character));
  if (missing.length === 0) return [];
  const codes = missing.map((character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return [{type: 'Replace', pattern: {Regex: `[${codes.join('')}]`}, content: ''}];
}

/** What GPT-2 writes for each byte: itself where it is printable, else a character from U+0100 on, in order. */
function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({length: 256}, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : next++);
  });
}

/** Pairs in order of rank. A pair that makes no token is refused, as it would take its text out of what is encoded. */
function mergesOf(fields: TokenizerFields, tokens: readonly string[], types: readonly number[]): [string, string][] {
  const vocabulary = new Set(tokens.filter((_, id) => types[id] !== TokenType.control));
  return fields.strings('merges').map((merge, rank) => {
    // From 1 on, as in llama.cpp: a token may begin with a space.
    const space = merge.indexOf(' ', 1);
    const pair: [string, string] = [merge.slice(0, space), merge.slice(space + 1)];
    if (space < 0 || ![...pair, pair.join('')].every((token) => vocabulary.has(token))) {
      throw fields.unaccepted(`merges[${rank}]`, 'two tokens with a space between that together are a token', merge);
    }
    return pair;
  });
}
