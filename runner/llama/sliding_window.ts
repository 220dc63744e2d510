import type {Traits} from './architectures';
import type {Fields} from './config_fields';

/** Of Mistral, Qwen2 and Qwen3 in transformers; the second of the last two. */
const [DEFAULT_WINDOW, DEFAULT_FIRST_LAYER] = [4096, 28];

/**
 * The window over which some layer attends, in tokens, its own included; null where every layer sees all.
 *
 * @param kind that of the architecture.
 * @throws Error that names the field, what it holds and what is accepted.
 */
export function parseSlidingWindow(fields: Fields, kind: Traits['window']): number | null {
  const types = layerTypes(fields);
  const slides = types?.includes('sliding_attention');
  switch (kind) {
    case 'none':
      if (slides) throw fields.unaccepted('layer_types', 'a list of "full_attention" alone');
      // transformers leaves it unread; a checkpoint that names a window was trained with it.
      if (types === null && fields.boolean('use_sliding_window', true)) fields.acceptOnly('sliding_window', [null]);
      return null;
    case 'always':
      return windowLength(fields);
    case 'if used': {
      const window = fields.boolean('use_sliding_window', false) ? windowLength(fields) : null;
      if (slides && window === null) {
        throw fields.unaccepted('layer_types', 'a list of "full_attention" alone, without a window');
      }
      return window !== null && (slides ?? slidesFromSomeLayer(fields)) ? window : null;
    }
  }
}

function slidesFromSomeLayer(fields: Fields): boolean {
  return fields.count('max_window_layers', DEFAULT_FIRST_LAYER) < fields.positiveInteger('num_hidden_layers');
}

function windowLength(fields: Fields): number | null {
  return fields.json.sliding_window === null ? null : fields.positiveInteger('sliding_window', DEFAULT_WINDOW);
}

/** What each layer does, where the file lists it. */
function layerTypes(fields: Fields): string[] | null {
  const {layer_types: types} = fields.json;
  if (types === undefined || types === null) return null;
  const known = (type: unknown) => type === 'full_attention' || type === 'sliding_attention';
  if (!Array.isArray(types) || !types.every(known)) {
    throw fields.unaccepted('layer_types', 'a list of "full_attention", "sliding_attention"');
  }
  return types as string[];
}
