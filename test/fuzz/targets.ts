import type {FuzzTarget} from './fuzz_target';

/** By their names; loaded when they are wanted, as some bring tfjs. */
export const TARGETS: Record<string, () => Promise<FuzzTarget>> = {
  safetensors: async () => (await import('./targets/safetensors')).safetensors,
  gguf: async () => (await import('./targets/gguf')).gguf(),
  config: async () => (await import('./targets/config')).config,
  tokenizer: async () => (await import('./targets/tokenizer')).tokenizer(),
  'chat-template': async () => (await import('./targets/chat_template')).chatTemplates(),
  settings: async () => (await import('./targets/settings')).settings,
  'device-link': async () => (await import('./targets/device_link')).deviceLink,
  rewrite: async () => (await import('./targets/rewrite')).rewrite(),
};
