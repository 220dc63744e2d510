import * as tf from '@tensorflow/tfjs-core';
import type {LlamaConfig} from './config';

/** Rotated keys and values of every layer, which its owner disposes. After an error it is good for `dispose` alone. */
export interface KeyValueCache {
  /** Positions held, counted after the last layer has been given its rows. */
  readonly length: number;
  /**
   * Takes a layer's rows of the next positions, each `[1, keyValueHeads, rows, headDim]`, and returns all that the layer holds then, for
   * the caller's tidy.
   */
  extend(layer: number, key: tf.Tensor4D, value: tf.Tensor4D): KeyValueRows;
  /** Drops the positions from `length` on. */
  truncate(length: number): void;
  /** What `read` gives and `restore` takes. */
  readonly elementType: ElementType;
  /**
   * The first positions of a layer as they are held, low byte first: keys `[keyValueHeads, rows, headDim]`, then values. They are there
   * once the promise is.
   */
  read(layer: number, rows: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Takes the next layer of an empty cache, first to last, as `read` gave it; all of them hold as many rows. */
  restore(layer: number, rows: number, bytes: Uint8Array<ArrayBuffer>): void;
  dispose(): void;
}

export type ElementType = 'float16' | 'float32';

/** What a cache has to know of a model. */
export type CacheConfig = Pick<LlamaConfig, 'layers' | 'keyValueHeads' | 'headDim'>;

/** Positions of a page. Longer pages are joined less often; each token copies one, and attends to its empty rows too. */
export const PAGE_ROWS = 64;

/** Keys and values of consecutive positions, each `[1, keyValueHeads, rows, headDim]`. */
export type KeyValueRows = {key: tf.Tensor4D; value: tf.Tensor4D};

/** Positions of a layer, those that its newest row sees among them: `rest`, then the rows of `page`. */
export interface HeldRows {
  rest: KeyValueRows;
  /** `PAGE_ROWS` rows, zeros where nothing is written yet. */
  page: KeyValueRows;
  /** One for each row, to be added to its score: 0 for those that are seen, -1e9 for the others. Without one, all of `rest` is seen. */
  restBias?: tf.Tensor1D;
  pageBias: tf.Tensor1D;
}

interface Layer {
  rest: KeyValueRows;
  page?: KeyValueRows;
  written: number;
}

/**
 * A cache in tfjs's own ops, for any backend. Rows of decoded tokens go into a page of fixed shape, which joins the others when it is
 * full: the shapes of a decoding step stay the same for `PAGE_ROWS` tokens, so that a backend compiles nothing and allocates nothing of
 * the length of the context. It owns its tensors, also when it is called inside `tf.tidy`.
 */
export class PagedCache implements KeyValueCache {
  readonly elementType = 'float32';
  private readonly layers: Layer[] = [];
  /** Of a token, the same for all layers; the biases by their windows. */
  private masks?: {restRows: number; written: number; row: tf.Tensor4D; biases: Map<number, Biases>};

  constructor(private readonly config: CacheConfig) {}

  /** Positions held, counted after the last layer has been given its row. */
  get length(): number {
    const last = this.layers.at(-1);
    return last === undefined ? 0 : last.rest.key.shape[2] + last.written;
  }

  extend(layer: number, key: tf.Tensor4D, value: tf.Tensor4D): KeyValueRows {
    const held = this.layers[layer];
    const added = {key, value};
    if (held === undefined) {
      this.layers.push({rest: keep(mapRows((part) => tf.clone(added[part]))), written: 0});
      return added;
    }
    this.joinPage(held);
    const all = this.replace(held, 'rest', (rest) => mapRows((part) => tf.concat([rest![part], added[part]], 2)));
    return mapRows((part) => tf.clone(all[part]));
  }

  truncate(length: number): void {
    for (const held of this.layers) {
      this.joinPage(held);
      if (length >= held.rest.key.shape[2]) continue;
      this.replace(held, 'rest', (rest) => mapRows((part) => firstRows(rest![part], length)));
    }
  }

  async read(layer: number, rows: number): Promise<Uint8Array<ArrayBuffer>> {
    const {rest, page, written} = this.layers[layer];
    const parts = (['key', 'value'] as const).map((part) =>
      tf.tidy(() => {
        const all = page === undefined ? rest[part] : tf.concat([rest[part], firstRows(page[part], written)], 2);
        return firstRows(all, rows);
      }),
    );
    try {
      const [key, value] = await Promise.all(parts.map((part) => part.data<'float32'>()));
      const values = new Float32Array(key.length + value.length);
      values.set(key);
      values.set(value, key.length);
      return new Uint8Array(values.buffer);
    } finally {
      tf.dispose(parts);
    }
  }

