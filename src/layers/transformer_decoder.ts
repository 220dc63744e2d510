import type {Tensor} from '@tensorflow/tfjs-core';
import {scalar} from '@tensorflow/tfjs-core';
import type {Layer} from '@tensorflow/tfjs-layers/dist/engine/topology.js';
import {check} from '../ops/check_arguments.js';
import type {MultiHeadAttentionLayer} from './multi_head_attention.js';
import {asCausalMask, classesUpTo} from './multi_head_attention.js';

const op = 'usePBSAttention';

/** What of tfjs-layers 4.22's `TransformerDecoder` is used here; it is not exported. */
interface TransformerDecoderLayer extends Layer {
  selfAttentionLayer?: MultiHeadAttentionLayer;
  computeSelfAttentionMask(
    sequence: Tensor,
    paddingMask?: Tensor,
    attentionMask?: Tensor,
    useCausalMask?: boolean,
    cache?: Tensor,
  ): Tensor | undefined;
}

/** Why the attention of a layer must stay: a decoder with a mask of its own is no plain causal attention. */
export function whyNotDecoder(owner: Layer, attention: MultiHeadAttentionLayer): string | undefined {
  const decoder = decoderOf(owner, attention);
  const base = classesUpTo('TransformerDecoder', owner).at(-1);
  const overrides = decoder !== undefined && decoder.computeSelfAttentionMask !== base?.computeSelfAttentionMask;
  return overrides ? `its decoder ${owner.name} overrides computeSelfAttentionMask` : undefined;
}

/** The owner of attention, if it is a `TransformerDecoder` or of a class that extends it, and attends by that. */
function decoderOf(owner: Layer, attention: MultiHeadAttentionLayer): TransformerDecoderLayer | undefined {
  const decoder = owner as TransformerDecoderLayer;
  const isDecoder = classesUpTo('TransformerDecoder', owner).length > 0;
  return isDecoder && decoder.selfAttentionLayer === attention ? decoder : undefined;
}

/**
 * A `TransformerDecoder` hands its attention a mask of `length²` values, in which nobody can see any more that it is
 * causal. Puts one value in its place that stands for it, and refuses the other masks. Returns the way back, which does
 * nothing where the owner of the attention is another layer.
 */
export function replaceDecoderMask(owner: Layer, attention: MultiHeadAttentionLayer): () => void {
  const decoder = decoderOf(owner, attention);
  if (!decoder) {
    return () => {};
  }
  decoder.computeSelfAttentionMask = (_sequence, paddingMask, attentionMask, useCausalMask, cache) => {
    const refused = {decoderPaddingMask: paddingMask, decoderAttentionMask: attentionMask, selfAttentionCache: cache};
    for (const [name, value] of Object.entries(refused)) {
      check(value == null, op, name, `got one in a call of ${decoder.name}`, 'useCausalMask or no mask, and no cache');
    }
    return useCausalMask ? asCausalMask(scalar(1, 'bool')) : undefined;
  };
  return () => {
    delete (decoder as Partial<TransformerDecoderLayer>).computeSelfAttentionMask;
  };
}
