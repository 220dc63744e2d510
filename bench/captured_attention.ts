import {clone, keep, type Tensor4D} from '@tensorflow/tfjs-core';
import {createTokenizer} from '../runner/tokenizer';
import {openCheckpoint} from '../runner/llama/checkpoint';
import {LlamaModel} from '../runner/llama/model';

/** Reads a file of the repository, by its path from the root. */
export type ReadFile = (path: string) => Promise<ArrayBuffer>;

/** Query, key and value on the device, `[1, heads, length, headDim]` and `[1, keyValueHeads, length, headDim]`. */
export interface Inputs {
  query: Tensor4D;
  key: Tensor4D;
  value: Tensor4D;
}

/** Longest context of the model, in tokens. */
export const LONGEST_CAPTURE = 16_384;

/** The demo's model on the current backend, and a book as tokens. */
export interface Reader {
  model: LlamaModel;
  layers: number;
  /** The first tokens of the book. */
  tokens: (length: number) => number[];
  /** Query, key and value of every layer while the model reads the first tokens of the book. The caller disposes them. */
  capture: (length: number) => Promise<Inputs[]>;
  dispose: () => void;
}

export async function openReader(readFile: ReadFile): Promise<Reader> {
  const names = ['config.json', 'tokenizer.json', 'model.safetensors'];
  const files = names.map(async (name) => new File([await readFile(`demo/public/model/${name}`)], name));
  const checkpoint = await openCheckpoint(await Promise.all(files));
  const model = await LlamaModel.load(checkpoint, {maxLength: LONGEST_CAPTURE});
  const tokenizer = createTokenizer(checkpoint.tokenizer);
  const book = new TextDecoder().decode(await readFile('demo/public/books/dubliners.txt'));
  const tokens = (length: number) => {
    // Enough text for the length, and not much more: the tokenizer takes seconds for a book.
    const {ids} = tokenizer.encode(book.slice(0, 8 * length + 1000));
    if (ids.length < length) throw new Error(`the book has ${ids.length} tokens; asked for ${length}`);
    return ids.slice(0, length);
  };
  return {
    model,
    layers: checkpoint.config.layers,
    tokens,
    capture: async (length) => {
      const captured: Inputs[] = [];
      const hold = (x: Tensor4D) => keep(clone(x));
      const {logits, cache} = await model.prefill(tokens(length), {
        attention: 'flash',
        onAttention: (_layer, query, key, value) => {
          captured.push({query: hold(query), key: hold(key), value: hold(value)});
        },
      });
      logits.dispose();
      cache.dispose();
      return captured;
    },
    dispose: () => model.dispose(),
  };
}
