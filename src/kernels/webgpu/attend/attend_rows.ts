import {unroll} from '../../unroll.js';
import {readPackedRow} from '../wgsl/float16.js';
import {paddedHeadDim} from '../wgsl/matrix_units.js';
import {headVectors, readRow} from '../wgsl/rows.js';
import type {Tile} from '../wgsl/tile.js';
import {tileKeys, tileQueries, tileThreads} from '../wgsl/tile.js';
import {TileLoad} from '../wgsl/tile_load.js';
import type {AttendForm} from './attend_form.js';
import type {Products} from './attend_products.js';
import type {ElementType} from './attend_tile.js';
import {headWords, wordValues} from './attend_tile.js';
import {keyTile} from './attend_walk.js';
import {float16Words} from './float16_rows.js';
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
    const load = (rows: number, dim: number, vectors: 1 | 2 = 1) =>
      new TileLoad(rows, headWords(dim, elementType), tileThreads(tile), vectors);
    this.queries = load(tileQueries(tile), headDim, elementType === 'float16' ? 2 : 1);
    this.keys = load(tileKeys(tile), headDim);
    this.values = load(tileKeys(tile), valueDim);
    this.isShared = valueDim === headDim;
  }

  functions(): string {
    const {headDim, valueDim} = this.form;
    const readQuery = (paddedDim = headDim) => readRow('readQuery', 'query', headDim, paddedDim);
    if (!this.isFloat16) {
      return `${readQuery()}
${readRow('readKey', 'key', headDim)}
${readRow('readValue', 'value', valueDim)}`;
    }
    const readWord = (name: string, first: string, dim: number) =>
      `fn ${name}(row : i32, word : i32) -> vec4<i32> { return key[${first} + row * ${float16Words(dim)} + word]; }`;
    return `${readQuery(headWords(headDim, 'float16') * wordValues('float16'))}
${readWord('readKey', 'uniforms.firstKey', headDim)}
${readWord('readValueWord', 'uniforms.firstValue', valueDim)}
${readPackedRow('readValue', 'key', paddedHeadDim(valueDim), 'uniforms.firstValue')}`;
  }

  private get isFloat16(): boolean {
    return this.elementType === 'float16';
  }

  /** Expression: the word that was fetched in round j. */
  private word(j: number): string {
    return this.isFloat16 ? `bitcast<vec4<u32>>(fetched[${j}])` : `fetched[${j}]`;
  }

  /** Before the walk: the query tile, and the first keys on their way. */
  start(): string {
    const {keys, values, product} = this;
    const rounds = Math.max(keys.rounds, values.rounds);
    return `var positions : array<i32, ${keys.rounds}>;
  var nextPositions : array<i32, ${keys.rounds}>;
  var fetched : array<vec4<${this.isFloat16 ? 'i32' : 'f32'}>, ${rounds}>;
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
    const {keys} = this;
    return `${unroll(keys.rounds, (j) => `positions[${j}] = nextPositions[${j}];`)}
    ${keys.store('keyTile', (j) => this.word(j), {
      also: (j) => ` if (${keys.word(j)} == 0) { keyPositions[${keys.row(j)}] = positions[${j}]; }`,
    })}`;
  }

  fetchValues(): string {
    const {values, isShared} = this;
    const find = (j: number) => `let valuePosition${j} = keyPositions[min(${values.row(j)}, tileKeys - 1)];`;
    const fetch = values.fetch(
      (j, vector) =>
        `${this.isFloat16 ? 'readValueWord' : 'readValue'}(${this.rowAt(this.valuePosition(j))}, ${vector})`,
    );
    return isShared ? fetch : `${unroll(values.rounds, find)}\n    ${fetch}`;
  }

  storeValues(): string {
    const {values, form, isFloat16} = this;
    return `${unroll(values.rounds, (j) => withholdFrom(form, [`fetched[${j}]`], this.valuePosition(j), isFloat16))}
    ${values.store('keyTile', (j) => this.word(j))}`;
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
