import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {add, logicalAnd, matMul, notEqual, reshape, serialization, tidy, transpose} from '@tensorflow/tfjs-core';
import type {LayerArgs} from '@tensorflow/tfjs-layers/dist/engine/topology.js';
import type {Shape} from '@tensorflow/tfjs-layers/dist/keras_format/common.js';
import type {DenseLayerArgs} from '@tensorflow/tfjs-layers/dist/layers/core.js';
import type {Kwargs} from '@tensorflow/tfjs-layers/dist/types.js';
import type {LayerVariable} from '@tensorflow/tfjs-layers/dist/variables.js';
import {layers} from '@tensorflow/tfjs-layers';
import {check, describe, pbsAttentionSettings, refuseForm} from '../ops/check_arguments.js';
import {flashAttention} from '../ops/flash_attention.js';
import {pbsAttention} from '../ops/pbs_attention.js';
import {droppedAttention} from './dropped_attention.js';
import type {KernelArguments} from './kernel_arguments.js';
import {configOf, parsedArguments} from './kernel_arguments.js';
import type {UsePBSAttentionOptions} from './use_pbs_attention.js';

const op = 'MultiHeadAttention';

/** Arguments of the layer: those of every layer, and those of Keras's `MultiHeadAttention` by their names in tfjs. */
export interface MultiHeadAttentionArgs
  extends
    LayerArgs,
    Pick<
      DenseLayerArgs,
      | 'kernelInitializer'
      | 'biasInitializer'
      | 'kernelRegularizer'
      | 'biasRegularizer'
      | 'kernelConstraint'
      | 'biasConstraint'
    > {
  /** Heads. */
  numHeads: number;
  /** Values a row of query and key, of a head. */
  keyDim: number;
  /** Values a row of value, of a head. Default `keyDim`. */
  valueDim?: number;
  /** Share of the weights of attention that is left out while training, from 0 to below 1. Default 0. */
  dropout?: number;
  /** Whether the projections have a bias. Default `true`. */
  useBias?: boolean;
  /** Features of the output: a number, or several dimensions. Default: those of the query. */
  outputShape?: number | number[];
  /** The axes of attention: `[1]` alone, the default, which is what Keras makes of inputs of rank 3. */
  attentionAxes?: number[];
  /** Whether row i attends only to rows 0 to i, as Keras's argument of a call: models of tfjs do not keep those. Default `false`. */
  useCausalMask?: boolean;
  /** Options of `pbsAttention`, with which the layer attends then; `{}` for its defaults. Default: none, exact attention. */
  attention?: UsePBSAttentionOptions;
}

const ownArguments = [
  'numHeads',
  'keyDim',
  'valueDim',
  'dropout',
  'useBias',
  'outputShape',
  'attentionAxes',
  'useCausalMask',
  'attention',
];

/**
 * Keras's `MultiHeadAttention`, which tfjs-layers 4.22 does not export: projections to heads, attention in tiles, and a projection back. Weights are
 * those of Keras in their order: of query, key and value a kernel `[features, numHeads, dim]` and a bias `[numHeads, dim]`, of the output
 * `[numHeads, valueDim, ...outputShape]` and `outputShape`.
 *
 * ```js
 * const x = tf.input({shape: [512, 64]});
 * const attended = new MultiHeadAttention({numHeads: 8, keyDim: 8, useCausalMask: true}).apply([x, x]);
 * ```
 *
 * Inputs: `[query, value]`, `[query, value, key]` or `[query, value, key, attentionMask]`, the value for a key that is not given. Query
 * `[batch, queryLength, features]`, value and key `[batch, keyLength, features]`; the mask `[batch, queryLength, keyLength]` or
 * `[batch, numHeads, queryLength, keyLength]`, dimensions of 1 broadcast, not 0 where a row may attend. In self-attention the mask of an embedding
 * (`maskZero`) hides the values of padding. A row that may attend to nothing gets zeros from attention (in Keras a mean of what is hidden).
 *
 * Registered for serialisation as `PBSMultiHeadAttention`: models that hold it are saved, and loaded once this file is imported. While training with `dropout` the scores are made in full,
 * by tfjs's ops.
 *
 * @throws Error on an argument, an input or a shape that is not of that form; on a mask of an embedding for another value than the query; and on dropout while training with `attention`.
 */
export class MultiHeadAttention extends layers.Layer {
  /** The name under which tfjs-layers saves the layer and finds it again: of the plain one it has a class itself. */
  static className = 'PBSMultiHeadAttention';
  private readonly settings: Required<
    Pick<MultiHeadAttentionArgs, 'numHeads' | 'keyDim' | 'valueDim' | 'dropout' | 'useBias' | 'useCausalMask'>
  > &
    Pick<MultiHeadAttentionArgs, 'attention'> & {outputShape?: number[]};
  private readonly kernels: KernelArguments;
  private readonly variables: Record<string, LayerVariable> = {};

