import {unroll} from '../../unroll.js';
import type {HeadDims} from '../runtime/device_limits.js';
import {packFloat16} from '../wgsl/float16.js';
import type {Tile} from '../wgsl/tile.js';
import {columnOf, rowOf, tileConstants, tileKeys, tileQueries, tileThreads, weightStride} from '../wgsl/tile.js';
import {addRowProducts, addWeightedRows, ifInRow, partsOfRow} from '../wgsl/tile_products.js';
import type {ElementType} from './attend_tile.js';
import {headWords, tileStride} from './attend_tile.js';

/**
 * Shader text of what depends on the numbers that the tiles hold: the two products, and how values get into words and
 * weights out of them. Everything else in `AttendProgram` is the same for both.
 */
export interface Products {
  /** Declarations. */
  declarations: string;
  /** Type of a word, and of the weights of a row in the columns of an x. */
  word: string;
  weights: string;
  /** The word made of a query's values, fetched from `at` on. */
  wordOf: (at: number) => string;
  /** The weights `weight[0]`, `weight[1]`, … as they are stored. */
  storedWeights: string;
  /** Before the query tile is loaded: finds what its rows are scaled by. */
  findScales: string;
  /** A vec4 of a query row (expressions) as it is loaded; and the scales of this invocation's rows, which undo that. */
  scaled: (row: string, x: string) => string;
  ownScales: string;
  /** Adds this invocation's part of queryTile · keyTileᵀ to `scores`. */
  scores: string;
  /** What a row's maximum is raised by, behind it: weights are at most two to the power of minus that. */
  raised: string;
  /** Adds this invocation's part of weights · keyTile, which holds values now, to `output`. */
  weightedSum: string;
}

export function products(elementType: ElementType, tile: Tile, dims: HeadDims): Products {
  return elementType === 'float32' ? float32Products(tile, dims) : float16Products(tile, dims);
}

function float32Products(tile: Tile, {headDim, valueDim}: HeadDims): Products {
  const {columns} = tile;
  return {
    declarations: '',
    word: 'vec4<f32>',
    weights: `vec${columns}<f32>`,
    wordOf: (at) => `fetched[${at}]`,
    storedWeights: `vec${columns}<f32>(${unroll(columns, (c) => `weight[${c}]`, ', ')})`,
    findScales: '',
    scaled: (_, x) => x,
    ownScales: '',
    raised: '',
    scores: addRowProducts(tile, {
      ...{left: 'queryTile', right: 'keyTile', sums: 'scores'},
      width: headWords(headDim, 'float32'),
    }),
    weightedSum: addWeightedRows(tile, {right: 'keyTile', sums: 'output', width: headWords(valueDim, 'float32')}),
  };
}

/**
 * Arithmetic on the two float16 of a 32-bit part of a word. Only this text needs the extension, so that a test can put
 * the same arithmetic in float32 in its place where a device has no float16.
 */
export const halfArithmetic = `
alias half2 = vec2<f16>;
fn halves(x : u32) -> half2 { return bitcast<half2>(x); }
fn multiplyAdd(a : half2, b : half2, sum : half2) -> half2 { return fma(a, b, sum); }`;

/** Most words of a row whose products are added up in float16: 4 · 8 values, in two sums of 16. */
const scoreFold = 4;
/** The same for values: 4 columns of so many invocations. */
const sumFold = 4;
/**
 * Sums of 16 products stay in the range of float16, whatever the keys and values in that range: weights, and the queries' values once each row
 * is scaled by a power of two, are at most 2⁻⁴.
 */
const headroomBits = 4;

/**
 * Shader text: of each row of the query tile the bits of its largest value, less its sign, and the scales that follow: with one a row's
 * largest value lies in [2⁻⁵, 2⁻⁴), and the other takes that back. Biased exponents are kept so far from their ends that both are normal
 * numbers, of rows of zeros and beyond 2¹²¹ too.
 */
const queryScales = (words: number) => `
var<workgroup> largestBits : array<atomic<u32>, tileQueries>;
fn exponentOf(row : i32) -> u32 {
  return min(atomicLoad(&largestBits[row]) >> 23u, 248u);
}
fn queryScale(row : i32) -> f32 {
  return bitcast<f32>((${253 - headroomBits}u - exponentOf(row)) << 23u);
}
fn productScale(row : i32) -> f32 {
  return bitcast<f32>((exponentOf(row) + ${1 + headroomBits}u) << 23u);
}
fn findLargest(row : i32, a : vec4<f32>, b : vec4<f32>) {
  let bits = max(bitcast<vec4<u32>>(a) & vec4<u32>(0x7fffffffu), bitcast<vec4<u32>>(b) & vec4<u32>(0x7fffffffu));
  atomicMax(&largestBits[row], max(max(bits.x, bits.y), max(bits.z, bits.w)));
}
const queryWords = tileQueries * ${words};`;

