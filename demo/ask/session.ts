import {Tokenizer} from '@huggingface/tokenizers';
import {openCheckpoint} from '../llama/checkpoint';
import {LlamaModel} from '../llama/model';
import type {Backend} from '../backend';
import {MAX_ANSWER_TOKENS} from './ask';

/** Everything that answering takes, loaded once. */
export interface Session {
  backend: Backend;
  model: LlamaModel;
  tokenizer: Tokenizer;
  book: string;
}

const MODEL = ['config.json', 'tokenizer.json', 'model.safetensors'].map((name) => `model/${name}`);
const BOOK = 'books/dubliners.txt';

/**
 * Fetches model and book and puts the weights on the backend.
 *
 * @param base address of the folder that holds `model/` and `books/`.
 * @param onProgress bytes so far, and bytes in all: they grow together until every file has answered.
 */
export async function loadSession(
  backend: Backend,
  base: URL,
  onProgress: (loaded: number, total: number) => void,
): Promise<Session> {
  const sizes = new Map<string, {loaded: number; total: number}>();
  const fetchFile = (path: string) =>
    download(new URL(path, base), (loaded, total) => {
      sizes.set(path, {loaded, total});
      const all = [...sizes.values()];
      onProgress(
        all.reduce((sum, size) => sum + size.loaded, 0),
        all.reduce((sum, size) => sum + size.total, 0),
      );
    });
  const [book, ...model] = await Promise.all([BOOK, ...MODEL].map(fetchFile));
  const checkpoint = await openCheckpoint(model);
  // A prompt may fill the context that the model was trained for, and still needs its answer.
  const maxLength = checkpoint.config.maxPositions + MAX_ANSWER_TOKENS;
  return {
    backend,
    model: await LlamaModel.load(checkpoint, {maxLength}),
    tokenizer: createTokenizer(checkpoint.tokenizer),
    book: await book.text(),
  };
}

/** A tokenizer whose `decode` gives back exactly the text that was encoded. */
export function createTokenizer(json: object): Tokenizer {
  return new Tokenizer(json, {clean_up_tokenization_spaces: false});
}

async function download(url: URL, onProgress: (loaded: number, total: number) => void): Promise<File> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new Error(`${url.pathname} could not be loaded: ${(error as Error).message}`, {cause: error});
  }
  if (!response.ok || response.body === null) {
    throw new Error(`${url.pathname} could not be loaded: the server answered ${response.status}`);
  }
  // A compressed answer says how long it is on the wire, not how long it becomes: then the total is what is there.
  const compressed = response.headers.has('content-encoding');
  const announced = compressed ? 0 : Number(response.headers.get('content-length') ?? 0);
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let loaded = 0;
  const reader = response.body.getReader();
  for (let {done, value} = await reader.read(); !done; {done, value} = await reader.read()) {
    chunks.push(value!);
    loaded += value!.byteLength;
    onProgress(loaded, Math.max(announced, loaded));
  }
  return new File(chunks, url.pathname.split('/').pop()!);
}
