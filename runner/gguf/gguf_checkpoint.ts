import type {CheckpointFile} from '../llama/checkpoint_file';
import {configOfGGUF} from './gguf_config';
import {GGUFFile} from './gguf_file';
import {tokenizerOfGGUF} from './gguf_tokenizer';
import {GGUFWeights} from './gguf_weights';
import type {MetadataValue} from './metadata';

/** A model in one GGUF file; no weight has been read yet. Throws as its parts do. */
export async function openGGUF(file: CheckpointFile) {
  const gguf = await GGUFFile.open(file);
  const parts = /^(.*)-00001-of-(\d+)\.gguf$/.exec(file.name);
  if (parts !== null && Number(parts[2]) > 1) {
    throw new Error(`${file.name}: is the first of ${Number(parts[2])} files; accepted: a model in one file`);
  }
  const config = await configOfGGUF(gguf);
  return {
    config,
    weights: new GGUFWeights(gguf, config),
    tokenizer: tokenizerOfGGUF(gguf.metadata, file.name),
    ...chatOf(gguf.metadata),
  };
}

function chatOf(metadata: ReadonlyMap<string, MetadataValue>) {
  const template = metadata.get('tokenizer.chat_template');
  if (typeof template !== 'string') return {};
  const tokens = metadata.get('tokenizer.ggml.tokens') as string[];
  const tokenOf = (name: string) => {
    const id = metadata.get(`tokenizer.ggml.${name}_token_id`);
    return typeof id === 'number' ? tokens[id] : undefined;
  };
  return {chat: {template, bosToken: tokenOf('bos'), eosToken: tokenOf('eos')}};
}
