import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {reshape, serialization, tidy, transpose} from '@tensorflow/tfjs-core';
import type {LayerArgs} from '@tensorflow/tfjs-layers/dist/engine/topology.js';
import type {Shape} from '@tensorflow/tfjs-layers/dist/keras_format/common.js';
import type {Kwargs} from '@tensorflow/tfjs-layers/dist/types.js';
import {layers} from '@tensorflow/tfjs-layers';
import {check, pbsAttentionSettings} from '../ops/check_arguments.js';
import type {PBSAttentionSettings} from '../ops/options.js';
import {pbsAttention} from '../ops/pbs_attention.js';

const op = 'PBSAttention';

/** Arguments of the layer: those of every layer, the options of `pbsAttention`, and where the heads are. */
export interface PBSAttentionLayerArgs extends LayerArgs, PBSAttentionSettings {
  /**
   * Query heads that the layer splits the last axis into: inputs are then `[batch, length, heads · headDim]`. Without it,
   * inputs have their heads already: `[batch, heads, length, headDim]`.
   */
  numHeads?: number;
  /** Key and value heads of grouped-query attention, where the layer splits. A divisor of `numHeads`, its default. */
  numKeyValueHeads?: number;
}

/**
 * Permuted block-sparse attention as a layer without weights, after the manner of Keras's `Attention`: it takes
 * `[query, value]` or `[query, value, key]`, with the value as key where there is none.
 *
 * ```js
 * // query, key, value: outputs of dense layers, each of 512 units
 * const attended = new PBSAttention({numHeads: 8, threshold: 0.9}).apply([query, value, key]);
 * ```
 *
 * The class is registered for serialisation: models that hold it are saved and loaded once this file is imported.
 * `getConfig` holds every option, defaults too, so that a saved model keeps what it was made with.
 *
 * Inputs, float32: with `numHeads`, query `[batch, length, numHeads · headDim]`, key and value
 * `[batch, length, numKeyValueHeads · headDim]`; without, query `[batch, heads, length, headDim]`, key and value
 * `[batch, keyValueHeads, length, headDim]`. Key and value may have another length than the query, and the value another head
 * dim, as in `pbsAttention`. The output is shaped as the query, with the head dim of the value.
 *
 * @throws Error on an argument, an input or a shape that is not of that form, and on a mask of an earlier layer
 *     (`maskZero` of an embedding): the layer would attend to what it hides.
 */
export class PBSAttention extends layers.Layer {
  /** The name under which tfjs-layers saves the layer and finds it again. */
  static className = 'PBSAttention';
  private readonly numHeads?: number;
  private readonly numKeyValueHeads?: number;
  private readonly options: PBSAttentionSettings;

  constructor(args: PBSAttentionLayerArgs = {}) {
    const {numHeads, numKeyValueHeads, ...others} = args;
    const {name, inputShape, batchInputShape, batchSize, dtype, trainable, weights, inputDType, ...options} = others;
    super({name, inputShape, batchInputShape, batchSize, dtype, trainable, weights, inputDType});
    for (const [name, count] of Object.entries({numHeads, numKeyValueHeads})) {
      const isCount = count === undefined || (Number.isSafeInteger(count) && count > 0);
      check(isCount, op, name, `got ${count}`, 'a positive integer');
    }
    if (numKeyValueHeads !== undefined) {
      const got = `got ${numKeyValueHeads} with numHeads ${numHeads}`;
      const divides = numHeads !== undefined && numHeads % numKeyValueHeads === 0;
      check(divides, op, 'numKeyValueHeads', got, 'a divisor of numHeads');
    }
    // So that tfjs asks computeMask, which gets the masks of all inputs; a call gets that of the first alone.
    this.supportsMasking = true;
    this.numHeads = numHeads;
    this.numKeyValueHeads = numKeyValueHeads ?? numHeads;
    const {scale, ...attrs} = pbsAttentionSettings(op, options, 1);
    // The default scale depends on the head dim, so it is left to the op.
    this.options = options.scale === undefined ? attrs : {...attrs, scale};
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
    this.checkShapes(inputShape);
    super.build(inputShape);
  }

