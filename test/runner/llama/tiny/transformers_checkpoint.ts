import {fixture} from '../../../setup/environment';
import {jsonFile, tinyTokenizer} from './random_checkpoint';

/** Checkpoints that `make.py` makes, by their folder here: what of a decoder each of them has. */
export const CHECKPOINTS = {
  llama_tied: 'Llama, tied head, fields as of SmolLM2',
  llama3: 'Llama, rotary scaling as in Llama 3, untied head',
  llama_biased: 'Llama, all biases, linear scaling, 4 heads on 1, wider than hidden / heads',
  mistral: 'Mistral, a window shorter than the text',
  qwen2: 'Qwen2, biased queries, keys and values, a window that is not used',
  qwen3: 'Qwen3, normed queries and keys, heads wider than hidden / heads',
  qwen3_biased:
    'Qwen3, biased queries and keys, a window in a layer, rotary scaling as in Llama 3, fields of transformers 5',
  gemma3: 'Gemma 3, a window in two layers of three, two rotary bases, fields of transformers 4',
  gemma3_gguf: 'Gemma 3 in GGUF, Q8_0',
  mistral_gguf: 'Mistral in GGUF, Q8_0, a window shorter than the text',
} as const;

export type CheckpointName = keyof typeof CHECKPOINTS;

/** What transformers computed in float32. */
export interface Expected {
  /** The prompt. */
  ids: number[];
  /** Indices into `ids`, rising; the last one is that of the last token. */
  positions: number[];
  /** For each of `positions`, the logits `[vocabSize]` after that token. */
  logits: number[][];
  /** The most likely continuation of the prompt. */
  greedy: number[];
}

/** The files of a checkpoint as the runner takes them, with a `tokenizer.json` that is none. */
export async function checkpointFiles(name: CheckpointName): Promise<File[]> {
  const file = async (part: string) => new File([await fixture(`test/runner/llama/tiny/${name}/${part}`)], part);
  if (name.endsWith('_gguf')) return [await file('model.gguf')];
  return [await file('config.json'), await file('model.safetensors'), jsonFile('tokenizer.json', tinyTokenizer)];
}

export async function expectedOf(name: CheckpointName): Promise<Expected> {
  const bytes = await fixture(`test/runner/llama/tiny/${name}/expected.json`);
  return JSON.parse(new TextDecoder().decode(bytes)) as Expected;
}
