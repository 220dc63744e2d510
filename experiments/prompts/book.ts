import type {Tokenizer} from '@huggingface/tokenizers';
import {SENTENCE_END} from '../../demo/passage';
import {encode} from '../../runner/tokenizer';

/**
 * A book as tokens, with the places where prompts may begin and facts may be inserted. Encoded once: a run makes hundreds
 * of prompts of it.
 */
export interface Book {
  name: string;
  ids: number[];
  /** Token indices at which a paragraph of prose begins, ascending. */
  paragraphs: number[];
  /** Token indices at which a sentence has ended inside a paragraph, ascending. */
  boundaries: number[];
}

/** Where prose is meant, headings and verse are not. */
const SHORTEST_PARAGRAPH = 80;

export function readBook(tokenizer: Tokenizer, name: string, text: string): Book {
  const ids: number[] = [];
  const paragraphs: number[] = [];
  const boundaries: number[] = [];
  const add = (piece: string) => {
    if (piece !== '') ids.push(...encode(tokenizer, piece));
  };
  let end = 0;
  for (const {index, 0: paragraph} of text.matchAll(/(?<=\n\r?\n|^)["']?[A-Z][^\n]*\S/g)) {
    if (paragraph.length < SHORTEST_PARAGRAPH) continue;
    // In front of a word the tokenizer takes the last line break by itself.
    add(text.slice(end, Math.max(end, index - 1)));
    add(text.slice(Math.max(end, index - 1), index));
    paragraphs.push(ids.length);
    end = index;
    // Tokens never span the end of a sentence, where a word with its leading space begins: encoding sentence by sentence
    // gives the ids of the whole.
    for (const sentence of paragraph.matchAll(SENTENCE_END)) {
      const sentenceEnd = index + sentence.index + sentence[0].length;
      add(text.slice(end, sentenceEnd));
      boundaries.push(ids.length);
      end = sentenceEnd;
    }
    add(text.slice(end, index + paragraph.length));
    end = index + paragraph.length;
  }
  add(text.slice(end));
  return {name, ids, paragraphs, boundaries};
}

export interface Passage {
  ids: number[];
  /** Ends of sentences, as numbers of tokens before them, ascending. */
  boundaries: number[];
}

/** Tokens of a book from a paragraph on. `choice` in [0, 1) picks the paragraph among those with enough text after them. */
export function passage(book: Book, choice: number, length: number): Passage {
  const starts = book.paragraphs.filter((start) => start + length <= book.ids.length);
  if (starts.length === 0) {
    throw new Error(`${book.name} has ${book.ids.length} tokens; too few for a passage of ${length}`);
  }
  const start = starts[Math.floor(choice * starts.length)];
  return {
    ids: book.ids.slice(start, start + length),
    boundaries: book.boundaries.filter((at) => at > start && at < start + length).map((at) => at - start),
  };
}
