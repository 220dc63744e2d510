import type {Tokenizer} from '@huggingface/tokenizers';
import {createTokenizer} from '../../runner/tokenizer';
import {openCheckpoint} from '../../runner/llama/checkpoint';
import {LlamaModel} from '../../runner/llama/model';
import {type Book, readBook} from '../prompts/book';

/** Reads a file of the repository, by its path from the root. */
export type ReadFile = (path: string) => Promise<ArrayBuffer>;

/** Longest context of the demo's model, and room for an answer. */
const LONGEST = 16_384;
const ANSWER = 8;

const BOOKS = ['dubliners', 'the-scarlet-letter', 'sense-and-sensibility'];

/** The demo's model on the current backend, its tokenizer, and books that it was not trained on. */
export interface Subject {
  model: LlamaModel;
  tokenizer: Tokenizer;
  books: Book[];
}

export async function openSubject(readFile: ReadFile): Promise<Subject> {
  const names = ['config.json', 'tokenizer.json', 'model.safetensors'];
  const files = names.map(async (name) => new File([await readFile(`demo/public/model/${name}`)], name));
  const checkpoint = await openCheckpoint(await Promise.all(files));
  const tokenizer = createTokenizer(checkpoint.tokenizer);
  const books = BOOKS.map(async (name) => {
    return readBook(tokenizer, name, new TextDecoder().decode(await readFile(`demo/public/books/${name}.txt`)));
  });
  return {
    model: await LlamaModel.load(checkpoint, {maxLength: LONGEST + ANSWER}),
    tokenizer,
    books: await Promise.all(books),
  };
}
