import {causalMask, GraphBuilder} from './graph_builder';

/** Tokens and head dim of the graphs; more than a block, so that blocks can be left out. */
export const length = 24;
export const headDim = 8;

/** A way to write a part of attention: adds nodes to `g`, takes and returns names of tensors. */
export interface Product {
  /** Shapes of query, key and value. */
  layout: 'heads first' | 'heads second';
  scores(g: GraphBuilder): string;
  output(g: GraphBuilder, weights: string): string;
}

const batchMatMul = (g: GraphBuilder, name: string, a: string, b: string, adjY: boolean) =>
  g.node('BatchMatMulV2', name, [a, b], {adj_x: {b: false}, adj_y: {b: adjY}, T: {type: 'DT_FLOAT'}});
const transpose = (g: GraphBuilder, name: string, x: string, ...perm: number[]) =>
  g.node('Transpose', name, [x, g.int(`${name}/perm`, ...perm)], {T: {type: 'DT_FLOAT'}, Tperm: {type: 'DT_INT32'}});

/** Products in the forms that converter and people write, on `[b, h, n, d]` or `[b, n, h, d]`. */
export const products: Record<string, Product> = {
  'BatchMatMulV2, adj_y': {
    layout: 'heads first',
    scores: (g) => batchMatMul(g, 'scores', 'query', 'key', true),
    output: (g, weights) => batchMatMul(g, 'attended', weights, 'value', false),
  },
  'BatchMatMulV2 of transposed keys': {
    layout: 'heads first',
    scores: (g) => batchMatMul(g, 'scores', 'query', transpose(g, 'key_t', 'key', 0, 1, 3, 2), false),
    output: (g, weights) => batchMatMul(g, 'attended', weights, 'value', false),
  },
  'BatchMatMulV2, heads moved by Transpose': {
    layout: 'heads second',
    scores: (g) => {
      const query = transpose(g, 'query_t', 'query', 0, 2, 1, 3);
      return batchMatMul(g, 'scores', query, transpose(g, 'key_t', 'key', 0, 2, 3, 1), false);
    },
    output: (g, weights) => {
      const attended = batchMatMul(g, 'context', weights, transpose(g, 'value_t', 'value', 0, 2, 1, 3), false);
      return transpose(g, 'attended', attended, 0, 2, 1, 3);
    },
  },
  Einsum: {
    layout: 'heads first',
    scores: (g) => g.einsum('scores', ['query', 'key'], 'bhid,bhjd->bhij'),
    output: (g, weights) => g.einsum('attended', [weights, 'value'], 'bhij,bhjd->bhid'),
  },
  "Einsum as in Keras's MultiHeadAttention": {
    layout: 'heads second',
    scores: (g) => g.einsum('scores', ['key', 'query'], 'aecd,abcd->acbe'),
    output: (g, weights) => g.einsum('attended', [weights, 'value'], 'acbe,aecd->abcd'),
  },
  'Einsum with values first': {
    layout: 'heads second',
    scores: (g) => g.einsum('scores', ['query', 'key'], 'bihd,bjhd->bhij'),
    output: (g, weights) => g.einsum('attended', ['value', weights], 'bjhd,bhij->bihd'),
  },
};

/** Takes the scores and returns them scaled by `1 / sqrt(headDim)`. */
export const scales: Record<string, (g: GraphBuilder, scores: string) => string> = {
  Mul: (g, scores) => g.node('Mul', 'scaled', [scores, g.scalar('scale', 1 / Math.sqrt(headDim))]),
  'Mul, the number first': (g, scores) => g.node('Mul', 'scaled', [g.scalar('scale', 1 / Math.sqrt(headDim)), scores]),
  RealDiv: (g, scores) => g.node('RealDiv', 'scaled', [scores, g.scalar('scale', Math.sqrt(headDim))]),
  'RealDiv by the root of a Shape': (g, scores) => {
    const size = g.node(
      'StridedSlice',
      'size',
      [g.node('Shape', 'shape', ['key']), g.int('size/begin', -1), g.int('size/end', 0), g.int('size/strides', 1)],
      {shrink_axis_mask: {i: '1'}, begin_mask: {i: '0'}, end_mask: {i: '0'}, new_axis_mask: {i: '0'}},
    );
    const float = g.node('Cast', 'size_float', [size], {SrcT: {type: 'DT_INT32'}, DstT: {type: 'DT_FLOAT'}});
    return g.node('RealDiv', 'scaled', [scores, g.node('Sqrt', 'root', [float])]);
  },
};

const toFloat = {SrcT: {type: 'DT_BOOL'}, DstT: {type: 'DT_FLOAT'}};

function sequenceLength(g: GraphBuilder, scores: string): string {
  const shape = g.node('Shape', 'scores_shape', [scores]);
  const [begin, end, strides] = [g.int('begin', 3), g.int('end', 4), g.int('strides', 1)];
  return g.node('StridedSlice', 'n', [shape, begin, end, strides], {shrink_axis_mask: {i: '1'}});
}