function float16Products(tile: Tile, dims: HeadDims): Products {
  const {rows, columns, threadsX} = tile;
  const words = headWords(dims.headDim, 'float16');
  const scoreUnroll = words % scoreFold === 0 ? scoreFold : words % 2 === 0 ? 2 : 1;
  const sumUnroll = Math.min(sumFold, threadsX);
  const valueWords = headWords(dims.valueDim, 'float16');
  const outputs = partsOfRow(tile, valueWords);
  const pairs = columns / 2;
  const pairOf = (r: number, c: number) => (pairs === 1 ? `w${r}` : `w${r}[${c >> 1}]`);
  const packed = unroll(pairs, (p) => `pack2x16float(vec2<f32>(weight[${2 * p}], weight[${2 * p + 1}]))`, ', ');
  return {
    declarations: `${halfArithmetic}
${packFloat16}
${queryScales(words)}
fn pack(a : vec4<f32>, b : vec4<f32>) -> vec4<u32> {
  return vec4<u32>(packedFloat16(a), packedFloat16(b));
}`,
    word: 'vec4<u32>',
    weights: pairs === 1 ? 'u32' : `vec${pairs}<u32>`,
    wordOf: (at) => `pack(fetched[${at}], fetched[${at + 1}])`,
    storedWeights: pairs === 1 ? packed : `vec${pairs}<u32>(${packed})`,
    findScales: `for (var i = local; i < queryWords; i += ${tileThreads(tile)}) {
    let row = i / ${words};
    if (firstRow + row < endRow) {
      let at = head * uniforms.queryLength + firstRow + row;
      let vector = 2 * (i % ${words});
      findLargest(row, uniforms.logitScale * readQuery(at, vector), uniforms.logitScale * readQuery(at, vector + 1));
    }
  }
  // Barrier: the scale of a row needs all of it.
  workgroupBarrier();
  `,
    scaled: (row, x) => `queryScale(${row}) * (${x})`,
    ownScales: unroll(rows, (r) => `\n  let productScale${r} = productScale(${rowOf(r)});`, ''),
    raised: ` + ${headroomBits}.0`,
    // The sums start at zero in each round by their initial values: a declaration alone kept the last round's.
    scores: `for (var s = 0; s < ${words / scoreUnroll}; s++) {
      let i = s * ${scoreUnroll};
      var sums = array<half2, ${rows * columns}>();
      ${unroll(
        scoreUnroll,
        (u) => `{
      ${unroll(rows, (r) => `let q${r} = queryTile[(${rowOf(r)}) * tileStride + i + ${u}];`)}
      ${unroll(
        columns,
        (c) => `{
        let k = keyTile[(${columnOf(c)}) * tileStride + i + ${u}];
        ${unroll(rows, (r) => unroll(4, (e) => multiplyAdd(r * columns + c, `halves(q${r}[${e}])`, `halves(k[${e}])`)))}
      }`,
      )}
      }`,
      )}
      ${unroll(rows, (r) =>
        unroll(columns, (c) => {
          const sum = `sums[${r * columns + c}]`;
          return `scores[${r}][${c}] = fma(f32(${sum}.x) + f32(${sum}.y), productScale${r}, scores[${r}][${c}]);`;
        }),
      )}
    }`,
    weightedSum: `for (var s = 0; s < ${threadsX / sumUnroll}; s++) {
      let i = s * ${sumUnroll};
      var sums = array<half2, ${rows * outputs * 4}>();
      ${unroll(
        sumUnroll,
        (u) => `{
      ${unroll(rows, (r) => `let w${r} = weights[(${rowOf(r)}) * weightStride + i + ${u}];`)}
      ${unroll(outputs, (o) =>
        unroll(
          columns,
          (c) => `${ifInRow(tile, valueWords, o)}{
        let v = keyTile[(i + ${u} + ${c} * threadsX) * tileStride + ${columnOf(o)}];
        ${unroll(
          rows,
          (r) => `{
        let w = half2(halves(${pairOf(r, c)})[${c & 1}]);
        ${unroll(4, (e) => multiplyAdd((r * outputs + o) * 4 + e, 'w', `halves(v[${e}])`))}
        }`,
        )}
      }`,
        ),
      )}
      }`,
      )}
      ${unroll(rows, (r) =>
        unroll(2 * outputs, (o) => {
          const at = 4 * r * outputs + 2 * o;
          return `output[${r}][${o}] += vec4<f32>(vec2<f32>(sums[${at}]), vec2<f32>(sums[${at + 1}]));`;
        }),
      )}
    }`,
  };
}

const multiplyAdd = (sum: number, a: string, b: string) => `sums[${sum}] = multiplyAdd(${a}, ${b}, sums[${sum}]);`;

/** Constants and tiles in workgroup memory. */
export function attendMemory(tile: Tile, dims: HeadDims, elementType: ElementType, {word, weights}: Products): string {
  return `
${tileConstants(tile)}
const headWords = ${headWords(dims.headDim, elementType)};
const tileStride = ${tileStride(dims, elementType)};
const weightStride = ${weightStride(tile)};
var<workgroup> queryTile : array<${word}, ${tileQueries(tile) * tileStride(dims, elementType)}>;
var<workgroup> keyTile : array<${word}, ${tileKeys(tile) * tileStride(dims, elementType)}>;
var<workgroup> weights : array<${weights}, ${tileQueries(tile) * weightStride(tile)}>;
var<workgroup> rowPartials : array<vec${tile.rows}<f32>, ${tile.threadsY * weightStride(tile)}>;
var<workgroup> keyPositions : array<i32, tileKeys>;`;
}
