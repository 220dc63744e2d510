import {existsSync, openAsBlob} from 'node:fs';
import {basename} from 'node:path';
import type {CheckpointFile} from '../../runner/llama/checkpoint_file';

const NAMES = ['smollm2', 'qwen2.5-coder-0.5b'] as const;

export type ModelName = (typeof NAMES)[number];

/** The real models that are in the folder that `run.ts` was given. */
export function realModels(): {name: ModelName; path: string}[] {
  return NAMES.map((name) => ({name, path: `${process.env.REAL_MODELS}/${name}.gguf`})).filter(({path}) =>
    existsSync(path),
  );
}

/** A file that is read where it is asked for, not whole. */
export async function openModel(path: string): Promise<CheckpointFile> {
  const blob = await openAsBlob(path);
  return {name: basename(path), size: blob.size, slice: (start, end) => blob.slice(start, end)};
}
