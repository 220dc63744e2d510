import {openAsBlob, readdirSync, statSync} from 'node:fs';
import {basename, join} from 'node:path';
import type {Tokenizer} from '@huggingface/tokenizers';
import {openCheckpoint} from '../runner/llama/checkpoint';
import type {CheckpointFile} from '../runner/llama/checkpoint_file';
import {LlamaModel} from '../runner/llama/model';
import {createTokenizer} from '../runner/tokenizer';

/** A model on the current backend, and what turns text into its tokens. */
export interface LocalModel {
  model: LlamaModel;
  tokenizer: Tokenizer;
}

/** Loads a model of this machine for contexts of so many tokens: `path` as of {@link openModelFiles}. */
export async function openLocalModel(path: string, maxLength: number): Promise<LocalModel> {
  const checkpoint = await openCheckpoint(await openModelFiles(path));
  const {maxPositions} = checkpoint.config;
  if (maxLength > maxPositions) throw new Error(`--lengths has ${maxLength}; accepted: at most ${maxPositions}`);
  return {
    model: await LlamaModel.load(checkpoint, {maxLength}),
    tokenizer: createTokenizer(checkpoint.tokenizer),
  };
}

/** The files of a model: one `.gguf`, or those of a folder in Hugging Face's form. */
export async function openModelFiles(path: string): Promise<CheckpointFile[]> {
  const paths = statSync(path).isDirectory()
    ? readdirSync(path)
        .filter((name) => /\.(json|safetensors)$/.test(name))
        .map((name) => join(path, name))
    : [path];
  return Promise.all(paths.map(openFile));
}

/** A file that is read where it is asked for: weights can be longer than the longest `ArrayBuffer`. */
async function openFile(path: string): Promise<CheckpointFile> {
  const blob = await openAsBlob(path);
  return {name: basename(path), size: blob.size, slice: (start, end) => blob.slice(start, end)};
}
