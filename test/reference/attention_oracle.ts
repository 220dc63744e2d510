import type {Inputs, ReferenceOptions} from './attention';

/** Every form that an option brings. Semantics: transformers' (`golden/attention_forms.py`). */
export interface OracleOptions extends Omit<ReferenceOptions, 'queryOffset'> {
  queryOffset?: number | number[];
  /** Keys before are padding, and so are rows that stand there. */
  keyStarts?: number[];
  window?: number;
  softCap?: number;
  alibiSlopes?: number[];
  sinks?: number[];
}

export interface OracleResult {
  /** `[batch, heads, queryLength, valueDim]` */
  output: Float64Array;
  /** `[batch, heads, queryLength]`: −Infinity in a row that sees nothing and has no sink. */
  logSumExp: Float64Array;
}

/** By query, key, value and a mask that is added; without one that is empty. */
export type OracleGradients = Record<'query' | 'key' | 'value' | 'mask', Float64Array>;

/** The sums of gradients with the absolute values of what they add up, before anything cancels out. */
export type OracleMagnitudes = {magnitudes: OracleGradients};

/** One row of scores, by the definition: scaled product → soft cap → slopes → mask; −Infinity where a key is not seen. */
interface Row {
  scores: number[];
  /** Of a score by the scaled product. */
  derivatives: number[];
  weights: number[];
  logSumExp: number;
  /** Where the rows of query and of the first key and value start, as row numbers. */
  query: number;
  firstKey: number;
}

/** Attention in float64 with the whole row of scores at hand: what all kernels are compared with. */
export function attentionOracle(inputs: Inputs, options: OracleOptions = {}): OracleResult {
  const [, , , valueDim] = inputs.valueShape;
  const rows = rowsOf(inputs, options);
  const output = new Float64Array(rows.length * valueDim);
  rows.forEach(({weights, firstKey}, row) =>
    weights.forEach((weight, j) => {
      for (let d = 0; d < valueDim && weight !== 0; ++d) {
        output[row * valueDim + d] += weight * inputs.value[(firstKey + j) * valueDim + d];
      }
    }),
  );
  return {output, logSumExp: Float64Array.from(rows, ({logSumExp}) => logSumExp)};
}

/**
 * Gradients of Σ dy · output (+ Σ dLogSumExp · logSumExp): with the Jacobian of the softmax written out, d score = weight · (d weight −
 * Σ weight · d weight).
 */
export function oracleGradients(
  inputs: Inputs,
  options: OracleOptions,
  dy: ArrayLike<number>,
  dLogSumExp?: ArrayLike<number>,
): OracleGradients & OracleMagnitudes {
  const {query, key, value, queryShape, valueShape} = inputs;
  const [headDim, valueDim] = [queryShape[3], valueShape[3]];
  const {scale = 1 / Math.sqrt(headDim)} = options;
  const zeros = (): OracleGradients => ({
    query: new Float64Array(query.length),
    key: new Float64Array(key.length),
    value: new Float64Array(value.length),
    mask: new Float64Array(options.mask?.values.length ?? 0),
  });
  const [gradients, magnitudes] = [zeros(), zeros()];
  const add = (of: keyof OracleGradients, at: number, x: number, magnitude = Math.abs(x)) => {
    gradients[of][at] += x;
    magnitudes[of][at] += magnitude;
  };
  rowsOf(inputs, options).forEach(({weights, derivatives, query: q, firstKey}, row) => {
    const [heads, length] = [queryShape[1], queryShape[2]];
    const place = [Math.floor(row / length / heads), Math.floor(row / length) % heads, row % length];
    const byWeight = weights.map((weight, j) => (weight === 0 ? 0 : dotOf(dy, row, value, firstKey + j, valueDim)));
    const mean = weights.reduce((sum, weight, j) => sum + weight * byWeight[j], 0);
    weights.forEach((weight, j) => {
      if (weight === 0) return;
      const byScore = weight * (byWeight[j] - mean + (dLogSumExp?.[row] ?? 0));
      // Of the two, the one may be all that the other takes away.
      const summed = weight * (Math.abs(byWeight[j]) + Math.abs(mean));
      if (options.mask) add('mask', maskIndex(options.mask, [...place, j]), byScore, summed);
      for (let d = 0; d < headDim; ++d) {
        const [at, keyAt] = [q * headDim + d, (firstKey + j) * headDim + d];
        const [byQuery, byKey] = [key[keyAt], query[at]].map((x) => scale * derivatives[j] * x);
        add('query', at, byQuery * byScore, Math.abs(byQuery) * summed);
        add('key', keyAt, byKey * byScore, Math.abs(byKey) * summed);
      }
      for (let d = 0; d < valueDim; ++d) {
        add('value', (firstKey + j) * valueDim + d, weight * dy[row * valueDim + d]);
      }
    });
  });
  return {...gradients, magnitudes};
}

