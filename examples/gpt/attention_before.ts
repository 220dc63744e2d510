import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {add, linalg, matMul, mul, ones, reshape, softmax, split, sub, tidy, transpose} from '@tensorflow/tfjs-core';
import type {LayerVariable} from '@tensorflow/tfjs-layers';
import {initializers, layers} from '@tensorflow/tfjs-layers';

export interface CausalSelfAttentionArgs {
  name: string;
  heads: number;
}

/** Self-attention of a GPT: `[batch, tokens, features]` → the same. */
export class CausalSelfAttention extends layers.Layer {
  static className = 'CausalSelfAttentionBefore';
  private readonly heads: number;
  private project!: {kernel: LayerVariable; bias: LayerVariable};
  private merge!: {kernel: LayerVariable; bias: LayerVariable};

  constructor({name, heads}: CausalSelfAttentionArgs) {
    super({name});
    this.heads = heads;
  }

  override build([, , features]: number[]): void {
    const weights = (name: string, units: number) => ({
      kernel: this.addWeight(`${name}_kernel`, [features, units], 'float32', initializers.glorotUniform({seed: 1})),
      bias: this.addWeight(`${name}_bias`, [units], 'float32', initializers.zeros()),
    });
    this.project = weights('project', 3 * features);
    this.merge = weights('merge', features);
    super.build([null, null, features]);
  }

  override computeOutputShape(shape: number[]): number[] {
    return shape;
  }

  override call(inputs: Tensor | Tensor[]): Tensor {
    return tidy(() => {
      const x = Array.isArray(inputs) ? inputs[0] : inputs;
      const [batch, tokens, features] = x.shape;
      const headDim = features / this.heads;
      const [query, key, value] = split(dense(x, this.project), 3, -1).map(
        (part) => transpose(reshape(part, [batch, tokens, this.heads, headDim]), [0, 2, 1, 3]) as Tensor4D,
      );

      const scores = mul(matMul(query, key, false, true), 1 / Math.sqrt(headDim));
      const visible = linalg.bandPart(ones([tokens, tokens]), -1, 0);
      const masked = add(scores, mul(sub(1, visible), -1e9));
      const attended = matMul(softmax(masked), value);

      return dense(reshape(transpose(attended, [0, 2, 1, 3]), x.shape), this.merge);
    });
  }
}

function dense(x: Tensor, {kernel, bias}: {kernel: LayerVariable; bias: LayerVariable}): Tensor {
  const [batch, tokens, features] = x.shape;
  const y = matMul(reshape(x, [batch * tokens, features]), kernel.read());
  return add(reshape(y, [batch, tokens, -1]), bias.read());
}
