import {Tokenizer} from '@huggingface/tokenizers';

/** A tokenizer whose `decode` gives back exactly the text that was encoded. */
export function createTokenizer(json: object): Tokenizer {
  return new Tokenizer(json, {clean_up_tokenization_spaces: false});
}

/** The text of tokens, which may be none: the library refuses that. */
export function decode(tokenizer: Tokenizer, ids: readonly number[]): string {
  return ids.length === 0 ? '' : tokenizer.decode([...ids]);
}

/** Token ids of a text, without the tokens that a template would put around it. */
export function encode(tokenizer: Tokenizer, text: string): number[] {
  return tokenizer.encode(text, {add_special_tokens: false}).ids;
}