  constructor(args: MultiHeadAttentionArgs) {
    const {name, inputShape, batchInputShape, batchSize, dtype, trainable, weights, inputDType, ...own} = args;
    super({name, inputShape, batchInputShape, batchSize, dtype, trainable, weights, inputDType});
    const {numHeads, keyDim, valueDim = keyDim, dropout = 0, useBias = true, useCausalMask = false} = own;
    const {outputShape, attentionAxes = [1], attention, ...others} = own;
    this.kernels = parsedArguments(op, others, ownArguments);
    const shape = outputShape === undefined ? undefined : [outputShape].flat();
    const sizes = Object.entries({numHeads, keyDim, valueDim}).concat((shape ?? []).map((x) => ['outputShape', x]));
    for (const [of, size] of sizes) {
      check(Number.isSafeInteger(size) && size > 0, op, of, `got ${describe(size)}`, 'a positive integer');
    }
    check(dropout >= 0 && dropout < 1, op, 'dropout', `got ${describe(dropout)}`, 'a number from 0 to below 1');
    for (const [of, value] of Object.entries({useBias, useCausalMask})) {
      check(typeof value === 'boolean', op, of, `got ${describe(value)}`, 'true or false');
    }
    check(String(attentionAxes) === '1', op, 'attentionAxes', `got [${attentionAxes}]`, '[1] or none');
    if (attention !== undefined) {
      refuseForm(op, attention, 'the layer decides');
      pbsAttentionSettings(op, attention, keyDim);
    }
    // So that tfjs asks computeMask, which gets the masks of all inputs; a call gets that of the first alone.
    this.supportsMasking = true;
    const given = {...(shape && {outputShape: shape}), ...(attention && {attention})};
    this.settings = {numHeads, keyDim, valueDim, dropout, useBias, useCausalMask, ...given};
  }

  /** Makes a layer from what `getConfig` returned. */
  static override fromConfig<T extends serialization.Serializable>(
    cls: serialization.SerializableConstructor<T>,
    config: serialization.ConfigDict,
  ): T {
    // Loading a model adds them to the config of every layer.
    const own = {...config};
    delete own['customObjects'];
    return new cls(own);
  }

  override build(inputShape: Shape | Shape[]): void {
    const [query, value, key = value] = checkedShapes(inputShape);
    const {numHeads, keyDim, valueDim} = this.settings;
    const features = [query, key, value].map((shape) => shape[2] ?? NaN);
    check(features.every(Number.isInteger), op, 'inputs', `got [${features}] features`, 'known numbers of features');
    this.addProjection('query', [features[0], numHeads, keyDim], 1);
    this.addProjection('key', [features[1], numHeads, keyDim], 1);
    this.addProjection('value', [features[2], numHeads, valueDim], 1);
    this.addProjection('attention_output', [numHeads, valueDim, ...this.outputShapeOf(query)], 2);
    super.build(inputShape);
  }

  /** @param inputs axes of the kernel that are summed over. */
  private addProjection(name: string, shape: number[], inputs: number): void {
    const {kernelInitializer, kernelRegularizer, kernelConstraint} = this.kernels;
    const {biasInitializer, biasRegularizer, biasConstraint} = this.kernels;
    const kernel = `${name}/kernel`;
    this.variables[kernel] = this.addWeight(
      kernel,
      shape,
      'float32',
      kernelInitializer,
      kernelRegularizer,
      true,
      kernelConstraint,
    );
    if (this.settings.useBias) {
      const bias = `${name}/bias`;
      this.variables[bias] = this.addWeight(
        bias,
        shape.slice(inputs),
        'float32',
        biasInitializer,
        biasRegularizer,
        true,
        biasConstraint,
      );
    }
  }

  override computeOutputShape(inputShape: Shape | Shape[]): Shape {
    const [query] = checkedShapes(inputShape);
    return [...query.slice(0, 2), ...this.outputShapeOf(query)];
  }

  private outputShapeOf(query: Shape): number[] {
    return this.settings.outputShape ?? [query[2]!];
  }

  override call(inputs: Tensor | Tensor[], kwargs: Kwargs): Tensor {
    const tensors = [inputs].flat();
    checkedShapes(tensors.map(({shape}) => shape));
    for (const [name, takes] of Object.entries(callArguments)) {
      check(kwargs?.[name] === undefined, op, name, 'got an argument of the call', takes);
    }
    return tidy(() => {
      this.invokeCallHook(inputs, kwargs);
      const [query, value, key = value] = tensors;
      const [q, k, v] = [this.heads('query', query), this.heads('key', key), this.heads('value', value)];
      const attended = this.attend(q, k, v, maskOf(tensors, kwargs), kwargs?.['training'] === true);
      const rows = transpose(attended, [0, 2, 1, 3]);
      return this.project('attention_output', rows, this.outputShapeOf(query.shape));
    });
  }

