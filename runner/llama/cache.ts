import * as tf from '@tensorflow/tfjs-core';
import {writeRow} from './kernels/write_row';

/** Positions of a page. Longer pages are joined less often; each token copies one, and attends to its empty rows too. */
export const PAGE_ROWS = 64;

/** Keys and values of consecutive positions, each `[1, keyValueHeads, rows, headDim]`. */
export type KeyValueRows = {key: tf.Tensor4D; value: tf.Tensor4D};

/** All positions of a layer: `rest`, then those rows of `page` that are written. */
export interface HeldRows {
  rest: KeyValueRows;
  /** `PAGE_ROWS` rows, zeros where nothing is written yet. */
  page: KeyValueRows;
  /** `[PAGE_ROWS]`: 0 for the written rows of the page, -1e9 for the others; to be added to their scores. */
  pageBias: tf.Tensor1D;
}

interface Layer {
  rest: KeyValueRows;
  page?: KeyValueRows;
  written: number;
}

/**
 * Rotated keys and values of every layer.
 *
 * New rows go into a page of fixed shape, which joins the others when it is full: the shapes of a decoding step stay the
 * same for `PAGE_ROWS` tokens, so that a backend compiles nothing and allocates nothing of the length of the context.
 *
 * The cache owns its tensors, also when it is called inside `tf.tidy`. After an error it is good for `dispose` alone.
 */
export class KeyValueCache {
  private readonly layers: Layer[] = [];
  private masks?: {written: number; row: tf.Tensor4D; pageBias: tf.Tensor1D};

  /** Positions held, counted after the last layer has been given its row. */
  get length(): number {
    const last = this.layers.at(-1);
    return last === undefined ? 0 : last.rest.key.shape[2] + last.written;
  }

  /** Takes the rows of the prompt for the next layer. */
  start(key: tf.Tensor4D, value: tf.Tensor4D): void {
    this.layers.push({rest: keep({key: tf.clone(key), value: tf.clone(value)}), written: 0});
  }

  /** Adds a row `[1, keyValueHeads, 1, headDim]` to one layer and returns all that the layer holds. */
  append(layer: number, key: tf.Tensor4D, value: tf.Tensor4D): HeldRows {
    const held = this.layers[layer];
    if (held.written === PAGE_ROWS) {
      this.replace(held, 'rest', (rest) => mapRows((part) => tf.concat([rest![part], held.page![part]], 2)));
      tf.dispose(held.page);
      held.page = undefined;
      held.written = 0;
    }
    const {row, pageBias} = this.masksFor(held.written + 1);
    const added = {key, value};
    const page = this.replace(held, 'page', (old) =>
      mapRows((part) => (old === undefined ? tf.mul(row, added[part]) : writeRow(old[part], added[part], row))),
    );
    ++held.written;
    return {rest: held.rest, page, pageBias};
  }

  dispose(): void {
    tf.dispose(this.layers.map(({rest, page}) => [rest, page]));
    tf.dispose(this.masks);
    this.layers.length = 0;
    this.masks = undefined;
  }

  private replace(
    layer: Layer,
    name: 'rest' | 'page',
    compute: (old: KeyValueRows | undefined) => KeyValueRows,
  ): KeyValueRows {
    const old = layer[name];
    const rows = keep(tf.tidy(() => compute(old)));
    tf.dispose(old);
    layer[name] = rows;
    return rows;
  }

  /** The same for all layers of a token, so made for the first. `row` is 1 in the row that is written now, else 0. */
  private masksFor(written: number): {row: tf.Tensor4D; pageBias: tf.Tensor1D} {
    if (this.masks?.written !== written) {
      tf.dispose(this.masks);
      const rows = Array.from({length: PAGE_ROWS}, (_, i) => i);
      this.masks = {
        written,
        row: tf.keep(
          tf.tensor4d(
            rows.map((i) => (i === written - 1 ? 1 : 0)),
            [1, 1, PAGE_ROWS, 1],
          ),
        ),
        pageBias: tf.keep(tf.tensor1d(rows.map((i) => (i < written ? 0 : -1e9)))),
      };
    }
    return this.masks;
  }
}

function mapRows(make: (part: 'key' | 'value') => tf.Tensor4D): KeyValueRows {
  return {key: make('key'), value: make('value')};
}

function keep({key, value}: KeyValueRows): KeyValueRows {
  return {key: tf.keep(key), value: tf.keep(value)};
}
