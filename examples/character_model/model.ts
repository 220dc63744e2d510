import type {Scalar, Tensor, Tensor2D, Tensor3D, Tensor4D, Variable} from '@tensorflow/tfjs-core';
import {
  add,
  logSoftmax,
  matMul,
  mean,
  mul,
  neg,
  oneHot,
  randomNormal,
  relu,
  reshape,
  rsqrt,
  slice,
  square,
  sum,
  transpose,
  variable,
} from '@tensorflow/tfjs-core';

/** Causal attention on `[batch, heads, length, headDim]`. */
export type Attention = (query: Tensor4D, key: Tensor4D, value: Tensor4D) => Tensor4D;

export interface ModelShape {
  vocabulary: number;
  /** Longest text, in characters. */
  length: number;
  layers: number;
  heads: number;
  headDim: number;
}

/** Examples of text as numbers of characters: int32 `[batch, length]`, and in `next` the characters that follow each. */
export interface Batch {
  characters: Tensor2D;
  next: Tensor2D;
}

/** A decoder-only transformer over characters, of tfjs-core's ops alone; which attention it runs on is an argument. */
export class CharacterModel {
  readonly variables: Variable[] = [];
  private readonly width: number;
  private readonly embedding: Variable;
  private readonly positions: Variable;
  private readonly layers: Array<Record<'qkv' | 'out' | 'up' | 'down', Variable>>;

  /** Weights are the same for the same seed. */
  constructor(
    private readonly shape: ModelShape,
    private readonly attention: Attention,
    private seed: number,
  ) {
    const {vocabulary, length, layers, heads, headDim} = shape;
    this.width = heads * headDim;
    this.embedding = this.weights(vocabulary, this.width, 0.1);
    this.positions = this.weights(length, this.width, 0.1);
    const project = (from: number, to: number) => this.weights(from, to, 1 / Math.sqrt(from));
    this.layers = Array.from({length: layers}, () => ({
      qkv: project(this.width, 3 * this.width),
      out: project(this.width, this.width),
      up: project(this.width, 4 * this.width),
      down: project(4 * this.width, this.width),
    }));
  }

  /** Mean negative log-likelihood of the next characters, in nats. */
  loss({characters, next}: Batch): Scalar {
    const {vocabulary} = this.shape;
    const wanted = oneHot(reshape(next, [-1]), vocabulary, 1, 0, 'float32');
    return neg(mean(sum(mul(wanted, logSoftmax(this.logits(characters))), -1))) as Scalar;
  }

  dispose(): void {
    this.variables.forEach((x) => x.dispose());
  }

  /** `[batch * length, vocabulary]`. */
  private logits(characters: Tensor2D): Tensor2D {
    const [batch, length] = characters.shape;
    const {vocabulary} = this.shape;
    const symbols = oneHot(reshape(characters, [-1]), vocabulary, 1, 0, 'float32');
    const embedded = reshape(matMul(symbols, this.embedding as Tensor as Tensor2D), [batch, length, this.width]);
    let x = add(embedded, slice(this.positions as Tensor as Tensor2D, [0, 0], [length, this.width])) as Tensor3D;
    for (const layer of this.layers) {
      x = add(x, this.attend(normalise(x), layer.qkv, layer.out)) as Tensor3D;
      x = add(x, project(relu(project(normalise(x), layer.up)), layer.down)) as Tensor3D;
    }
    const rows = reshape(normalise(x), [batch * length, this.width]) as Tensor2D;
    return matMul(rows, this.embedding as Tensor as Tensor2D, false, true);
  }

  private attend(x: Tensor3D, qkv: Variable, out: Variable): Tensor3D {
    const [batch, length] = x.shape;
    const {heads, headDim} = this.shape;
    const projected = reshape(project(x, qkv), [batch, length, 3, heads, headDim]);
    const byHead = transpose(projected, [2, 0, 3, 1, 4]);
    const [query, key, value] = [0, 1, 2].map(
      (i) => reshape(slice(byHead, [i, 0, 0, 0, 0], [1, -1, -1, -1, -1]), [batch, heads, length, headDim]) as Tensor4D,
    );
    const attended = transpose(this.attention(query, key, value), [0, 2, 1, 3]);
    return project(reshape(attended, [batch, length, this.width]), out);
  }

  private weights(rows: number, columns: number, deviation: number): Variable {
    const weights = variable(randomNormal([rows, columns], 0, deviation, 'float32', this.seed++));
    this.variables.push(weights);
    return weights;
  }
}

function project(x: Tensor3D, weights: Variable): Tensor3D {
  const [batch, length, width] = x.shape;
  const rows = reshape(x, [batch * length, width]) as Tensor2D;
  return reshape(matMul(rows, weights as Tensor as Tensor2D), [batch, length, weights.shape[1]!]);
}

/** RMS norm without weights. */
function normalise(x: Tensor3D): Tensor3D {
  return mul(x, rsqrt(add(mean(square(x), -1, true), 1e-5))) as Tensor3D;
}