  /** `[batch, length, features]` → `[batch, numHeads, length, dim]`. */
  private heads(name: string, x: Tensor): Tensor4D {
    const shape = this.variables[`${name}/kernel`].shape.slice(1) as number[];
    return transpose(this.project(name, x, shape), [0, 2, 1, 3]) as Tensor4D;
  }

  /** A product with a kernel over all axes from the third on, as one of matrices. */
  private project(name: string, x: Tensor, shape: number[]): Tensor {
    const outputs = shape.reduce((a, b) => a * b, 1);
    const [batch, length] = x.shape;
    const kernel = reshape(this.variables[`${name}/kernel`].read(), [-1, outputs]);
    const projected = reshape(matMul(reshape(x, [batch * length, kernel.shape[0]]), kernel), [batch, length, ...shape]);
    return this.settings.useBias ? add(projected, this.variables[`${name}/bias`].read()) : projected;
  }

  private attend(q: Tensor4D, k: Tensor4D, v: Tensor4D, mask: Tensor4D | undefined, training: boolean): Tensor4D {
    const {attention, dropout, useCausalMask: causal} = this.settings;
    const drops = training && dropout > 0;
    if (attention) {
      check(!drops, op, 'dropout', `got ${dropout} while training with the option attention`, '0 while training');
    }
    // As in Keras, row 0 stands at the first key.
    const given = {causal, ...(causal && {queryOffset: 0}), ...(mask && {mask})};
    if (attention) {
      return pbsAttention(q, k, v, {...attention, ...given});
    }
    return drops ? droppedAttention(q, k, v, given, dropout) : flashAttention(q, k, v, given);
  }

  override computeMask(inputs: Tensor | Tensor[], mask?: Tensor | Tensor[]): Tensor | Tensor[] {
    const [query, ...others] = [inputs].flat();
    const [ofQuery, ...masks] = [mask ?? []].flat();
    const isOther = masks.some((of, i) => of != null && others[i] !== query);
    check(!isOther, op, 'mask', ofAnother, takesMask);
    // No mask, which the type of the overridden method leaves out.
    return ofQuery ?? (null as unknown as Tensor);
  }

  override getConfig(): serialization.ConfigDict {
    return {...super.getConfig(), ...this.settings, ...configOf(this.kernels)} as serialization.ConfigDict;
  }
}

serialization.registerClass(MultiHeadAttention);

const ofAnother = 'got that of an embedding of another input than the query';
const takesMask = 'one in self-attention, or the fourth input';
const callArguments = {
  attentionMask: 'a mask as the fourth input, which models keep',
  useCausalMask: 'useCausalMask as an argument of the layer, which models keep',
  returnAttentionScores: 'none: the scores are never built',
};

/** Which keys a row may attend to, by the fourth input and, in self-attention, by the mask of an earlier layer: bool, of rank 4. */
function maskOf(tensors: Tensor[], kwargs: Kwargs): Tensor4D | undefined {
  const [query, value, , given] = tensors;
  const masks: Tensor4D[] = given ? [bool(given, given.shape.length === 3 ? [0, 2, 3] : [0, 1, 2, 3])] : [];
  const ofEmbedding = (x: Tensor) => (x as {kerasMask?: Tensor}).kerasMask;
  const padding = [kwargs?.['mask'] as Tensor | Tensor[] | undefined].flat()[0] ?? ofEmbedding(query);
  check(value === query || ofEmbedding(value) == null, op, 'mask', ofAnother, takesMask);
  if (padding && value === query) {
    masks.push(bool(padding, [0, 3]));
  }
  return masks.length === 2 ? (logicalAnd(masks[0], masks[1]) as Tensor4D) : masks[0];
}

/** @param axes where the mask's axes stand among batch, heads, rows and keys. */
function bool(mask: Tensor, axes: number[]): Tensor4D {
  const shape: [number, number, number, number] = [1, 1, 1, 1];
  axes.forEach((axis, i) => (shape[axis] = mask.shape[i]));
  return reshape(mask.dtype === 'bool' ? mask : notEqual(mask, 0), shape) as Tensor4D;
}

/** The shapes of query, value and maybe key and mask. */
function checkedShapes(inputShape: Shape | Shape[]): Shape[] {
  const shapes = (Array.isArray(inputShape[0]) ? inputShape : [inputShape]) as Shape[];
  const takes = '[query, value], [query, value, key] or [query, value, key, attentionMask]';
  check(shapes.length >= 2 && shapes.length <= 4, op, 'inputs', `got ${shapes.length}`, takes);
  ['query', 'value', 'key'].slice(0, shapes.length).forEach((name, i) => {
    check(shapes[i].length === 3, op, name, `got [${shapes[i]}]`, '[batch, length, features]');
  });
  const rank = shapes[3]?.length ?? 3;
  const ofMask = '[batch, queryLength, keyLength] or [batch, numHeads, queryLength, keyLength]';
  check(rank === 3 || rank === 4, op, 'attentionMask', `got [${shapes[3]}]`, ofMask);
  return shapes;
}
