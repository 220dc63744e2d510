// tfjs-layers' attention calls methods of tensors, which the package @tensorflow/tfjs would register.
import '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops';
import type {Tensor} from '@tensorflow/tfjs-core';
import {serialization} from '@tensorflow/tfjs-core';
import type {LayerArgs} from '@tensorflow/tfjs-layers/dist/engine/topology';
import {Layer} from '@tensorflow/tfjs-layers/dist/engine/topology';
import type {Shape} from '@tensorflow/tfjs-layers/dist/keras_format/common';
import {MultiHeadAttention} from '@tensorflow/tfjs-layers/dist/layers/nlp/multihead_attention';

/** A model author's layer around `MultiHeadAttention`, which tfjs 4.22 cannot run as a layer of a model by itself. */
export class SelfAttention extends Layer {
  static className = 'SelfAttention';
  readonly attention: MultiHeadAttention;

  constructor(private readonly args: LayerArgs & {causal: boolean}) {
    super(args);
    this.attention = new MultiHeadAttention({numHeads: 2, keyDim: 8});
  }

  override build(inputShape: Shape): void {
    this.attention.buildFromSignature(inputShape, inputShape);
    super.build(inputShape);
  }

  override call(inputs: Tensor | Tensor[]): Tensor {
    const x = Array.isArray(inputs) ? inputs[0] : inputs;
    return this.attention.call(x, {value: x, useCausalMask: this.args.causal});
  }

  override getConfig(): serialization.ConfigDict {
    return {...super.getConfig(), causal: this.args.causal};
  }
}
serialization.registerClass(SelfAttention);
