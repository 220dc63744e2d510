import type {TokenizerFields} from './tokenizer_fields';

/** What of a `tokenizer.json` depends on the kind of tokenizer; fields that are not named here are handed on as they are. */
export interface TokenizerParts {
  normalizer: object | null;
  pre_tokenizer: object | null;
  decoder: object;
  /** Settings of the BPE model. */
  model: object;
  /** Pairs that are joined, the first first. */
  merges: [string, string][];
  /** Whether a text begins with the BOS token where the file does not say. */
  addBOS: boolean;
  /** Whether user-defined tokens are found in the normalised text, rather than in the text as it stands. */
  normalizedTokens: boolean;
}

export type PartsOf = (fields: TokenizerFields, tokens: readonly string[], types: readonly number[]) => TokenizerParts;