/** Takes the scores and returns them with later keys masked. */
export const causalMasks: Record<string, (g: GraphBuilder, scores: string) => string> = {
  'a constant of -1e9': (g, scores) =>
    g.node('AddV2', 'masked', [scores, g.constant('mask', [1, 1, length, length], causalMask(length, -1e9))]),
  'a constant of -1e8, added first': (g, scores) =>
    g.node('Add', 'masked', [g.constant('mask', [length, length], causalMask(length, -1e8)), scores]),
  'a constant of -Infinity': (g, scores) =>
    g.node('AddV2', 'masked', [scores, g.constant('mask', [length, length], causalMask(length, -Infinity))]),
  'a constant subtracted': (g, scores) =>
    g.node('Sub', 'masked', [scores, g.constant('mask', [length, length], causalMask(length, 1e9))]),
  'a constant in 8 bits': (g, scores) => {
    const quantized = Uint8Array.from(causalMask(length, 0, 255)).buffer;
    const quantization = {dtype: 'uint8' as const, scale: 1e9 / 255, min: -1e9};
    const mask = g.weight({name: 'mask', shape: [length, length], dtype: 'float32', quantization}, quantized);
    return g.node('AddV2', 'masked', [scores, mask]);
  },
  'SelectV2 by a constant': (g, scores) => {
    const visible = g.constant('visible', [1, 1, length, length], causalMask(length, 0, 1), 'bool');
    return g.node('SelectV2', 'masked', [visible, scores, g.scalar('lowest', -3.4e38)]);
  },
  'SelectV2 of what is hidden': (g, scores) => {
    const hidden = g.constant('hidden', [length, length], causalMask(length, 1), 'bool');
    return g.node('SelectV2', 'masked', [hidden, g.scalar('lowest', -1e10), scores]);
  },
  'a comparison of ranges': (g, scores) => {
    const n = sequenceLength(g, scores);
    const [zero, step] = [g.scalar('zero', 0, 'int32'), g.scalar('step', 1, 'int32')];
    const range = g.node('Range', 'range', [zero, n, step], {Tidx: {type: 'DT_INT32'}});
    const [from, to, by] = [g.int('s/begin', 0, 0), g.int('s/end', 0, 0), g.int('s/strides', 1, 1)];
    const masks = {begin_mask: {i: '1'}, end_mask: {i: '1'}, new_axis_mask: {i: '2'}};
    const upright = g.node('StridedSlice', 'upright', [range, from, to, by], masks);
    const visible = g.node('GreaterEqual', 'visible', [upright, range]);
    return g.node('SelectV2', 'masked', [visible, scores, g.scalar('lowest', -1e9)]);
  },
  'a comparison of running counts': (g, scores) => {
    const size = sequenceLength(g, scores);
    const dims = g.node('Pack', 'dims', [g.scalar('batch', 1, 'int32'), size, size], {N: {i: '3'}, axis: {i: '0'}});
    const ones = g.node('Fill', 'ones', [dims, g.scalar('one', 1, 'int32')]);
    const counts = (name: string, axis: number) =>
      g.node('Cumsum', name, [ones, g.scalar(`${name}/axis`, axis, 'int32')], {
        exclusive: {b: false},
        reverse: {b: false},
      });
    const visible = g.node('GreaterEqual', 'visible', [counts('rows', 1), counts('columns', 2)]);
    const hidden = g.node('Sub', 'hidden', [g.scalar('one_more', 1), g.node('Cast', 'float', [visible], toFloat)]);
    return g.node('AddV2', 'masked', [scores, g.node('Mul', 'mask', [hidden, g.scalar('large', -1e9)])]);
  },
  'a comparison, cast, expanded and negated': (g, scores) => {
    const column = Float32Array.from({length}, (_, i) => i);
    const [rows, columns] = [g.constant('rows', [length, 1], column), g.constant('columns', [1, length], column)];
    const later = g.node('LogicalNot', 'later', [g.node('LessEqual', 'visible', [columns, rows])]);
    const expanded = g.node('ExpandDims', 'expanded', [later, g.scalar('axis', 0, 'int32')]);
    const negative = g.node('Neg', 'negative', [g.node('Cast', 'float', [expanded], toFloat)]);
    return g.node('AddV2', 'masked', [scores, g.node('Mul', 'mask', [negative, g.scalar('large', 1e9)])]);
  },
  "GPT-2's product and difference": (g, scores) => {
    const all = g.constant('bias', [1, 1, 32, 32], causalMask(32, 0, 1));
    const ends = [g.int('begin', 0, 0, 0, 0), g.int('end', 0, 0, length, length), g.int('strides', 1, 1, 1, 1)];
    const bias = g.node('StridedSlice', 'b', [all, ...ends], {begin_mask: {i: '3'}, end_mask: {i: '3'}});
    const kept = g.node('Mul', 'kept', [scores, bias]);
    const hidden = g.node('Sub', 'hidden', [g.scalar('one', 1), bias]);
    return g.node('Sub', 'masked', [kept, g.node('Mul', 'lowered', [g.scalar('large', 1e10), hidden])]);
  },
};

/** A model of attention alone, over placeholders query, key and value of any batch, heads and length. */
export function attentionGraph(
  product: Product,
  scale = scales['Mul'],
  mask?: (g: GraphBuilder, scores: string) => string,
): GraphBuilder {
  const g = new GraphBuilder();
  for (const name of ['query', 'key', 'value']) {
    g.placeholder(name, [-1, -1, -1, -1]);
  }
  const scaled = scale(g, product.scores(g));
  const weights = g.node('Softmax', 'softmax', [mask ? mask(g, scaled) : scaled], {T: {type: 'DT_FLOAT'}});
  g.node('Identity', 'Identity', [product.output(g, weights)], {T: {type: 'DT_FLOAT'}});
  return g;
}
