import {Tokenizer} from '@huggingface/tokenizers';
import {cut, shown} from './message_text';
import {plainText, writingOut} from './plain_text';
import {checkTokenizerJson} from './tokenizer_json';

/** Characters that are encoded at once, at least and at most: a tokenizer takes long over one huge text. */
const [LEAST_PIECE, MOST_PIECE] = [2 ** 12, 2 ** 16];

/** English prose takes about 4 characters a token; 8 leaves room to spare. */
const CHARACTERS_PER_TOKEN = 8;

/**
 * A tokenizer whose `decode` gives back exactly the text that was encoded.
 *
 * @throws Error that says what of `tokenizer.json` cannot be used.
 */
export function createTokenizer(json: object): Tokenizer {
  checkTokenizerJson(json as Record<string, unknown>);
  return failAs('tokenizer.json cannot be used', () =>
    writingOut(new Tokenizer(json, {clean_up_tokenization_spaces: false})),
  );
}

/** The text of tokens, which may be none: the library refuses that. Ids that no token has, such as a model's spare ones, have no text. */
export function decode(tokenizer: Tokenizer, ids: readonly number[]): string {
  const known = ids.filter((id) => tokenizer.id_to_token(id) !== undefined);
  return known.length === 0 ? '' : failAs('tokens cannot be decoded', () => tokenizer.decode(known));
}

/**
 * Token ids of a text, without the tokens that a template would put around it.
 *
 * @throws Error if the tokenizer has no token for a part of it.
 */
export function encode(tokenizer: Tokenizer, text: string): number[] {
  const {ids, tokens} = failAs('the text cannot be tokenized', () =>
    tokenizer.encode(text, {add_special_tokens: false}),
  );
  // Where the file names no unknown token, or one that is none, the library gives what is no id.
  const unknown = ids.findIndex((id) => !Number.isInteger(id));
  if (unknown !== -1) throw new Error(`the text cannot be tokenized: no token is ${shown(tokens[unknown])}`);
  return ids;
}

/** The same of what somebody wrote, in which no special token is meant. */
export const encodePlain = (tokenizer: Tokenizer, text: string): number[] =>
  encode(tokenizer, plainText(tokenizer, text));

/**
 * The first tokens of a text that somebody wrote, at least `least` where it has as many, and how many characters they are. It is encoded in pieces, cut between
 * words, so that what a long text takes depends on `least`.
 */
export function encodeBeginning(
  tokenizer: Tokenizer,
  text: string,
  least: number,
): {ids: number[]; characters: number} {
  const ids: number[] = [];
  let at = 0;
  while (at < text.length && ids.length < least) {
    const wanted = CHARACTERS_PER_TOKEN * (least - ids.length);
    const end = endOfPiece(text, at, Math.min(MOST_PIECE, Math.max(LEAST_PIECE, wanted)));
    // No spread: the tokens of a piece may be more than a call takes arguments.
    for (const id of encodePlain(tokenizer, text.slice(at, end))) ids.push(id);
    at = end;
  }
  return {ids, characters: at};
}

/** Between two words where there are some. */
function endOfPiece(text: string, start: number, length: number): number {
  if (text.length - start <= length) return text.length;
  const space = text.lastIndexOf(' ', start + length);
  return space > start + length / 2 ? space : start + length;
}

function failAs<T>(what: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new Error(`${what}: ${cut((error as Error).message)}`, {cause: error});
  }
}
