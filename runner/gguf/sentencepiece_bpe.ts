import {TokenType} from './tokenizer_fields';
import type {PartsOf} from './tokenizer_parts';

/** What SentencePiece writes for a space. */
const SPACE = '\u2581';

/** Types of tokens that may be joined to a longer one. */
const PARTS: readonly number[] = [TokenType.normal, TokenType.unused, TokenType.userDefined];

/**
 * Parts of a `tokenizer.json` for BPE as SentencePiece has it, `tokenizer.ggml.model` llama: Llama 2, Gemma. A U+FEFF that is no
 * token but three bytes is lost in decoding: the library's `ByteFallback` takes it for a byte-order mark.
 *
 * @throws if there is not one score for each token, or if `unknown_token_id` is no token.
 */
export const sentencePieceBPE: PartsOf = (fields, tokens, types) => {
  // Where the file says nothing, as in llama.cpp; so is `addBOS`.
  const unknown = tokens[fields.token('unknown_token_id', tokens.length, 0)!];
  const addSpace = fields.boolean('add_space_prefix', true);
  const escapeSpaces = {type: 'Replace', pattern: {String: ' '}, content: SPACE};
  return {
    normalizer: {
      type: 'Sequence',
      normalizers: [...(addSpace ? [{type: 'Prepend', prepend: SPACE}] : []), escapeSpaces],
    },
    pre_tokenizer: null,
    model: {unk_token: unknown, fuse_unk: true, byte_fallback: true, ignore_merges: false},
    merges: mergesByScore(tokens, types, fields.numbers('scores', tokens.length)),
    decoder: {
      type: 'Sequence',
      decoders: [
        {type: 'Replace', pattern: {String: SPACE}, content: ' '},
        {type: 'ByteFallback'},
        {type: 'Fuse'},
        ...(addSpace ? [{type: 'Strip', content: ' ', start: 1, stop: 0}] : []),
      ],
    },
    addBOS: true,
    // The published tokenizers of Gemma find runs of spaces and of ▁ alike; llama.cpp only the former. With a space that is put
    // before every text, it would be put before these tokens too.
    normalizedTokens: !addSpace,
  };
};

/**
 * SentencePiece joins the two neighbours whose text is the token of the highest score. As ranks of pairs that is every way of
 * cutting each token in two, in the order in which `generate_merges` of transformers writes them for Llama and Gemma: by
 * score, then by the length of the first part and of the second, all descending, then by id.
 */
function mergesByScore(
  tokens: readonly string[],
  types: readonly number[],
  scores: readonly number[],
): [string, string][] {
  const parts = new Set(tokens.filter((_, id) => PARTS.includes(types[id])));
  const merges: {pair: [string, string]; score: number; left: number; right: number}[] = [];
  tokens.forEach((token, id) => {
    // The others are cut out of a text before it is split, or stand for bytes.
    if (types[id] !== TokenType.normal && types[id] !== TokenType.unused) return;
    const characters = Array.from(token);
    let at = 0;
    for (let left = 1; left < characters.length; ++left) {
      at += characters[left - 1].length;
      const right = characters.length - left;
      // A character need be no token: Gemma's tab is a byte, and yet two are a token.
      const first = token.slice(0, at);
      if (left > 1 && !parts.has(first)) continue;
      const second = token.slice(at);
      if (right > 1 && !parts.has(second)) continue;
      merges.push({pair: [first, second], score: scores[id], left, right});
    }
  });
  merges.sort((a, b) => b.score - a.score || b.left - a.left || b.right - a.right);
  return merges.map(({pair}) => pair);
}
