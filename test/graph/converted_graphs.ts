import {GraphBuilder} from './graph_builder';

/*
 * Attention as `tensorflowjs_converter` 4.22 writes it, node for node, of models that are found as graph models: YOLO11 and YOLO12 as
 * Ultralytics exports them, BERT and GPT-2 of Hugging Face transformers for TensorFlow.
 */

const keyDim = 8;
const valueDim = 16;
const heads = 2;

const matMul = (g: GraphBuilder, name: string, a: string, b: string, x: boolean, y: boolean) =>
  g.node('BatchMatMulV2', name, [a, b], {adj_x: {b: x}, adj_y: {b: y}, T: {type: 'DT_FLOAT'}});
const transpose = (g: GraphBuilder, name: string, x: string, ...perm: number[]) =>
  g.node('Transpose', name, [x, g.int(`${name}/perm`, ...perm)]);
const shapeOf = (g: GraphBuilder, name: string, x: string, axis: number) =>
  g.node(
    'StridedSlice',
    name,
    [`${x}/shape`, g.int(`${name}/begin`, axis), g.int(`${name}/end`, axis + 1), g.int(`${name}/by`, 1)],
    {shrink_axis_mask: {i: '1'}},
  );

/** `value · softmax(queryᵀ · key)ᵀ`, of tensors whose rows are channels. */
function ofChannels(g: GraphBuilder, query: string, key: string, value: string): string {
  const scores = matMul(g, 'scores', query, key, true, false);
  const scaled = g.node('Mul', 'scaled', [scores, g.scalar('scale', 1 / Math.sqrt(keyDim))]);
  return matMul(g, 'attended', value, g.node('Softmax', 'softmax', [scaled]), false, true);
}

/** Over an image of `x`, `[1, side, side, channels]`. */
export function yolo11(side: number): GraphBuilder {
  const g = new GraphBuilder();
  const channels = 2 * keyDim + valueDim;
  const x = transpose(g, 'channels', g.placeholder('x', [1, side, side, heads * channels]), 0, 3, 1, 2);
  const rows = g.node('Reshape', 'rows', [x, g.int('rows/shape', 1, heads, channels, side * side)]);
  const part = (name: string, from: number, to: number) => {
    const bounds = [g.int(`${name}/begin`, 0, 0, from, 0), g.int(`${name}/end`, 0, 0, to, 0)];
    const masks = {begin_mask: {i: '11'}, end_mask: {i: '11'}};
    return g.node('StridedSlice', name, [rows, ...bounds, g.int(`${name}/by`, 1, 1, 1, 1)], masks);
  };
  const [query, key] = [part('query', 0, keyDim), part('key', keyDim, 2 * keyDim)];
  const attended = ofChannels(g, query, key, part('value', 2 * keyDim, channels));
  const image = g.node('Reshape', 'image', [attended, g.int('image/shape', 1, heads * valueDim, side, side)]);
  g.node('Identity', 'Identity', [transpose(g, 'moved', image, 0, 2, 3, 1)]);
  return g;
}

/** The same over four areas of the image, by a Split. */
export function yolo12(side: number): GraphBuilder {
  const g = new GraphBuilder();
  const n = (side * side) / 4;
  g.placeholder('x', [1, side, side, heads * 3 * keyDim]);
  const areas = g.node('Reshape', 'areas', ['x', g.int('areas/shape', 4, n, heads, 3 * keyDim)]);
  const rows = transpose(g, 'rows', areas, 0, 2, 3, 1);
  const split = g.node('Split', 'split', [g.scalar('split/dim', 2, 'int32'), rows], {num_split: {i: '3'}});
  const attended = transpose(g, 'moved', ofChannels(g, split, `${split}:1`, `${split}:2`), 0, 3, 1, 2);
  g.node('Identity', 'Identity', [
    g.node('Reshape', 'image', [attended, g.int('image/shape', 1, side, side, heads * keyDim)]),
  ]);
  return g;
}

/** Keys weighed along the rows of `key · queryᵀ`: `tf.nn.softmax` over another axis than the last is wrapped in Transposes. */
export function columns(): GraphBuilder {
  const g = new GraphBuilder();
  ['query', 'key', 'value'].forEach((name) => g.placeholder(name, [-1, -1, -1]));
  const scores = matMul(g, 'scores', 'key', 'query', false, true);
  const scaled = g.node('Mul', 'scaled', [scores, g.scalar('scale', 0.3)]);
  const softmax = g.node('Softmax', 'softmax', [transpose(g, 'turned', scaled, 0, 2, 1)]);
  const weights = transpose(g, 'back', softmax, 0, 2, 1);
  g.node('Identity', 'Identity', [matMul(g, 'attended', weights, 'value', true, false)]);
  return g;
}

