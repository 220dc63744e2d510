import type {Tokenizer} from '@huggingface/tokenizers';

/*
 * A tokenizer looks for its special tokens, such as `<|im_end|>`, in a text before anything else, and takes them for what a template wrote. In
 * what somebody wrote they are words like any other. So they go through the template, and past that search, as stand-ins: two characters
 * that Unicode promises never to use in texts, and a number between them.
 */
const [OPEN, CLOSE] = ['\u{FDD0}', '\u{FDD1}'];
const STAND_IN = new RegExp(`${OPEN}(\\d+)${CLOSE}`, 'g');

interface Hidden {
  /** What has stand-ins: the special tokens, and the characters that stand-ins are made of. */
  texts: readonly string[];
  pattern: RegExp;
}

const hiddenOf = new WeakMap<Tokenizer, Hidden>();

/** The text with stand-ins for the special tokens in it. What `encode` gives for it, in a template or by itself, has none of them. */
export function plainText(tokenizer: Tokenizer, text: string): string {
  const {texts, pattern} = hidden(tokenizer);
  return text.replace(pattern, (found) => `${OPEN}${texts.indexOf(found)}${CLOSE}`);
}

/** Has a tokenizer write stand-ins out once it has looked for special tokens. */
export function writingOut(tokenizer: Tokenizer): Tokenizer {
  const original = tokenizer.pre_tokenizer;
  const {texts} = hidden(tokenizer);
  // The library's are objects that can be called, and it does no more than that.
  const split = original as unknown as undefined | ((text: string, options?: object) => string[]);
  const writeOut = (text: string, options?: object) => {
    const plain = text.replace(STAND_IN, (_, index: string) => texts[Number(index)] ?? '');
    return split ? split(plain, options) : [plain];
  };
  tokenizer.pre_tokenizer = writeOut as unknown as Tokenizer['pre_tokenizer'];
  return tokenizer;
}

function hidden(tokenizer: Tokenizer): Hidden {
  let known = hiddenOf.get(tokenizer);
  if (known === undefined) {
    const special = [...tokenizer.get_added_tokens_decoder().values()].filter((token) => token.special);
    // Of two that begin alike the longer one is found.
    const contents = special.map(({content}) => content).sort((a, b) => b.length - a.length);
    const texts = [...contents.filter((content) => content !== ''), OPEN, CLOSE];
    const escaped = (text: string) => text.replace(/[\\^$.*+?()[\]{}|-]/g, '\\$&');
    // Only where one of them can begin are they compared with, which may be hundreds.
    const beginnings = [...new Set(texts.map((text) => escaped(text[0])))].join('');
    known = {texts, pattern: new RegExp(`(?=[${beginnings}])(?:${texts.map(escaped).join('|')})`, 'g')};
    hiddenOf.set(tokenizer, known);
  }
  return known;
}
