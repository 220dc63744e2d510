/** A model that the page offers by name. */
export interface KnownModel {
  name: string;
  /** On the hub, as `parseModelAddress` reads it. */
  address: string;
  bytes: number;
  licence: string;
  parameters: number;
  layers: number;
  keyValueHeads: number;
  headDim: number;
}

const qwen = {bytes: 491e6, licence: 'Apache-2.0', parameters: 494e6, layers: 24, keyValueHeads: 2, headDim: 64};

/** Small chat models, quantised to about 4 bits (Q4_K_M). */
export const KNOWN_MODELS: readonly KnownModel[] = [
  {
    name: 'SmolLM2 135M Instruct',
    address: 'bartowski/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q4_K_M.gguf',
    bytes: 105e6,
    licence: 'Apache-2.0',
    parameters: 135e6,
    layers: 30,
    keyValueHeads: 3,
    headDim: 64,
  },
  {
    name: 'Qwen2.5 0.5B Instruct',
    address: 'Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf',
    ...qwen,
  },
  {
    name: 'Qwen2.5 Coder 0.5B Instruct',
    address: 'Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf',
    ...qwen,
  },
];

export function knownModel(address: string): KnownModel | undefined {
  return KNOWN_MODELS.find((model) => model.address === address);
}
