import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {tidy, transpose} from '@tensorflow/tfjs-core';
import type {Layer} from '@tensorflow/tfjs-layers/dist/engine/topology.js';
import type {Shape} from '@tensorflow/tfjs-layers/dist/keras_format/common.js';
import {check} from '../ops/check_arguments.js';
import type {PBSAttentionSettings} from '../ops/options.js';
import {pbsAttention} from '../ops/pbs_attention.js';

const op = 'usePBSAttention';

/** What of tfjs-layers 4.22's `MultiHeadAttention` and `CachedMultiHeadAttention` is used here; they are not exported. */
export interface MultiHeadAttentionLayer extends Layer {
  readonly keyDim: number;
  readonly valueDim: number;
  readonly dropout: number;
  readonly attentionAxes?: number[];
  readonly builtFromSignature: boolean;
  readonly queryDense: Layer;
  readonly keyDense: Layer;
  readonly valueDense: Layer;
  readonly outputDense: Layer;
  buildFromSignature(queryShape: Shape, valueShape: Shape, keyShape?: Shape | null): void;
  callAndReturnAttentionScores(query: Tensor, args: AttentionCall): [Tensor, Tensor];
  /** `CachedMultiHeadAttention` alone. */
  callAndReturnCache?(query: Tensor, args: CachedAttentionCall): [Tensor, Tensor | undefined];
}

interface AttentionCall {
  value: Tensor;
  key?: Tensor;
  attentionMask?: Tensor;
  training?: boolean;
  useCausalMask?: boolean;
}

interface CachedAttentionCall extends AttentionCall {
  cache?: Tensor;
  cacheUpdateIndex?: number;
}

/** Masks that stand for causal attention: a decoder's, instead of the mask that tfjs would build. */
const causalMasks = new WeakSet<Tensor>();

/** Records that a tensor, given as `attentionMask` to replaced attention, stands for causal attention. */
export function asCausalMask(mask: Tensor): Tensor {
  causalMasks.add(mask);
  return mask;
}

/** The layer, if it is a `MultiHeadAttention` or of a class that extends it. */
export function asMultiHeadAttention(layer: Layer): MultiHeadAttentionLayer | undefined {
  return classesUpTo('MultiHeadAttention', layer).length > 0 ? (layer as MultiHeadAttentionLayer) : undefined;
}

type Methods = Record<string, unknown>;

/** The prototypes of a layer's classes up to tfjs's class of a name, its own first; none if it is no such layer. */
export function classesUpTo(className: string, layer: Layer): Methods[] {
  const classes = [];
  for (let type = Object.getPrototypeOf(layer); type; type = Object.getPrototypeOf(type)) {
    classes.push(type);
  }
  // CachedMultiHeadAttention has no className of its own, so the deepest class of that name is the base.
  const areNamed = classes.map(
    ({constructor: type}) => Object.hasOwn(type, 'className') && type.className === className,
  );
  return classes.slice(0, areNamed.lastIndexOf(true) + 1);
}

/** What together is the attention of `MultiHeadAttention`, which `pbsAttention` stands for. */
const attentionMethods = [
  'computeAttention',
  'maskedSoftmax',
  'computeAttentionMask',
  'computeCausalMask',
  'buildAttention',
  'callAndReturnAttentionScores',
];

/** What of a layer `pbsAttention` cannot do, whatever it is called with. */
export function whyNot(layer: MultiHeadAttentionLayer): string | undefined {
  // Directly below the base stands CachedMultiHeadAttention, where the layer has a cache.
  const [base, below] = classesUpTo('MultiHeadAttention', layer).reverse();
  const own = layer as unknown as Methods;
  const overrides = (name: string, type?: Methods) => own[name] !== type?.[name];
  // CachedMultiHeadAttention overrides call itself, to go through callAndReturnCache.
  const [entry, entryClass] = layer.callAndReturnCache ? ['callAndReturnCache', below] : ['call', base];
  const overridden =
    attentionMethods.find((name) => overrides(name, base)) ?? (overrides(entry, entryClass) ? entry : undefined);
  if (overridden) {
    return `its class overrides ${overridden}`;
  }
  const {attentionAxes} = layer;
  if (attentionAxes && (attentionAxes.length !== 1 || attentionAxes[0] !== 1)) {
    return `attentionAxes [${attentionAxes}]; pbsAttention attends over axis 1`;
  }
  return undefined;
}

/** Puts `pbsAttention` in the place of the layer's attention. Returns the way back. */
export function replaceAttention(layer: MultiHeadAttentionLayer, options: PBSAttentionSettings): () => void {
  const own = layer as unknown as Methods;
  own.callAndReturnAttentionScores = () => {
    check(false, op, layer.name, 'got callAndReturnAttentionScores', 'call: the scores are never built');
  };
  if (layer.callAndReturnCache) {
    own.callAndReturnCache = (query: Tensor, call: CachedAttentionCall) => {
      const isCached = call.cache != null || call.cacheUpdateIndex != null;
      check(!isCached, op, 'cache', `got a call of ${layer.name} with a key/value cache`, 'whole prompts, without one');
      // tfjs reads neither here: it drops nothing out, and masks by attentionMask alone.
      return [attend(layer, query, {...call, training: false, useCausalMask: false}, options), undefined];
    };
  } else {
    own.call = (query: Tensor, call: AttentionCall) => attend(layer, query, call, options);
  }
  return () => {
    delete own.callAndReturnAttentionScores;
    delete own.callAndReturnCache;
    delete own.call;
  };
}

/** The layer's call, with its own projections: `[batch, length, features]` → the same. */
function attend(
  layer: MultiHeadAttentionLayer,
  query: Tensor,
  {value, key, attentionMask, useCausalMask, training}: AttentionCall,
  options: PBSAttentionSettings,
): Tensor {
  const {name} = layer;
  const rank = query.shape.length;
  check(rank === 3, op, 'query', `got [${query.shape}] in ${name}`, '[batch, length, features]');
  const given = `got one in a call of ${name}`;
  const isCausal = useCausalMask === true || (attentionMask !== undefined && causalMasks.has(attentionMask));
  const isOwnMask = attentionMask == null || causalMasks.has(attentionMask);
  check(isOwnMask, op, 'attentionMask', given, 'useCausalMask or no mask');
  for (const x of [query, value]) {
    const mask = (x as {kerasMask?: Tensor}).kerasMask;
    check(mask == null, op, 'mask', `${given} (maskZero of an embedding)`, 'useCausalMask or no mask');
  }
  const lengths = `got a value of length ${value.shape[1]} with a query of length ${query.shape[1]} in ${name}`;
  check(value.shape[1] === query.shape[1], op, 'value', lengths, 'self-attention: one length');
  const drops = training === true && layer.dropout > 0;
  check(!drops, op, 'dropout', `got ${layer.dropout} while training ${name}`, '0 while training');

  if (!layer.builtFromSignature) {
    layer.buildFromSignature(query.shape, value.shape, key ? key.shape : null);
  }
  const {queryDense, keyDense, valueDense, outputDense} = layer;
  return tidy(() => {
    // Projections give [batch, length, heads, headDim].
    const [q, k, v] = [queryDense.apply(query), keyDense.apply(key ?? value), valueDense.apply(value)].map(
      (x) => transpose(x as Tensor, [0, 2, 1, 3]) as Tensor4D,
    );
    const attended = pbsAttention(q, k, v, {...options, causal: isCausal});
    return outputDense.apply(transpose(attended, [0, 2, 1, 3])) as Tensor;
  });
}
