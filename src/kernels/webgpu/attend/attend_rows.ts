import {unroll} from '../../unroll.js';
import {headVectors, readRow} from '../wgsl/rows.js';
import type {Tile} from '../wgsl/tile.js';
import {tileKeys, tileQueries, tileThreads} from '../wgsl/tile.js';
import {TileLoad} from '../wgsl/tile_load.js';
import type {AttendForm} from './attend_form.js';
import type {Products} from './attend_products.js';
import type {ElementType} from './attend_tile.js';
import {headWords, wordValues} from './attend_tile.js';
import {keyTile} from './attend_walk.js';
import {withholdFrom} from './withheld_values.js';

/**
 * Shader text: how rows of query, key and value get from global memory into the tiles of `AttendProgram`.
 *
 * A key tile is on its way in three rounds: `nextPositions`, where the keys that this invocation carries stand; `fetched`, their
 * words; and `positions`, of the keys in workgroup memory, whose values it fetches then.
 */
export class AttendRows {
  private readonly queries: TileLoad;
  private readonly keys: TileLoad;
  private readonly values: TileLoad;
  /** Whether an invocation carries the values of the keys that it carries: not where they take other words. */
  private readonly isShared: boolean;

  constructor(
    tile: Tile,
    private readonly form: AttendForm,
    private readonly elementType: ElementType,
    private readonly product: Products,
  ) {
    const {headDim, valueDim} = form;
    const load = (rows: number, dim: number) =>
      new TileLoad(rows, headWords(dim, elementType), tileThreads(tile), elementType === 'float16' ? 2 : 1);
    this.queries = load(tileQueries(tile), headDim);
    this.keys = load(tileKeys(tile), headDim);
    this.values = load(tileKeys(tile), valueDim);
    this.isShared = valueDim === headDim;
  }

  functions(): string {
    const {form, elementType} = this;
    const read = (name: string, tensor: string, dim: number) =>
      readRow(name, tensor, dim, headWords(dim, elementType) * wordValues(elementType));
    return `${read('readQuery', 'query', form.headDim)}
${read('readKey', 'key', form.headDim)}
${read('readValue', 'value', form.valueDim)}`;
  }

  /** Before the walk: the query tile, and the first keys on their way. */
  start(): string {
    const {keys, values, product} = this;
    const rounds = Math.max(keys.rounds, values.rounds);
    return `var positions : array<i32, ${keys.rounds}>;
  var nextPositions : array<i32, ${keys.rounds}>;
  var fetched : array<vec4<f32>, ${rounds * keys.vectors}>;
  var nextTile = keySlots(head, queryTileIndex, ${keyTile(this.form, '0')});
  ${this.findNext()}
  nextTile = keySlots(head, queryTileIndex, ${keyTile(this.form, '1')});
  ${this.fetchKeys()}
  ${product.findScales}${this.queries.loadTile('queryTile', {
    exists: (row) => `firstRow + ${row} < endRow`,
    read: (row, vector) =>
      product.scaled(
        row,
        `uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + ${row}, ${vector})`,
      ),
    word: product.wordOf,
  })}${product.ownScales}`;
  }

  /** Where the keys of `nextTile` stand. */
  findNext(): string {
    const {keys} = this;
    return unroll(keys.rounds, (j) => `nextPositions[${j}] = positionIn(head, nextTile, ${keys.row(j)});`);
  }

  fetchKeys(): string {
    return this.keys.fetch((j, vector) => `readKey(${this.rowAt(`nextPositions[${j}]`)}, ${vector})`);
  }

  storeKeys(): string {
    const {keys, product} = this;
    return `${unroll(keys.rounds, (j) => `positions[${j}] = nextPositions[${j}];`)}
    ${keys.store('keyTile', (j) => product.wordOf(j * keys.vectors), {
      also: (j) => ` if (${keys.word(j)} == 0) { keyPositions[${keys.row(j)}] = positions[${j}]; }`,
    })}`;
  }

  fetchValues(): string {
    const {values, isShared} = this;
    const find = (j: number) => `let valuePosition${j} = keyPositions[min(${values.row(j)}, tileKeys - 1)];`;
    const fetch = values.fetch((j, vector) => `readValue(${this.rowAt(this.valuePosition(j))}, ${vector})`);
    return isShared ? fetch : `${unroll(values.rounds, find)}\n    ${fetch}`;
  }

  storeValues(): string {
    const {values, product} = this;
    const carried = (j: number) => Array.from({length: values.vectors}, (_, g) => `fetched[${j * values.vectors + g}]`);
    return `${unroll(values.rounds, (j) => withholdFrom(this.form, carried(j), this.valuePosition(j)))}
    ${values.store('keyTile', (j) => product.wordOf(j * values.vectors))}`;
  }

  private valuePosition(j: number): string {
    return this.isShared ? `positions[${j}]` : `valuePosition${j}`;
  }

  /** Padding reads some row that exists. */
  private rowAt(position: string): string {
    return `firstKeyRow + min(${position}, lastPosition)`;
  }
}

/** The guard of a vec4 of a row, where the last word of a head holds more vec4 than the head has. */
export function ifInHead(vector: string, headDim: number, elementType: ElementType): string {
  const vectors = headVectors(headDim);
  const isPadded = (headWords(headDim, elementType) * wordValues(elementType)) / 4 > vectors;
  return isPadded ? `if (${vector} < ${vectors}) ` : '';
}