/** With `mask` `[batch, keys]`, 1 where a key is seen, which is `(1 - mask) * -10000` over the scores. */
export function bert(): GraphBuilder {
  const g = new GraphBuilder();
  ['query', 'key', 'value'].forEach((name) => g.placeholder(name, [-1, -1, heads, keyDim]));
  g.placeholder('mask', [-1, -1]);
  g.node('Shape', 'mask/shape', ['mask']);
  const one = () => g.scalar(`one_${g.nodes.length}`, 1, 'int32');
  const shape = [shapeOf(g, 'batch', 'mask', 0), one(), one(), shapeOf(g, 'keys', 'mask', 1)];
  const seen = g.node('Reshape', 'seen', ['mask', g.node('Pack', 'seen/shape', shape, {axis: {i: '0'}})]);
  const hidden = g.node('Sub', 'hidden', [g.scalar('one', 1), seen]);
  const padding = g.node('Mul', 'padding', [hidden, g.scalar('large', -10000)]);
  const [query, key, value] = ['query', 'key', 'value'].map((name) => transpose(g, `${name}_t`, name, 0, 2, 1, 3));
  const scores = matMul(g, 'scores', query, key, false, true);
  const scaled = g.node('Mul', 'scaled', [scores, g.scalar('scale', 1 / Math.sqrt(keyDim))]);
  const softmax = g.node('Softmax', 'softmax', [g.node('AddV2', 'masked', [scaled, padding])]);
  const attended = matMul(g, 'attended', softmax, value, false, false);
  g.node('Identity', 'Identity', [transpose(g, 'moved', attended, 0, 2, 1, 3)]);
  return g;
}

/** `key` and `value` are those of the past and of the rows: a row sees key j if `i >= j - keys + rows`, else its score is -10000. */
export function gpt2(): GraphBuilder {
  const g = new GraphBuilder();
  ['query', 'key', 'value'].forEach((name) => g.placeholder(name, [-1, heads, -1, keyDim]));
  const scores = matMul(g, 'scores', 'query', 'key', false, true);
  const scaled = g.node('Mul', 'scaled', [scores, g.scalar('scale', 1 / Math.sqrt(keyDim))]);
  g.node('Shape', 'scaled/shape', [scaled]);
  const [rows, keys] = [shapeOf(g, 'rows', 'scaled', 2), shapeOf(g, 'keys', 'scaled', 3)];
  const range = (name: string, to: string) =>
    g.node('Range', name, [g.scalar(`${name}/from`, 0, 'int32'), to, g.scalar(`${name}/by`, 1, 'int32')]);
  const bounds = [g.int('i/begin', 0, 0), g.int('i/end', 0, 0), g.int('i/by', 1, 1)];
  const masks = {begin_mask: {i: '1'}, end_mask: {i: '1'}, new_axis_mask: {i: '2'}};
  const i = g.node('StridedSlice', 'i', [range('row_range', rows), ...bounds], masks);
  const moved = g.node('Sub', 'from_end', [range('key_range', keys), keys]);
  const visible = g.node('GreaterEqual', 'visible', [i, g.node('AddV2', 'j', [moved, rows])]);
  const cast = g.node('Cast', 'visible_float', [visible], {SrcT: {type: 'DT_BOOL'}, DstT: {type: 'DT_FLOAT'}});
  const ones = ['first', 'second'].map((name) => g.scalar(name, 1, 'int32'));
  const b = g.node('Reshape', 'b', [cast, g.node('Pack', 'b/shape', [...ones, rows, keys], {axis: {i: '0'}})]);
  const hidden = g.node('Mul', 'lowered', [g.scalar('large', 10000), g.node('Sub', 'hidden', [g.scalar('one', 1), b])]);
  const masked = g.node('Sub', 'masked', [g.node('Mul', 'kept', [scaled, b]), hidden]);
  const softmax = g.node('Softmax', 'softmax', [masked]);
  g.node('Identity', 'Identity', [matMul(g, 'attended', softmax, 'value', false, false)]);
  return g;
}