function rowsOf({query, key, queryShape, keyShape}: Inputs, options: OracleOptions): Row[] {
  const [batch, heads, queryLength, headDim] = queryShape;
  const [, keyHeads, keyLength] = keyShape;
  const {scale = 1 / Math.sqrt(headDim), softCap, alibiSlopes, sinks} = options;
  const {queryOffset = Math.max(0, keyLength - queryLength)} = options;
  const isSelf = queryLength === keyLength;
  const rows: Row[] = [];
  for (let b = 0; b < batch; ++b) {
    for (let h = 0; h < heads; ++h) {
      const firstKey = (b * keyHeads + Math.floor((h * keyHeads) / heads)) * keyLength;
      for (let i = 0; i < queryLength; ++i) {
        const position = (typeof queryOffset === 'number' ? queryOffset : queryOffset[b]) + i;
        const row = (b * heads + h) * queryLength + i;
        const derivatives = new Array<number>(keyLength).fill(1);
        const scores = Array.from({length: keyLength}, (_, j) => {
          const bias = maskAt(options, [b, h, i, j]);
          const isHidden = !isSeen(options, b, position, j) || isBeforeStart(options, b, position, j, isSelf);
          if (isHidden || bias === -Infinity) return -Infinity;
          let score = scale * dotOf(query, row, key, firstKey + j, headDim);
          if (softCap !== undefined) {
            const tanh = Math.tanh(score / softCap);
            derivatives[j] = 1 - tanh * tanh;
            score = softCap * tanh;
          }
          return score - (alibiSlopes?.[h] ?? 0) * Math.abs(position - j) + bias;
        });
        const sink = sinks?.[h] ?? -Infinity;
        const top = Math.max(sink, ...scores);
        const sum = Math.exp(sink - top) + scores.reduce((all, score) => all + Math.exp(score - top), 0);
        const logSumExp = top === -Infinity ? top : top + Math.log(sum);
        const weights = scores.map((score) => (score === -Infinity ? 0 : Math.exp(score - logSumExp)));
        rows.push({scores, derivatives, weights, logSumExp, query: row, firstKey});
      }
    }
  }
  return rows;
}

function isSeen({causal = true, window = Infinity, keyLengths}: OracleOptions, entry: number, i: number, j: number) {
  const isNear = causal ? j <= i && i - j < window : Math.abs(i - j) < window;
  return isNear && j < (keyLengths?.[entry] ?? Infinity);
}

/** Padding on the left hides keys, and rows where these have places among the keys. */
function isBeforeStart(options: OracleOptions, entry: number, i: number, j: number, isSelf: boolean): boolean {
  const {causal = true, window, alibiSlopes, keyStarts} = options;
  const start = keyStarts?.[entry] ?? 0;
  const havePlaces = causal || window !== undefined || alibiSlopes !== undefined || isSelf;
  return j < start || (havePlaces && i < start);
}

function maskAt({mask}: OracleOptions, place: number[]): number {
  if (!mask) return 0;
  const x = mask.values[maskIndex(mask, place)];
  return mask.dtype === 'bool' ? (x ? 0 : -Infinity) : x;
}

/** Where a mask has the value of an entry, a head, a row and a key. */
export const maskIndex = ({shape}: {shape: number[]}, place: number[]): number =>
  place.reduce((at, x, axis) => at * shape[axis] + (shape[axis] === 1 ? 0 : x), 0);

function dotOf(a: ArrayLike<number>, i: number, b: ArrayLike<number>, j: number, dim: number): number {
  let sum = 0;
  for (let d = 0; d < dim; ++d) {
    sum += a[i * dim + d] * b[j * dim + d];
  }
  return sum;
}
