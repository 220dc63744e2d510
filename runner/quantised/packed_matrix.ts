import * as tf from '@tensorflow/tfjs-core';
import {GROUP} from '../gguf/block_values';
import type {Matrix} from './matrix';
import {MOST_ROWS, packedProduct, type PackedTensors, unpackRows, unpackTransposed} from './ops';
import {type ElementType, hasProducts, PRODUCT_VECTOR, unpack} from './product_ops';
import {bitsOf, type PackedType, scaleShape} from './packed_type';
import {packBlocks} from './packing';
import {copyWords} from './webgpu/copy_words';

/** Some rows of a matrix. */
interface Part extends PackedTensors<tf.Tensor2D> {
  firstRow: number;
}

/**
 * A matrix that stays in its own type on the WebGPU backend: blocks are packed anew at upload, scales apart, and unpacked where they
 * are multiplied. It is cut by rows into parts that a binding of the device holds in float32.
 */
export class PackedMatrix implements Matrix {
  readonly bytes: number;
  readonly unpack?: (type: ElementType) => tf.Tensor2D;

  private constructor(
    readonly shape: readonly [outputs: number, inputs: number],
    readonly parts: readonly Part[],
  ) {
    this.bytes = parts.reduce((sum, {quants, scales}) => sum + 4 * (quants.size + scales.size), 0);
    const [part, ...others] = parts;
    if (others.length === 0 && shape[0] % PRODUCT_VECTOR === 0 && hasProducts('float32')) {
      this.unpack = (type) => unpack(part, type);
    }
  }

  /**
   * @param readRows the blocks of rows [first, end), as they stand in the file.
   * @param mostBytes the largest binding of the device.
   */
  static async upload(
    type: PackedType,
    [outputs, inputs]: readonly [outputs: number, inputs: number],
    readRows: (first: number, end: number) => Promise<Uint8Array>,
    mostBytes: number,
  ): Promise<PackedMatrix> {
    const groups = inputs / GROUP;
    const rowsOfPart = Math.max(1, Math.min(outputs, Math.floor(mostBytes / (4 * inputs))));
    const parts: Part[] = [];
    try {
      for (let firstRow = 0; firstRow < outputs; firstRow += rowsOfPart) {
        const rows = Math.min(rowsOfPart, outputs - firstRow);
        const {quants, scales} = packBlocks(type, await readRows(firstRow, firstRow + rows));
        parts.push({
          ...{type, firstRow, shape: [rows, inputs]},
          quants: tf.tensor2d(quants, [rows, groups * bitsOf(type)], 'int32'),
          scales: tf.tensor2d(scales, scaleShape(type, rows, groups), 'int32'),
        });
      }
    } catch (error) {
      tf.dispose(parts.map(({quants, scales}) => [quants, scales]));
      throw error;
    }
    return new PackedMatrix([outputs, inputs], parts);
  }

  /** Matrices of one type as one, their rows one after the other, which takes them over; nothing where they cannot be one. */
  static join(matrices: readonly PackedMatrix[], mostBytes: number): PackedMatrix | undefined {
    const [{parts, shape}] = matrices;
    const {type} = parts[0];
    const [, inputs] = shape;
    const outputs = matrices.reduce((sum, matrix) => sum + matrix.shape[0], 0);
    const alike = matrices.every((matrix) => matrix.parts.length === 1 && matrix.parts[0].type === type);
    if (!alike || 4 * outputs * inputs > mostBytes) return undefined;
    const joined = (name: 'quants' | 'scales', joinedShape: number[]) => {
      let to = 0;
      const copies = matrices.map((matrix) => {
        const source = matrix.parts[0][name];
        const copy = {source, from: 0, to, words: source.size};
        to += source.size;
        return copy;
      });
      // Of a plain type all have the same.
      const isShared = joinedShape[0] !== outputs;
      return copyWords<tf.Tensor2D>(joinedShape, isShared ? copies.slice(0, 1) : copies);
    };
    const groups = inputs / GROUP;
    // In a tidy, which frees the first where the second fails.
    const tensors = tf.tidy(() => ({
      quants: joined('quants', [outputs, groups * bitsOf(type)]),
      scales: joined('scales', scaleShape(type, outputs, groups)),
    }));
    const part: Part = {type, firstRow: 0, shape: [outputs, inputs], ...tensors};
    matrices.forEach((matrix) => matrix.dispose());
    return new PackedMatrix([outputs, inputs], [part]);
  }

  multiply(x: tf.Tensor2D): tf.Tensor2D {
    return tf.tidy(() => {
      const isFew = x.shape[0] <= MOST_ROWS;
      const products = this.parts.map((part) =>
        isFew ? packedProduct(x, part) : tf.tidy(() => tf.matMul(x, unpackTransposed(part)) as tf.Tensor2D),
      );
      return products.length === 1 ? products[0] : (tf.concat(products, 1) as tf.Tensor2D);
    });
  }

  rows(ids: readonly number[]): tf.Tensor2D {
    return tf.tidy(() => {
      const ofParts = this.parts.map((part) => {
        const [rows] = part.shape;
        const inPart = ids.map((id) => id >= part.firstRow && id < part.firstRow + rows);
        // Rows of other parts are read from the first of this one, and count for nothing.
        const own = tf.tensor1d(
          ids.map((id, i) => (inPart[i] ? id - part.firstRow : 0)),
          'int32',
        );
        const values = unpackRows(part, own);
        return this.parts.length === 1 ? values : tf.mul(values, tf.tensor2d(inPart.map(Number), [ids.length, 1]));
      });
      return tf.addN(ofParts) as tf.Tensor2D;
    });
  }

  dispose(): void {
    tf.dispose(this.parts.map(({quants, scales}) => [quants, scales]));
  }
}
