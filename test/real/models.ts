import {existsSync} from 'node:fs';

const NAMES = ['smollm2', 'qwen2.5-coder-0.5b'] as const;

export type ModelName = (typeof NAMES)[number];

/** The real models that are in the folder that `run.ts` was given. */
export function realModels(): {name: ModelName; path: string}[] {
  return NAMES.map((name) => ({name, path: `${process.env.REAL_MODELS}/${name}.gguf`})).filter(({path}) =>
    existsSync(path),
  );
}
