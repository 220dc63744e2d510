import {openAsBlob, readdirSync} from 'node:fs';
import {join} from 'node:path';
import type {Tokenizer} from '@huggingface/tokenizers';
import {openCheckpoint} from '../../runner/llama/checkpoint';
import {LlamaModel} from '../../runner/llama/model';
import {createTokenizer} from '../../runner/tokenizer';

/** A model on the current backend, and what turns text into its tokens. */
export interface RealModel {
  model: LlamaModel;
  tokenizer: Tokenizer;
}

/** Loads the Hugging Face-style checkpoint of a folder for contexts of so many tokens. */
export async function openFolder(folder: string, maxLength: number): Promise<RealModel> {
  const names = readdirSync(folder).filter((name) => /\.(json|safetensors)$/.test(name));
  const files = await Promise.all(
    names.map(async (name) => {
      // Weights can be longer than the longest ArrayBuffer, so they are read in slices.
      const blob = await openAsBlob(join(folder, name));
      return {name, size: blob.size, slice: (start: number, end: number) => blob.slice(start, end)};
    }),
  );
  const checkpoint = await openCheckpoint(files);
  const {maxPositions} = checkpoint.config;
  if (maxLength > maxPositions) throw new Error(`--lengths has ${maxLength}; accepted: at most ${maxPositions}`);
  return {
    model: await LlamaModel.load(checkpoint, {maxLength}),
    tokenizer: createTokenizer(checkpoint.tokenizer),
  };
}