  restore(layer: number, rows: number, bytes: Uint8Array<ArrayBuffer>): void {
    const {keyValueHeads, headDim} = this.config;
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    const half = values.length / 2;
    const part = (start: number) =>
      tf.keep(tf.tensor4d(values.slice(start, start + half), [1, keyValueHeads, rows, headDim]));
    this.layers[layer] = {rest: {key: part(0), value: part(half)}, written: 0};
  }

  /**
   * Adds a row `[1, keyValueHeads, 1, headDim]` to one layer and returns what the layer holds, for the caller's tidy.
   *
   * @param window positions that the row sees, its own included. Default: all.
   */
  append(layer: number, key: tf.Tensor4D, value: tf.Tensor4D, window = Infinity): HeldRows {
    const held = this.layers[layer];
    if (held.written === PAGE_ROWS) this.joinPage(held);
    const restRows = held.rest.key.shape[2];
    // What the first row of the page sees, so that shapes stay the same for all of its rows; one position at the least.
    const seen = Math.min(restRows, Math.max(1, window - 1));
    const {row, ...biases} = this.masksFor(restRows, held.written + 1, window, seen);
    const added = {key, value};
    const page = this.replace(held, 'page', (old) =>
      mapRows((part) => (old === undefined ? tf.mul(row, added[part]) : tf.add(old[part], tf.mul(row, added[part])))),
    );
    ++held.written;
    const rest = seen === restRows ? held.rest : mapRows((part) => rowsFrom(held.rest[part], restRows - seen));
    return {rest, page, ...biases};
  }

  dispose(): void {
    tf.dispose(this.layers.map(({rest, page}) => [rest, page]));
    this.dropMasks();
    this.layers.length = 0;
  }

  /** Puts the written rows of the page to the others. */
  private joinPage(held: Layer): void {
    const {page, written} = held;
    if (page === undefined) return;
    this.replace(held, 'rest', (rest) =>
      mapRows((part) => tf.concat([rest![part], firstRows(page[part], written)], 2)),
    );
    tf.dispose(page);
    held.page = undefined;
    held.written = 0;
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

  /** `row` is 1 in the row of the page that is written now, else 0. Only the last `seen` rows before the page count. */
  private masksFor(restRows: number, written: number, window: number, seen: number): {row: tf.Tensor4D} & Biases {
    if (this.masks?.restRows !== restRows || this.masks.written !== written) {
      this.dropMasks();
      const row = tf.tensor4d(
        pageOf((i) => (i === written - 1 ? 1 : 0)),
        [1, 1, PAGE_ROWS, 1],
      );
      this.masks = {restRows, written, row: tf.keep(row), biases: new Map()};
    }
    const {row, biases} = this.masks;
    let found = biases.get(window);
    if (found === undefined) {
      const firstSeen = restRows + written - window;
      const bias = (isSeen: boolean) => (isSeen ? 0 : -1e9);
      const inPage = (i: number) => bias(i < written && restRows + i >= firstSeen);
      found = {pageBias: tf.keep(tf.tensor1d(pageOf(inPage)))};
      const firstRow = restRows - seen;
      if (firstRow < firstSeen) {
        const values = Float32Array.from({length: seen}, (_, i) => bias(firstRow + i >= firstSeen));
        found.restBias = tf.keep(tf.tensor1d(values));
      }
      biases.set(window, found);
    }
    return {row, ...found};
  }

  private dropMasks(): void {
    if (this.masks) tf.dispose([this.masks.row, ...[...this.masks.biases.values()].map((biases) => ({...biases}))]);
    this.masks = undefined;
  }
}

type Biases = Pick<HeldRows, 'restBias' | 'pageBias'>;

const pageOf = (value: (row: number) => number): Float32Array =>
  Float32Array.from({length: PAGE_ROWS}, (_, i) => value(i));

function mapRows(make: (part: 'key' | 'value') => tf.Tensor4D): KeyValueRows {
  return {key: make('key'), value: make('value')};
}

function firstRows(x: tf.Tensor4D, rows: number): tf.Tensor4D {
  return tf.slice(x, [0, 0, 0, 0], [-1, -1, rows, -1]);
}

function rowsFrom(x: tf.Tensor4D, first: number): tf.Tensor4D {
  return tf.slice(x, [0, 0, first, 0], [-1, -1, -1, -1]);
}

function keep({key, value}: KeyValueRows): KeyValueRows {
  return {key: tf.keep(key), value: tf.keep(value)};
}