  override computeOutputShape(inputShape: Shape | Shape[]): Shape {
    return this.shapeOfOutput(this.checkShapes(inputShape));
  }

  override call(inputs: Tensor | Tensor[], kwargs: Kwargs): Tensor {
    const tensors = Array.isArray(inputs) ? inputs : [inputs];
    refuseMasks([kwargs?.['mask'], ...tensors.map((x) => (x as {kerasMask?: Tensor}).kerasMask)]);
    const outputShape = this.shapeOfOutput(this.checkShapes(tensors.map(({shape}) => shape)));
    return tidy(() => {
      this.invokeCallHook(inputs, kwargs);
      const [query, value, key = value] = tensors;
      const split = (x: Tensor, heads?: number) => (heads === undefined ? (x as Tensor4D) : splitHeads(x, heads));
      const attended = pbsAttention(
        split(query, this.numHeads),
        split(key, this.numKeyValueHeads),
        split(value, this.numKeyValueHeads),
        this.options,
      );
      return this.numHeads === undefined
        ? attended
        : reshape(transpose(attended, [0, 2, 1, 3]), outputShape as number[]);
    });
  }

  override computeMask(_inputs: Tensor | Tensor[], mask?: Tensor | Tensor[]): Tensor | Tensor[] {
    refuseMasks([mask]);
    // No mask, which the type of the overridden method leaves out.
    return null as unknown as Tensor;
  }

  override getConfig(): serialization.ConfigDict {
    const {numHeads, numKeyValueHeads} = this;
    const heads = numHeads === undefined ? {} : {numHeads, numKeyValueHeads};
    return {...super.getConfig(), ...heads, ...this.options} as serialization.ConfigDict;
  }

  /** The shapes of query, value and maybe key, refused where they cannot be attention; unknown dimensions are left out. */
  private checkShapes(inputShape: Shape | Shape[]): Shape[] {
    const shapes = (Array.isArray(inputShape[0]) ? inputShape : [inputShape]) as Shape[];
    const isList = shapes.length === 2 || shapes.length === 3;
    check(isList, op, 'inputs', `got ${shapes.length}`, '[query, value] or [query, value, key]');
    const rank = this.numHeads === undefined ? 4 : 3;
    const takes =
      rank === 4
        ? '[batch, heads, length, headDim] (or numHeads, to split heads in the layer)'
        : '[batch, length, heads · headDim] (or no numHeads, where the inputs have heads)';
    ['query', 'value', 'key'].slice(0, shapes.length).forEach((name, i) => {
      const shape = shapes[i];
      check(shape.length === rank, op, name, `got [${shape}]`, takes);
      const heads = i === 0 ? this.numHeads : this.numKeyValueHeads;
      const features = shape[rank - 1];
      if (heads !== undefined && features != null) {
        check(features % heads === 0, op, name, `got [${shape}]`, `a last dimension that ${heads} heads divide`);
      }
    });
    return shapes;
  }

  /** The query's, with the head dim of the value. */
  private shapeOfOutput([query, value]: Shape[]): Shape {
    const features = value[value.length - 1];
    const {numHeads = 1, numKeyValueHeads = 1} = this;
    return [...query.slice(0, -1), features == null ? null : (features / numKeyValueHeads) * numHeads];
  }
}

serialization.registerClass(PBSAttention);

function refuseMasks(masks: unknown[]): void {
  const isNone = masks.flat().every((mask) => mask == null);
  check(isNone, op, 'mask', 'got the mask of an earlier layer', 'no mask');
}

/** `[batch, length, heads · headDim]` → `[batch, heads, length, headDim]`. */
function splitHeads(x: Tensor, heads: number): Tensor4D {
  const [batch, length, features] = x.shape;
  return transpose(reshape(x, [batch, length, heads, features / heads]), [0, 2, 1, 3]) as Tensor4D;
}
