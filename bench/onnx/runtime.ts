import {createRequire} from 'node:module';
import {join} from 'node:path';

/** The part of onnxruntime-node that the benchmark calls: the package is optional and large, its types come with it. */
export interface OnnxRuntime {
  env: {versions: {node?: string; common?: string}};
  InferenceSession: {
    create(model: Uint8Array, options: SessionOptions): Promise<OnnxSession>;
  };
}

export interface OnnxSession {
  run(feeds: Record<string, never>): Promise<Record<string, {data: Float32Array | Uint16Array}>>;
  release(): Promise<void>;
}

export interface SessionOptions {
  executionProviders: string[];
  graphOptimizationLevel: 'disabled';
  /** 4 is what ends the process: errors arrive as exceptions. */
  logSeverityLevel: number;
  extra?: {session: Record<string, string>};
}

/** Loads `onnxruntime-node`, or the package at `ORT_PATH`. */
export function loadOnnxRuntime(): OnnxRuntime {
  const load = createRequire(join(process.cwd(), 'bench'));
  try {
    return load(process.env.ORT_PATH ?? 'onnxruntime-node') as OnnxRuntime;
  } catch (error) {
    const message = (error as Error).message.split('\n')[0];
    throw new Error(`${message}; npm install --no-save --ignore-scripts onnxruntime-node`, {cause: error});
  }
}
