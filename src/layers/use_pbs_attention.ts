import type {LayersModel} from '@tensorflow/tfjs-layers';
import type {Layer} from '@tensorflow/tfjs-layers/dist/engine/topology.js';
import type {MultiHeadAttention} from '@tensorflow/tfjs-layers/dist/layers/nlp/multihead_attention.js';
import {check, pbsAttentionSettings, refuseForm} from '../ops/check_arguments.js';
import type {PBSAttentionSettings} from '../ops/options.js';
import type {MultiHeadAttentionLayer} from './multi_head_attention.js';
import {asMultiHeadAttention, replaceAttention, whyNot} from './multi_head_attention.js';
import {replaceDecoderMask, whyNotDecoder} from './transformer_decoder.js';

const op = 'usePBSAttention';

/** Options of `pbsAttention` but `causal` and `scale`, which a call of the layer decides. */
export type UsePBSAttentionOptions = Omit<PBSAttentionSettings, 'causal' | 'scale' | 'window' | 'softCap'>;

/** An attention layer that keeps its own attention. */
export interface LayerLeft {
  /** Its path: the layer's name, then the properties that lead to it. */
  layer: string;
  /** What of it `pbsAttention` cannot do. */
  reason: string;
}

/** What {@link usePBSAttention} did. */
export interface PBSAttentionInUse {
  /** Paths of the layers that now attend with `pbsAttention`, such as `transformer_layer_0.selfAttentionLayer`. */
  replaced: string[];
  /** The attention layers that were left as they are, and why. */
  left: LayerLeft[];
  /** The way back: every layer attends as before. */
  restore(): void;
}

/** Layers whose attention is replaced, so that none is replaced twice. */
const inUse = new WeakSet<object>();

/**
 * Makes every `MultiHeadAttention` of a model attend with `pbsAttention`, in place: in the layers of the model, in nested
 * models, and in properties of custom layers, such as the decoders of `GPT2Backbone`. Weights, names and `getConfig` stay,
 * so the model is saved and loaded as before. With `threshold: 1` the outputs are those of the layers themselves.
 *
 * ```js
 * const {restore} = usePBSAttention(model, {threshold: 0.9});
 * ```
 *
 * A call decides whether attention is causal (`useCausalMask`). What `pbsAttention` cannot do is refused when the layer is
 * called, with an error that names it: masks that are not causal, another key length, attention scores as a second
 * output, dropout while training, a key/value cache.
 *
 * @param model a `LayersModel`, or one layer.
 * @param options see {@link UsePBSAttentionOptions}: `threshold = 0.9`, `blockSize = 128`, `segmentSize = 256`, …
 * @returns what was replaced, what was left and why, and the way back.
 * @throws Error if the model is none, has no `MultiHeadAttention`, or uses `pbsAttention` already; if an option is not one
 *     that `pbsAttention` takes. Nothing has been replaced then.
 */
export function usePBSAttention(
  model: LayersModel | Layer | MultiHeadAttention,
  options: UsePBSAttentionOptions = {},
): PBSAttentionInUse {
  check(isLayer(model), op, 'model', `got ${typeof model}`, 'a LayersModel or a Layer');
  refuseForm(op, options, 'a call of the layer decides');
  pbsAttentionSettings(op, options, 1);

  const found: Array<{path: string; layer: MultiHeadAttentionLayer; decoder?: Layer}> = [];
  const left: LayerLeft[] = [];
  for (const {path, layer, owner} of layersWithin(model as Layer)) {
    const attention = asMultiHeadAttention(layer);
    if (!attention) {
      continue;
    }
    const got = `got ${path}, which uses pbsAttention already`;
    check(!inUse.has(attention), op, 'model', got, 'a model after restore()');
    const reason = whyNot(attention) ?? (owner && whyNotDecoder(owner, attention));
    if (reason) {
      left.push({layer: path, reason});
    } else {
      found.push({path, layer: attention, decoder: owner});
    }
  }
  const count = found.length + left.length;
  check(count > 0, op, 'model', `got '${model.name}' without MultiHeadAttention`, 'a built model that has some');

  const undo: Array<() => void> = [];
  for (const {layer, decoder} of found) {
    inUse.add(layer);
    undo.push(() => inUse.delete(layer), replaceAttention(layer, options));
    if (decoder) {
      undo.push(replaceDecoderMask(decoder, layer));
    }
  }
  return {replaced: found.map(({path}) => path), left, restore: () => undo.splice(0).forEach((step) => step())};
}

/** A layer and every layer that it holds: a model's own, and those in properties and arrays of layers. */
function* layersWithin(
  layer: Layer,
  path = '',
  seen = new Set<unknown>(),
  owner?: Layer,
): Generator<{path: string; layer: Layer; owner?: Layer}> {
  if (seen.has(layer)) {
    return;
  }
  seen.add(layer);
  yield {path: path || layer.name, layer, owner};
  const isModel = Array.isArray((layer as {layers?: unknown}).layers);
  if (isModel) {
    for (const part of (layer as unknown as {layers: Layer[]}).layers) {
      yield* layersWithin(part, path ? `${path}.${part.name}` : part.name, seen, layer);
    }
  }
  for (const [property, value] of Object.entries(layer)) {
    const parts = Array.isArray(value) ? value : [value];
    for (const [index, part] of parts.entries()) {
      if (isLayer(part)) {
        const name = Array.isArray(value) ? `${property}.${index}` : property;
        yield* layersWithin(part, `${path || layer.name}.${name}`, seen, layer);
      }
    }
  }
}

// By what it has, not by instanceof: in Node, tfjs-layers exists twice, as its bundle and as its files.
function isLayer(value: unknown): value is Layer {
  const layer = value as Layer | null;
  return (
    typeof layer === 'object' &&
    layer !== null &&
    typeof layer.getClassName === 'function' &&
    typeof layer.apply === 'function' &&
    typeof layer.call === 'function'
  );
}
