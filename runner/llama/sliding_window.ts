import type {Traits} from './architectures';
import type {Fields} from './config_fields';

/** Attention to the last tokens alone, in some layers or in all. */
export interface SlidingWindow {
  /** That a row of such a layer sees, its own included. */
  tokens: number;
  /** Whether each layer has it; or all have it from the layer `first` on, but for every `fullEvery`th of the model. */
  layers: readonly boolean[] | {first: number; fullEvery: number};
}

export const EVERY_LAYER: SlidingWindow['layers'] = {first: 0, fullEvery: Infinity};

/** Of Mistral, Qwen2, Qwen3 and Gemma 3 in transformers; the second of Qwen2 and Qwen3, the last of Gemma 3. */
const [DEFAULT_WINDOW, DEFAULT_FIRST_LAYER] = [4096, 28];
export const GEMMA_FULL_EVERY = 6;

/** Tokens that a row of a layer sees; nothing where it sees all. */
export function windowOf({slidingWindow}: {slidingWindow: SlidingWindow | null}, layer: number): number | undefined {
  if (slidingWindow === null) return undefined;
  const {tokens, layers} = slidingWindow;
  const slides = 'first' in layers ? layer >= layers.first && (layer + 1) % layers.fullEvery !== 0 : layers[layer];
  return slides ? tokens : undefined;
}

/**
 * The window of the layers that have one; null where every layer sees all.
 *
 * @param kind that of the architecture.
 * @throws Error that names the field, what it holds and what is accepted.
 */
export function parseSlidingWindow(fields: Fields, kind: Traits['window']): SlidingWindow | null {
  const types = layerTypes(fields);
  const slides = types?.includes(true);
  switch (kind) {
    case 'none':
      if (slides) throw fields.unaccepted('layer_types', 'a list of "full_attention" alone');
      // transformers leaves it unread; a checkpoint that names a window was trained with it.
      if (types === null && fields.boolean('use_sliding_window', true)) fields.acceptOnly('sliding_window', [null]);
      return null;
    case 'always': {
      const tokens = windowLength(fields);
      return tokens === null ? null : {tokens, layers: EVERY_LAYER};
    }
    case 'if used': {
      const tokens = fields.boolean('use_sliding_window', false) ? windowLength(fields) : null;
      if (slides && tokens === null) {
        throw fields.unaccepted('layer_types', 'a list of "full_attention" alone, without a window');
      }
      const first = fields.count('max_window_layers', DEFAULT_FIRST_LAYER);
      if (tokens === null || !(slides ?? first < fields.positiveInteger('num_hidden_layers'))) return null;
      return {tokens, layers: types ?? {first, fullEvery: Infinity}};
    }
    case 'alternating': {
      const tokens = windowLength(fields);
      if (tokens === null) throw fields.unaccepted('sliding_window', 'a positive integer');
      if (types !== null) return {tokens, layers: types};
      const fullEvery = fields.positiveInteger('sliding_window_pattern', GEMMA_FULL_EVERY);
      // transformers writes it beside `layer_types`, and reads it by the other name.
      fields.acceptOnly('_sliding_window_pattern', [fullEvery]);
      return {tokens, layers: {first: 0, fullEvery}};
    }
  }
}

function windowLength(fields: Fields): number | null {
  return fields.json.sliding_window === null ? null : fields.positiveInteger('sliding_window', DEFAULT_WINDOW);
}

/** Whether each layer slides, where the file lists it. */
function layerTypes(fields: Fields): boolean[] | null {
  const {layer_types: types} = fields.json;
  if (types === undefined || types === null) return null;
  const known = (type: unknown) => type === 'full_attention' || type === 'sliding_attention';
  if (!Array.isArray(types) || !types.every(known)) {
    throw fields.unaccepted('layer_types', 'a list of "full_attention", "sliding_attention"');
  }
  const layers = fields.positiveInteger('num_hidden_layers');
  if (types.length !== layers) throw fields.unaccepted('layer_types', `one for each of ${layers} layers`);
  return types.map((type) => type === 'sliding_attention');
}
